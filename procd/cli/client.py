"""Calls of the API: JSON in and out, refusals as failures."""

import json
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from procd.cli.failure import Refused, Unreachable
from procd.cli.http import CONNECT_S, REPLY_S, Connection, Reply
from procd.cli.reconnect import RETRY_S
from procd.cli.target import Target
from procd.cli.websocket import WebSocket, connect

# Where each kind of thing is that runs.
PTY: Final = "/process/pty"
SESSION: Final = "/process/session"
CONTEXT: Final = "/process/interpreter/context"

# Within this, a server certainly hasn't closed an idle connection.
IDLE_S: Final = 0.5

# What a gateway answers whose server is away; procd itself does so for /readyz alone.
# Source: RFC 9110, section 15.6.
AWAY: Final = (502, 503, 504)
# What a server answers that has too much to do.
BUSY: Final = 429

# What a reply's JSON must be to be procd's: of a type, a list of such, or an object with them.
Shape = type | Sequence["Shape"] | Mapping[str, "Shape"]

HINTS: Final = {
    401: "give one with PROCD_TOKEN, --token-file or the client's file (see `procd --help`)",
    403: "ask for a token with a wider scope, or see server.allowed_hosts",
}


class Client:
    """One server's API.

    Attributes:
        resumes: whether what is asked takes up what was lost with a connection. A server that has
            too much to do counts as away then: it once took this on, and will have time again.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.resumes = False
        self._connection: Connection | None = None
        self._used = 0.0

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        shape: Shape = object,
        within_s: float | None = REPLY_S,
    ) -> Any:
        """The reply's JSON, which is of this shape; None if it has none.

        Raises:
            Refused: the server says no.
            Unreachable: it says nothing, or what procd doesn't; a gateway says that it is away; or
                see `resumes`.
        """
        connection = self.start(method, path, body)
        return self.finish(connection, within_s, shape)

    def start(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        connect_s: float = CONNECT_S,
    ) -> Connection:
        """Send a request, for who waits for more than its reply.

        Raises:
            Unreachable: as `call`.
        """
        connection, self._connection = self._connection, None
        if connection is not None and time.monotonic() - self._used > IDLE_S:
            connection.close()
            connection = None
        if connection is None:
            connection = Connection(self.target, connect_s)
        try:
            connection.send(method, path, None if body is None else json.dumps(body).encode())
        except BaseException:
            connection.close()
            raise
        return connection

    def finish(
        self, connection: Connection, within_s: float | None = REPLY_S, shape: Shape = object
    ) -> Any:
        """The JSON of the reply to what was sent, as `call` gives it.

        Raises:
            Refused, Unreachable: as `call`.
        """
        reusable = False
        try:
            reply = connection.receive(within_s)
            reusable = connection.reusable and self._connection is None
        finally:
            if reusable:
                self._connection, self._used = connection, time.monotonic()
            else:
                connection.close()
        return self._content(reply, shape)

    def insist(self, method: str, path: str, asked: Connection | None, within_s: float) -> None:
        """Ask for what can be done twice until there is an answer; see `resumes`.

        Args:
            asked: where it was asked already, if it was.
            within_s: how long an answer may take, and a server that `resumes` may be lost.

        Raises:
            Refused, Unreachable: as `call`.
        """
        until = time.monotonic() + within_s
        while True:
            try:
                if asked is None:
                    asked = self.start(method, path, connect_s=within_s)
                self.finish(asked, within_s)
                return
            except Unreachable:
                within_s = until - time.monotonic() - RETRY_S
                if not self.resumes or within_s <= 0:
                    raise
            asked = None
            select.select([], [], [], RETRY_S)

    def websocket(
        self, path: str, protocols: Sequence[str] = (), *, within_s: float = REPLY_S
    ) -> WebSocket:
        """Open a WebSocket.

        Raises:
            Refused, Unreachable: as `call`.
        """
        answer = connect(self.target, path, protocols, within_s)
        if isinstance(answer, Reply):
            self._content(answer)
            raise Unreachable(f"{self.target.url} doesn't speak WebSocket")
        return answer

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _content(self, reply: Reply, shape: Shape = object) -> Any:
        try:
            content = json.loads(reply.body) if reply.body else None
            foreign = not _fits(content, shape)
        except (ValueError, RecursionError):
            content, foreign = None, True
        if reply.status < 300:
            if foreign:
                raise Unreachable(
                    f"{self.target.url} doesn't speak procd's API",
                    "say where procd is with --url or PROCD_URL",
                )
            return content
        if not isinstance(content, dict):
            content = {}
        message = str(content.get("message") or f"the server answered {reply.status}")
        if reply.status in AWAY or (reply.status == BUSY and self.resumes):
            raise Unreachable(message)
        raise Refused(reply.status, message, HINTS.get(reply.status, ""), content)


def _fits(content: Any, shape: Shape) -> bool:
    if isinstance(shape, type):
        return isinstance(content, shape)
    if isinstance(shape, Mapping):
        return isinstance(content, dict) and all(
            name in content and _fits(content[name], part) for name, part in shape.items()
        )
    return isinstance(content, list) and all(_fits(each, shape[0]) for each in content)
