"""One descriptor or one process at a time: no sessions, no HTTP, no JSON.

May import `procd.config`, `procd.errors`, `procd.turns`, `procd.utf8` and the standard library.
"""
