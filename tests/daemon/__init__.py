"""The daemon as a process of its own: command line, signals, what it leaves to its children."""
