"""The product: what may be done to commands and sessions, in plain data. No HTTP, no JSON.

May import `procd.process` and what lies below it.
"""
