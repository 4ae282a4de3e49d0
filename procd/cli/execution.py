"""One command, run on the server as if it ran here.

A shell session of its own, so that both streams arrive as they are written, and apart; a lost
connection is resumed at the offset that was reached; and to delete the session ends all that the
command has started.
"""

import binascii
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from procd.cli.client import Client
from procd.cli.failure import EXIT_OWN, Failure, Refused, Unreachable
from procd.cli.http import Connection, quoted
from procd.cli.io import PIECE_BYTES, STDERR, STDIN, STDOUT, Signals, in_foreground, write_all
from procd.cli.websocket import WebSocket

EXIT_TIMEOUT: Final = 124  # as timeout(1)
LABELS: Final = {1: STDOUT, 2: STDERR}
LABEL_BYTES: Final = 3
WAIT_S: Final = 60
# A command that goes on after an interrupt is ended after this.
OBEY_S: Final = 2.0
# How long a lost server is looked for, and the pause between two looks.
LOST_S: Final = 30.0
RETRY_S: Final = 0.25
BEAT_S: Final = 5.0
DELETE_S: Final = 30.0


def script_of(arguments: Sequence[str]) -> str:
    """A line for any shell that runs exactly these arguments.

    Every word is quoted: none is a pattern, an assignment, an alias or a keyword.
    """
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in arguments)


class Execution:
    """A command that runs.

    Args:
        reads_stdin: whether standard input is passed on.
        timeout_s: time after which it is ended; None for no limit.
    """

    def __init__(
        self,
        client: Client,
        script: str,
        *,
        cwd: str = "",
        envs: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        reads_stdin: bool = True,
    ) -> None:
        self._client = client
        self._script = script
        self._cwd = cwd
        self._envs = dict(envs or {})
        self._timeout_s = timeout_s
        self._session = f"/process/session/exec-{os.urandom(6).hex()}"
        self._command = ""
        self._logs: WebSocket | None = None
        self._offset = 0
        self._complete = False
        self._waiting: Connection | None = None
        self._deleting: Connection | None = None
        self._typing: Connection | None = None
        self._reads = reads_stdin
        self._exit: int | None = None
        self._own_exit: int | None = None
        self._interrupts = 0
        self._kill_at: float | None = None
        self._lost_at: float | None = None
        self._retry_at = 0.0
        self._deleted = False

    def run(self) -> int:
        """Run it; the exit code.

        Raises:
            Failure: it can't be run, or how it ended can't be learned.
        """
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with Signals(numbers, raising=numbers) as signals:
            try:
                self._start()
                signals.raising = ()
                return self._loop(signals)
            except Signals.Raised as exc:
                return 128 + exc.number
            finally:
                signals.raising = ()
                self._leave()

    def _start(self) -> None:
        body = {"sessionId": self._session.rpartition("/")[2]}
        try:
            self._client.call(
                "POST", "/process/session", body | {"cwd": self._cwd, "envs": self._envs}
            )
            reply = self._client.call(
                "POST",
                f"{self._session}/exec",
                {"command": self._script, "runAsync": True, "suppressInputEcho": True},
            )
        except Failure as exc:
            exc.code = EXIT_OWN
            raise
        self._command = f"{self._session}/command/{quoted(reply['cmdId'])}"
        if self._timeout_s is not None:
            self._kill_at = time.monotonic() + self._timeout_s
        if not self._reads:
            try:
                self._client.call("POST", f"{self._command}/input", {"eof": True})
            except Refused:
                return  # it has ended already

    def _loop(self, signals: Signals) -> int:
        while not self._over:
            self._connect()
            poll = select.poll()
            poll.register(signals, select.POLLIN)
            if self._logs is not None:
                out = select.POLLOUT if self._logs.wants_write else 0
                poll.register(self._logs, select.POLLIN | out)
            for connection in (self._waiting, self._deleting, self._typing):
                if connection is not None:
                    poll.register(connection, select.POLLIN)
            if self._reads and self._typing is None:
                poll.register(STDIN, select.POLLIN)
            ready = {number for number, _ in poll.poll(self._patience_s() * 1000)}
            for number in signals.take():
                self._interrupted(number)
            self._take_output(ready)
            self._take_exit(ready)
            self._type(ready)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill_at = None
                if self._own_exit is None:
                    self._own_exit = EXIT_TIMEOUT
                self._delete()
        if self._own_exit is not None:
            return self._own_exit
        if self._exit is None:
            raise Failure("the command's session is gone, and its exit code with it", code=EXIT_OWN)
        return self._exit

    @property
    def _over(self) -> bool:
        return self._deleted and (self._complete or self._logs is None)

    def _patience_s(self) -> float:
        patience = BEAT_S if self._lost_at is None else RETRY_S
        if self._kill_at is not None:
            patience = min(patience, max(0.0, self._kill_at - time.monotonic()))
        return 0.0 if self._logs is not None and self._logs.pending else patience

    def _connect(self) -> None:
        """Open what isn't open, or was lost."""
        now = time.monotonic()
        if self._deleted or now < self._retry_at:
            return
        try:
            if self._logs is None and not self._complete:
                path = f"{self._command}/logs?follow=true&offset={self._offset}"
                self._logs = self._client.websocket(path)
            if self._waiting is None and self._exit is None and self._deleting is None:
                self._waiting = self._client.start("GET", f"{self._command}?wait={WAIT_S}")
            elif self._exit is not None and self._deleting is None:
                self._deleting = self._client.start("DELETE", self._session)
            self._lost_at = None
        except Refused as exc:
            self._gone(exc)
        except Unreachable as exc:
            self._lost(exc)

    def _lost(self, exc: Unreachable) -> None:
        """The server can't be reached: not yet a failure."""
        now = time.monotonic()
        self._lost_at = self._lost_at or now
        self._retry_at = now + RETRY_S
        if now - self._lost_at > LOST_S or self._own_exit is not None:
            exc.code = EXIT_OWN if self._own_exit is None else self._own_exit
            raise exc

    def _gone(self, exc: Refused) -> None:
        """Session or command isn't there, or no longer."""
        if exc.status not in (404, 410):
            exc.code = EXIT_OWN
            raise exc
        self._deleted = True

    def _take_output(self, ready: set[int]) -> None:
        logs = self._logs
        if logs is None:
            return
        try:
            if logs.fileno() in ready or logs.pending:
                logs.flush()
                for message in logs.receive():
                    payload = message.payload
                    self._offset += len(payload) - LABEL_BYTES
                    # A message has one label, at its begin, and whatever bytes follow it.
                    write_all(LABELS[payload[0]], payload[LABEL_BYTES:])
            logs.beat()
        except BrokenPipeError:
            # Nobody reads what it prints: it ends as a command of a pipe does.
            self._own_exit = 128 + signal.SIGPIPE
            self._complete = True
            self._delete()
        except Unreachable as exc:
            logs.close()
            self._logs = None
            if not self._deleted:
                self._lost(exc)
        if logs.closed is not None:
            logs.close()
            self._logs = None
            self._complete = logs.closed.code == 1000
            if not self._complete:
                self._lost(Unreachable(f"the server closed the output: {logs.closed.reason}"))

    def _take_exit(self, ready: set[int]) -> None:
        if self._waiting is not None and self._waiting.fileno() in ready:
            waiting, self._waiting = self._waiting, None
            try:
                self._exit = self._client.finish(waiting).get("exitCode")
            except Refused as exc:
                self._gone(exc)
            except Unreachable as exc:
                self._lost(exc)
            if self._exit is not None:
                self._reads = False
        if self._deleting is not None and self._deleting.fileno() in ready:
            deleting, self._deleting = self._deleting, None
            try:
                self._client.finish(deleting, DELETE_S)
                self._deleted = True
            except Refused as exc:
                self._gone(exc)
            except Unreachable as exc:
                self._lost(exc)

    def _type(self, ready: set[int]) -> None:
        """Pass on standard input by pieces; a reply comes when there is room for the next."""
        if self._typing is not None and self._typing.fileno() in ready:
            typing, self._typing = self._typing, None
            try:
                self._client.finish(typing)
            except Failure:
                self._reads = False  # the command has ended, or has closed its input
        elif self._reads and self._typing is None and STDIN in ready and in_foreground():
            try:
                data = os.read(STDIN, PIECE_BYTES)
            except OSError:
                data = b""  # no input is an empty input
            body: dict[str, Any] = {"eof": True}
            if data:
                body = {"dataBase64": binascii.b2a_base64(data, newline=False).decode()}
            self._reads = bool(data)
            try:
                self._typing = self._client.start("POST", f"{self._command}/input", body)
            except Unreachable as exc:
                self._reads = False
                self._lost(exc)

    def _interrupted(self, number: int) -> None:
        """Pass a signal on; a second one, or a command that doesn't obey, ends everything."""
        self._interrupts += 1
        self._reads = False
        self._own_exit = self._own_exit or 128 + number
        if self._interrupts > 1 or number != signal.SIGINT:
            self._delete()
            return
        now = time.monotonic()
        self._kill_at = now + OBEY_S
        try:
            self._client.call("POST", f"{self._command}/signal", {"signal": "SIGINT"}, within_s=5)
        except Refused:
            return  # it has ended by itself
        except Unreachable as exc:
            self._lost(exc)

    def _delete(self) -> None:
        if self._deleting is None and not self._deleted:
            try:
                self._deleting = self._client.start("DELETE", self._session)
            except Unreachable as exc:
                self._lost(exc)

    def _leave(self) -> None:
        """Leave nothing behind, on either side, however it went."""
        for connection in (self._waiting, self._typing):
            if connection is not None:
                connection.close()
        if self._logs is not None:
            self._logs.close()
        try:
            if self._deleting is not None:
                self._client.finish(self._deleting, DELETE_S)
            elif not self._deleted:
                self._client.call("DELETE", self._session, within_s=DELETE_S)
        except Failure:
            return  # there is none, or nobody to ask: the cause has been told
