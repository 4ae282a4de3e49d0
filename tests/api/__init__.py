"""The API as its clients see it, over real sockets."""
