"""The files of deploy/, with the programs that they are for."""
