"""The command line: a client of the API, of this machine's server or of any other.

It imports nothing of the server but pure code of `procd.output`. A command imports only what it
needs: most of the time that a short command takes is the start of Python.
"""
