"""A TCP proxy that can break the connections that go through it."""

import re
import selectors
import socket
import threading

from tests.daemon.daemon import eventually


class Proxy:
    """Passes connections on to a port of loopback, until they are cut.

    Attributes:
        port_behind: where connections go.
        refuses: whether new connections are closed at once.
        portion: number of bytes after which a connection ends for its client; 0 for no limit.
        loses: the reply to the next request that contains this never arrives.
        refuses_after_loss: whether it `refuses` from then on.
        refused: the number of connections that were.
        answers: the reply to every new connection, which isn't passed on then.
        lines: the first lines of the requests that came.
    """

    def __init__(self, port: int) -> None:
        self.port_behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._waker, self._woken = socket.socketpair()
        self._orders: list[str] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._freezes = b""
        self.refuses = False
        self.portion = 0
        self.loses = b""
        self.refuses_after_loss = False
        self.refused = 0
        self.answers = b""
        self.lines: list[bytes] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def answer(self, status: int) -> None:
        """Break all connections, and answer new ones as a gateway does."""
        before = len(self.lines)
        page = b"<html>why</html>"
        head = f"HTTP/1.1 {status} Why\r\nContent-Length: {len(page)}\r\n\r\n"
        self.answers = head.encode() + page
        self.cut()
        assert eventually(lambda: len(self.lines) > before)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break all connections, with a reset."""
        self._order("cut")

    def freeze(self, what: bytes = b"") -> None:
        """Silently stop passing on connections whose last request line contains this.

        So it is when a NAT forgets a connection.
        """
        self._freezes = what
        self._order("freeze")

    def close(self) -> None:
        """Break all, and end."""
        self._order("close")
        self._thread.join()
        for each in (self._listener, self._waker, self._woken):
            each.close()

    def _order(self, order: str) -> None:
        self._done.clear()
        with self._lock:
            self._orders.append(order)
        self._waker.send(b"x")
        self._done.wait()

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ)
        selector.register(self._woken, selectors.EVENT_READ)
        pairs: dict[socket.socket, socket.socket] = {}

        lost: set[socket.socket] = set()  # from where nothing is passed on
        asked: dict[socket.socket, bytes] = {}
        brought: dict[socket.socket, int] = {}  # by where it comes from
        frozen: list[socket.socket] = []

        def freeze(one: socket.socket) -> None:
            for each in (one, pairs.pop(one)):
                pairs.pop(each, None)
                selector.unregister(each)
                frozen.append(each)

        def drop(one: socket.socket, linger: bytes = b"\1\0\0\0\0\0\0\0") -> None:
            other = pairs.pop(one, None)
            for each in (one, other):
                if each is not None:
                    pairs.pop(each, None)
                    selector.unregister(each)
                    # A reset, if nothing else is said, and not an end: socket(7), SO_LINGER.
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    each.close()

        while True:
            for key, _ in selector.select():
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if one is self._woken:
                    one.recv(1)
                    with self._lock:
                        order = self._orders.pop(0)
                    for each in list(pairs):
                        if each in pairs and order != "freeze":
                            drop(each)
                        elif each in pairs and self._freezes in asked.get(each, ()):
                            freeze(each)
                    self._done.set()
                    if order == "close":
                        for each in frozen:
                            each.close()
                        selector.close()
                        return
                elif one is self._listener:
                    inner, _ = one.accept()
                    if self.refuses:
                        inner.close()
                        self.refused += 1
                        continue
                    if self.answers:
                        self.lines += inner.recv(65536).splitlines()[:1]
                        inner.sendall(self.answers)
                        inner.close()
                        continue
                    outer = socket.create_connection(("127.0.0.1", self.port_behind))
                    pairs[inner], pairs[outer] = outer, inner
                    brought[outer] = 0
                    selector.register(inner, selectors.EVENT_READ)
                    selector.register(outer, selectors.EVENT_READ)
                elif one in pairs:
                    try:
                        data = one.recv(65536)
                        if lines := re.findall(rb"(?m)^[A-Z]+ /\S* HTTP/1.1\r$", data):
                            self.lines += lines
                            asked[one] = lines[-1]
                        if self.loses and self.loses in data:
                            lost.add(pairs[one])
                            self.loses = b""
                            self.refuses |= self.refuses_after_loss
                        if one in lost:
                            lost.remove(one)
                            data = b""
                        if data:
                            pairs[one].sendall(data)
                        if one in brought and self.portion:
                            brought[one] += len(data)
                            if brought[one] >= self.portion:
                                drop(one, bytes(8))
                                continue
                    except OSError:
                        data = b""
                    if not data:
                        drop(one)
