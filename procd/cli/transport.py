"""Requests to the server's API, and its WebSockets.

http.client isn't used: its import takes a third of the time of `procd exec -- true`.

Source: RFC 9112; RFC 6455, section 4.1.
"""

import binascii
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from procd.cli.failure import Failure, Refused, Unreachable
from procd.cli.websocket import WebSocket

DEFAULT_URL: Final = "http://127.0.0.1:2280"
PORTS: Final = {"http": 80, "https": 443}
# Characters that need no quoting in a path: RFC 3986, section 3.3.
PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~"
# The resources of the API.
PTY: Final = "/process/pty"
SESSION: Final = "/process/session"
CONTEXT: Final = "/process/interpreter/context"

CONNECT_S: Final = 10.0
REPLY_S: Final = 30.0
# For so long an idle connection is reused; no server closes one earlier.
REUSE_S: Final = 0.5
MAX_LINE_BYTES: Final = 64 << 10
WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# From a gateway whose server is away (RFC 9110, section 15.6), or a server with too much to do.
AWAY: Final = (429, 502, 503, 504)
HINTS: Final = {
    401: "give one with PROCD_TOKEN, --token-file or the client's file (see `procd --help`)",
    403: "ask for a token with a wider scope, or see server.allowed_hosts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, at its `url` as the user gave it.

    `socket` is the path of a Unix socket, empty for TCP; `prefix` is the path in front of the
    API's, behind a proxy, without a slash at its end.
    """

    url: str
    host: str = ""
    port: int = 0
    tls: bool = False
    socket: str = ""
    prefix: str = ""
    token: str = field(default="", repr=False)

    @property
    def authority(self) -> str:
        if self.socket:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = PORTS["https" if self.tls else "http"]
        return host if self.port == default else f"{host}:{self.port}"


def parse(url: str, token: str = "") -> Target:
    """Parse a URL: http://…, https://… or unix:/path."""
    no_url = Failure(f"{url}: not a URL", f"write it like {DEFAULT_URL}, or unix:/path")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:
        raise no_url from None
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise Failure(f"{url}: a socket is named as unix:/path, from the root")
        return Target(url=url, socket=unquote(parts.path), token=token)
    if parts.scheme not in PORTS or not host:
        raise no_url
    if parts.username is not None or parts.query or parts.fragment:
        raise Failure("the URL may hold no password, query or fragment", "see --token-file")
    return Target(
        url=url,
        host=host,
        port=PORTS[parts.scheme] if port is None else port,
        tls=parts.scheme == "https",
        prefix=quote(parts.path.rstrip("/"), safe=PATH_CHARACTERS, errors="surrogateescape"),
        token=token,
    )


class Reply(NamedTuple):
    """A reply; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One HTTP/1.1 connection, for one request at a time. Every method raises Unreachable.

    `buffering` is as for `open`; for a WebSocket's handshake 1, to read nothing that follows it.
    `reusable` says whether another request may follow; `sent_at` is when the last one was sent.
    """

    def __init__(self, target: Target, *, buffering: int = -1) -> None:
        self._target = target
        self.reusable = False
        self.sent_at = 0.0
        self._socket = _connect(target)
        self._reader = self._socket.makefile("rb", buffering=buffering)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        target = self._target
        fields = {"Host": target.authority, "Accept": "application/json", **(headers or {})}
        if target.token:
            fields["Authorization"] = f"Bearer {target.token}"
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"{method} {target.prefix}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
        self.sent_at = time.monotonic()
        try:
            self._socket.settimeout(REPLY_S)
            self._socket.sendall(head + (body or b""))
        except OSError as exc:
            raise self._lost(exc) from exc

    def receive(self, within_s: float | None = REPLY_S) -> Reply:
        """Read the reply; `within_s` is the longest silence, None for no limit."""
        try:
            self._socket.settimeout(within_s)
            version, status, headers = self._read_head()
            while status < 200 and status != 101:  # another reply follows
                version, status, headers = self._read_head()
            options = headers.get("connection", "").lower()
            self.reusable = version == "HTTP/1.1" and "close" not in options
            if status in (101, 204, 304):
                body = b""
            elif headers.get("transfer-encoding", "").lower() == "chunked":
                body = self._read_chunks()
            elif "content-length" in headers:
                body = self._read(int(headers["content-length"]))
            else:
                body, self.reusable = self._reader.read(), False
        except OSError as exc:
            raise self._lost(exc) from exc
        except (EOFError, ValueError) as exc:
            self.close()
            ended = isinstance(exc, EOFError)
            how = "closed the connection without an answer" if ended else "doesn't speak HTTP"
            raise Unreachable(f"{self._target.url} {how}") from exc
        return Reply(status, headers, body)

    def detach(self) -> socket.socket:
        """Return the socket, which is the caller's to close now."""
        self._reader.close()
        return self._socket

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def _lost(self, exc: OSError) -> Unreachable:
        self.close()
        if isinstance(exc, TimeoutError):
            return Unreachable(f"{self._target.url} doesn't answer")
        return Unreachable(f"the connection to {self._target.url} broke: {exc.strerror or exc}")

    def _read_head(self) -> tuple[str, int, Mapping[str, str]]:
        version, status, *_ = [*self._read_line().split(None, 2), "", ""]
        if not version.startswith("HTTP/1."):
            raise ValueError(version)
        headers = {}
        while line := self._read_line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return version, int(status), headers

    def _read_line(self) -> str:
        line: bytes = self._reader.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise EOFError
        return line.decode("latin-1").strip()

    def _read(self, size: int) -> bytes:
        data: bytes = self._reader.read(size)
        if len(data) != size:
            raise EOFError
        return data

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self._read_line().partition(";")[0], 16):
            body += self._read(size)
            self._read_line()
        while self._read_line():  # trailers
            continue
        return body


class Client:
    """The API of one server.

    Every method raises Unreachable if the server doesn't answer, a gateway says that it is away, or
    it isn't procd; and if it reads a reply, Refused for one with an error.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._idle: Connection | None = None
        self._idle_since = 0.0

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        within_s: float | None = REPLY_S,
        returns: type = object,
    ) -> Any:
        """Send a request; returns the JSON of its reply, of type `returns`, or None if it is empty.

        `within_s` is the longest silence, None for no limit.
        """
        return self.finish(self.start(method, path, body), within_s, returns)

    def start(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Connection:
        """Send a request, whose reply `finish` is to read once the connection is readable."""
        connection, self._idle = self._idle, None
        if connection is not None and time.monotonic() - self._idle_since > REUSE_S:
            connection.close()
            connection = None
        connection = connection or Connection(self.target)
        connection.send(method, path, None if body is None else json.dumps(body).encode())
        return connection

    def finish(
        self, connection: Connection, within_s: float | None = REPLY_S, returns: type = object
    ) -> Any:
        """Read the reply of a request that was started, and return its JSON as `call` does."""
        reply = connection.receive(within_s)
        if connection.reusable and self._idle is None:
            self._idle, self._idle_since = connection, time.monotonic()
        else:
            connection.close()
        return self._content(reply, returns)

    def websocket(
        self,
        path: str,
        protocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        *,
        within_s: float = REPLY_S,
    ) -> WebSocket:
        from hashlib import sha1  # loads OpenSSL

        key = binascii.b2a_base64(os.urandom(16), newline=False)
        fields = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key.decode(),
            "Sec-WebSocket-Version": "13",
            **(headers or {}),
        }
        if protocols:
            fields["Sec-WebSocket-Protocol"] = ", ".join(protocols)
        connection = Connection(self.target, buffering=1)
        connection.send("GET", path, headers=fields)
        reply = connection.receive(within_s)
        connected = connection.detach()
        accepted = binascii.b2a_base64(sha1(key + WEBSOCKET_GUID).digest(), newline=False)  # noqa: S324 - the protocol's
        if reply.status == 101 and reply.headers.get("sec-websocket-accept") == accepted.decode():
            return WebSocket(self.target.url, connected)
        connected.close()
        if reply.status != 101:
            self._content(reply)
        raise Unreachable(f"{self.target.url} doesn't speak WebSocket")

    def _content(self, reply: Reply, returns: type = object) -> Any:
        try:
            content = json.loads(reply.body) if reply.body else None
            is_valid = isinstance(content, returns)
        except ValueError:
            content, is_valid = None, False
        if reply.status < 300:
            if is_valid:
                return content
            raise Unreachable(
                f"{self.target.url} doesn't speak procd's API",
                "say where procd is with --url or PROCD_URL",
            )
        details = content if isinstance(content, dict) else {}
        message = str(details.get("message") or f"the server answered {reply.status}")
        if reply.status in AWAY:
            raise Unreachable(message)
        raise Refused(reply.status, message, HINTS.get(reply.status, ""), details)


def _connect(target: Target) -> socket.socket:
    try:
        if target.socket:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connected.settimeout(CONNECT_S)
            connected.connect(target.socket)
            return connected
        # As bytes: for a str, Python would import its module for IDNA.
        address = (target.host.encode(), target.port)
        connected = socket.create_connection(address, CONNECT_S)  # type: ignore[arg-type]  # getaddrinfo takes bytes
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as exc:
        problem = "no answer" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
        raise Unreachable(
            f"can't reach procd at {target.url} ({problem})",
            "start it with `procd serve`, or say where it is with --url or PROCD_URL",
        ) from exc
    if not target.tls:
        return connected
    import ssl  # large, and seldom needed

    try:
        return ssl.create_default_context().wrap_socket(connected, server_hostname=target.host)
    except (OSError, ValueError) as exc:  # ValueError: not the name of a host
        connected.close()
        raise Unreachable(f"no safe connection to {target.url}: {exc}") from exc


def quoted(text: str) -> str:
    """Quote text for a path or a query; keeps bytes that are not UTF-8 (PEP 383)."""
    return quote(text, safe="", errors="surrogateescape")


def query(**parameters: Any) -> str:
    """Return the query of a URL with the parameters that aren't None; "" if all are None."""
    pairs = [
        f"{name}={quoted(str(value))}" for name, value in parameters.items() if value is not None
    ]
    return "?" + "&".join(pairs) if pairs else ""
