"""procd: a process daemon for sandboxes. The map of the package is ARCHITECTURE.md."""

__version__ = "0.1.0"
