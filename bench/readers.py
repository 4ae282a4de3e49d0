"""Clients of one PTY session, in a process of their own, that count what they get.

`python -m bench.readers PORT PATH CLIENTS BYTES`: prints `ready` when all are attached; begins to
read at a line on stdin, and types a newline if that says so; when each client has BYTES, prints the
moment by the monotonic clock, which all processes share.
"""

import selectors
import socket
import sys
import time

from bench.wire import BUFFER_BYTES, FrameCounter, WebSocket


def main() -> None:
    """Run the clients."""
    port, path, clients, size = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    sockets = [WebSocket(port, path) for _ in range(clients)]
    for each in sockets:
        each.receive()  # `connected`
    print("ready", flush=True)
    if sys.stdin.readline() == "type\n":
        sockets[0].send(b"\n")
    counters = {each.sock: FrameCounter() for each in sockets}
    buffer = memoryview(bytearray(BUFFER_BYTES))
    left = clients
    with selectors.EpollSelector() as ready:
        for each in sockets:
            ready.register(each.sock, selectors.EVENT_READ)
        while left:
            for key, _ in ready.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                got = sock.recv_into(buffer)
                counter = counters[sock]
                counter.feed(buffer[:got])
                if not got or counter.closed:
                    raise ConnectionError(f"closed after {counter.payload_bytes} bytes")
                if counter.payload_bytes >= size:
                    ready.unregister(sock)
                    left -= 1
    print(time.monotonic(), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
