"""Bytes in, bytes out: the log and what reads it. No descriptors, no processes, no HTTP.

May import `procd.utf8` and the standard library. Waiting is the business of whoever reads: a cursor
knows an offset and whom to call.
"""
