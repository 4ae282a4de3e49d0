"""The command line: a client of the public API, of this machine's server or of any other.

It imports nothing of the server's but pure code of `streams`, and what one command needs no other
command imports: most of the time that a short command takes is Python's own start-up.
"""
