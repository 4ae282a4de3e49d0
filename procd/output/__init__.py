"""Output of processes: logs, what keeps them, and how readers get it. No processes, no HTTP.

May import `procd.unix` and what lies below it.
"""
