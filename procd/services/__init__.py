"""The product: what may be done to commands and sessions, in plain data. No HTTP.

JSON is only spoken with files and with the workers, never with a client.
May import `procd.process`, `procd.output` and what lies below them.
"""
