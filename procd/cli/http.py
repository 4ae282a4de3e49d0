"""HTTP/1.1 on a socket: as much of it as one client of one server needs.

The standard library's own client costs more time to import than a whole `procd exec` may take.

Source: RFC 9112.
"""

import socket
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from procd.cli.failure import Unreachable
from procd.cli.target import Target

CONNECT_S: Final = 10.0
REPLY_S: Final = 30.0
PIECE_BYTES: Final = 256 << 10
MAX_HEAD_BYTES: Final = 64 << 10


class Reply(NamedTuple):
    """A reply; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One connection, for one request at a time.

    Attributes:
        sent_at: when its last request was sent, by the monotonic clock.
    """

    def __init__(self, target: Target, connect_s: float = CONNECT_S) -> None:
        self._target = target
        self._received = bytearray()
        self.reusable = False
        self.sent_at = 0.0
        self.socket = _connected(target, connect_s)

    def fileno(self) -> int:
        """The descriptor to wait on for the reply."""
        return self.socket.fileno()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a request.

        Raises:
            Unreachable: the connection is gone.
        """
        target = self._target
        fields = {"Host": target.authority, "Accept": "application/json"}
        if target.token:
            fields["Authorization"] = f"Bearer {target.token}"
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        fields |= headers or {}
        lines = [f"{method} {target.prefix}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self.sent_at = time.monotonic()
        self.socket.settimeout(REPLY_S)
        try:
            self.socket.sendall(head + (body or b""))
        except OSError as exc:
            raise self._gone(exc) from exc

    def receive(self, within_s: float | None = REPLY_S) -> Reply:
        """The reply to what was sent.

        Args:
            within_s: the longest silence, seconds; None for no limit.

        Raises:
            Unreachable: the connection is gone, or nothing came in time.
        """
        version, status, headers = self._head(within_s)
        while status // 100 == 1 and status != 101:  # the reply is still to come
            version, status, headers = self._head(within_s)
        options = headers.get("connection", "").lower().split(",")
        lasts = version == "HTTP/1.1" and "close" not in map(str.strip, options)
        try:
            if status in (101, 204, 304):
                body = b""
            elif headers.get("transfer-encoding", "").lower() == "chunked":
                body = self._chunks(within_s)
            elif "content-length" in headers:
                body = self._take(int(headers["content-length"]), within_s)
            else:
                body, lasts = self._rest(within_s), False
        except ValueError as exc:
            raise Unreachable(f"{self._target.url} doesn't speak HTTP") from exc
        self.reusable = lasts
        return Reply(status, headers, body)

    def _head(self, within_s: float | None) -> tuple[str, int, Mapping[str, str]]:
        """The version, the status and the headers of a reply."""
        self.reusable = False
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if len(self._received) > MAX_HEAD_BYTES or not self._more(within_s):
                raise Unreachable(f"{self._target.url} closed the connection without an answer")
        lines = bytes(self._received[:end]).decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        words = lines[0].split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
            raise Unreachable(f"{self._target.url} doesn't speak HTTP")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return words[0], int(words[1]), headers

    def leave(self) -> tuple[socket.socket, bytes]:
        """The socket, and what it has brought already: it is no longer this one's."""
        return self.socket, bytes(self._received)

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def _gone(self, exc: OSError) -> Unreachable:
        if isinstance(exc, TimeoutError):
            return Unreachable(f"{self._target.url} doesn't answer")
        return Unreachable(f"the connection to {self._target.url} broke: {exc.strerror or exc}")

    def _more(self, within_s: float | None) -> bool:
        """Receive what comes next; False at the end."""
        try:
            self.socket.settimeout(within_s)
            data = self.socket.recv(PIECE_BYTES)
        except OSError as exc:
            raise self._gone(exc) from exc
        self._received += data
        return bool(data)

    def _take(self, count: int, within_s: float | None) -> bytes:
        if count < 0:
            raise ValueError("not a size")
        while len(self._received) < count:
            if not self._more(within_s):
                raise Unreachable(f"{self._target.url} closed the connection within an answer")
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def _rest(self, within_s: float | None) -> bytes:
        while self._more(within_s):
            continue
        return self._take(len(self._received), within_s)

    def _line(self, within_s: float | None) -> bytes:
        while (end := self._received.find(b"\r\n")) < 0:
            if len(self._received) > MAX_HEAD_BYTES or not self._more(within_s):
                raise Unreachable(f"{self._target.url} closed the connection within an answer")
        line = bytes(self._received[:end])
        del self._received[: end + 2]
        return line

    def _chunks(self, within_s: float | None) -> bytes:
        body = bytearray()
        while size := int(self._line(within_s).split(b";")[0], 16):
            body += self._take(size, within_s)
            self._take(2, within_s)
        while self._line(within_s):
            continue
        return bytes(body)


def _connected(target: Target, within_s: float) -> socket.socket:
    """A socket that is connected to the target.

    Raises:
        Unreachable: it isn't there.
    """
    try:
        if target.socket:
            return _unix(target.socket, within_s)
        # As bytes: for a str, Python loads all of IDNA. A name may be several addresses, of which
        # one is served.
        plain = socket.create_connection((target.host.encode(), target.port), within_s)  # type: ignore[arg-type]  # getaddrinfo takes bytes
    except OSError as exc:
        problem = "no answer" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
        raise Unreachable(
            f"can't reach procd at {target.url} ({problem})",
            "start it with `procd serve`, or say where it is with --url or PROCD_URL",
        ) from exc
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _encrypted(plain, target) if target.tls else plain


def _unix(path: str, within_s: float) -> socket.socket:
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        unix.settimeout(within_s)
        unix.connect(path)
    except BaseException:
        unix.close()
        raise
    return unix


def _encrypted(plain: socket.socket, target: Target) -> socket.socket:
    import ssl  # few need it, and it is large

    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=target.host)
    except (OSError, ValueError) as exc:  # ValueError: what is no name of a server
        plain.close()
        raise Unreachable(f"no safe connection to {target.url}: {exc}") from exc


def quoted(text: str) -> str:
    """Text as one segment of a path, or as a value of a query.

    Bytes of an argument that are no UTF-8 stay what they are: PEP 383.
    """
    from urllib.parse import quote

    return quote(text, safe="", errors="surrogateescape")


def query(**parameters: Any) -> str:
    """A query with the parameters that aren't None; empty if all are."""
    given = {name: value for name, value in parameters.items() if value is not None}
    pairs = [f"{name}={quoted(str(value))}" for name, value in given.items()]
    return "?" + "&".join(pairs) if pairs else ""
