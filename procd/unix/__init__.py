"""Thin wrappers of system calls: descriptors, files, signals, /proc, memory. No processes to run.

May import `procd.errors`, `procd.throttle` and the standard library.
"""
