"""Thin wrappers of system calls: descriptors, files, signals, /proc, memory. No processes to run.

May import `procd.errors`, `procd.tasks` and the standard library.
"""
