"""Output of processes: logs, their stores, and how readers get it. May import `procd.unix`."""
