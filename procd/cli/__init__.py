"""The command line: a client of the API, of this machine's server or of any other.

Of the server it imports only pure code of `procd.output`. A command imports only what it needs, as
a short command spends most of its time in imports.
"""
