"""Wrappers of system calls. May import `procd.errors`, `procd.tasks` and the standard library."""
