"""Everyone at once: clients that execute without a pause, read floods and follow a log.

A process of its own, beside the one that measures. Started with the port of a procd; says `ready`
when all are at work, and ends with its input.
"""

import selectors
import socket
import sys
from typing import Final

from bench.wire import BUFFER_BYTES, Http, WebSocket, complete, request

EXECUTES: Final = 64
FLOODS: Final = 50
FOLLOWERS: Final = 20
FLOOD: Final = "stty raw -echo; exec yes 'The quick brown fox jumps over the lazy dog'\n"
LOGGED: Final = "while :; do seq 1000; done"


class Crowd:
    """All clients of one procd."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._buffer = bytearray(BUFFER_BYTES)
        self._execute = request("POST", "/process/execute", {"command": "true"})
        self._partial: dict[socket.socket, bytes] = {}
        self._open: list[Http | WebSocket] = []
        self._executing: set[socket.socket] = set()

    def run(self) -> None:
        """Begin, say so, and go on until the input ends."""
        with selectors.EpollSelector() as ready:
            self._follow(ready)
            self._flood(ready)
            for _ in range(EXECUTES):
                connection = Http(self._port)
                self._open.append(connection)
                self._executing.add(connection.sock)
                ready.register(connection.sock, selectors.EVENT_READ)
                connection.sock.sendall(self._execute)
            ready.register(sys.stdin, selectors.EVENT_READ)
            print("ready", flush=True)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is sys.stdin:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    self._read(key.fileobj)

    def _read(self, sock: socket.socket) -> None:
        if sock not in self._executing:
            if not sock.recv_into(self._buffer):
                raise ConnectionError("closed")
            return
        reply = self._partial.pop(sock, b"") + sock.recv(65536)
        if not complete(reply):
            self._partial[sock] = reply
            return
        if not reply.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(reply.decode())
        sock.sendall(self._execute)

    def _follow(self, ready: selectors.EpollSelector) -> None:
        http = Http(self._port)
        http.exchange(request("POST", "/process/session", {"sessionId": "crowd"}))
        command = {"command": LOGGED, "runAsync": True}
        command_id = http.call("POST", "/process/session/crowd/exec", command)["cmdId"]
        http.close()
        path = f"/process/session/crowd/command/{command_id}/logs?follow=true"
        for _ in range(FOLLOWERS):
            self._attach(ready, WebSocket(self._port, path))

    def _flood(self, ready: selectors.EpollSelector) -> None:
        for number in range(FLOODS):
            client = WebSocket(self._port, f"/process/pty/create-connect?id=crowd{number}")
            client.send(FLOOD.encode())
            self._attach(ready, client)

    def _attach(self, ready: selectors.EpollSelector, client: WebSocket) -> None:
        self._open.append(client)
        ready.register(client.sock, selectors.EVENT_READ)


if __name__ == "__main__":
    Crowd(int(sys.argv[1])).run()
