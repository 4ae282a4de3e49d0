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
from collections.abc import Iterator, Mapping
from typing import Any, Final

from procd.cli.client import SESSION, Client
from procd.cli.failure import Failure, Refused, Unreachable
from procd.cli.http import REPLY_S, Connection, quoted
from procd.cli.io import ENDING, PIECE_BYTES, STDERR, STDIN, Signals, in_foreground, write_all
from procd.cli.log_chunk import piece_of
from procd.cli.progress import Progress
from procd.cli.reconnect import RETRY_S, Outage
from procd.cli.websocket import BEAT_S, DEAD_S, WebSocket

EXIT_TIMEOUT: Final = 124  # as timeout(1)
WAIT_S: Final = 60
# A command that goes on after an interrupt is ended after this.
OBEY_S: Final = 2.0
# How often a job in the background looks whether the terminal is its own: nobody tells it.
FOREGROUND_S: Final = 0.5
# How long nothing of the rest of the output may come once the command has ended; a connection that
# is lost silently is found out before.
REST_S: Final = DEAD_S + 2 * BEAT_S
# A request without an answer for so long is asked again.
SILENT_S: Final = WAIT_S + REPLY_S
REST_LOST: Final = "the rest of the output is lost"
# How long the server may take to end what is left, and how long who can't wait waits for it.
DELETE_S: Final = 30.0
HASTE_S: Final = 0.5
GONE: Final = (404, 410)
# A command that takes no input any more.
FULL_STOP: Final = (400, *GONE)


class Execution:
    """A command that runs.

    Whatever is to be asked of the server is asked until there is an answer, through lost
    connections: to begin with the output at an offset, to wait and to delete can be done twice, and
    a piece of input has a key by which the server knows it again.

    Args:
        reads_stdin: whether standard input is passed on.
        timeout_s: time after which it is ended; None for no limit.
    """

    def __init__(
        self,
        client: Client,
        script: str,
        *,
        cwd: str,
        envs: Mapping[str, str],
        timeout_s: float | None,
        reads_stdin: bool,
    ) -> None:
        self._client = client
        self._script = script
        self._cwd = cwd
        self._envs = dict(envs)
        self._timeout_s = timeout_s
        self._id = f"exec-{os.urandom(6).hex()}"
        self._session = f"{SESSION}/{self._id}"
        self._command = ""
        self._logs: WebSocket | None = None
        self._offset = 0
        self._lost_bytes = 0  # before that
        self._complete = False
        # Of the output: known once the command has ended, and forgotten once all has come.
        self._size: int | None = None
        # What was asked and isn't answered, by the names of `_wanted`.
        self._requests: dict[str, Connection] = {}
        self._reads = reads_stdin
        self._input: dict[str, Any] | None = None if reads_stdin else _keyed({"eof": True})
        self._interrupt = False
        self._ends = False
        self._deleted = False
        self._exit: int | None = None
        self._own_exit: int | None = None
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self._search = Progress(f"looking for {client.target.url}")
        self._outage = Outage(self._search)

    def run(self) -> int:
        """Run it; the exit code.

        Raises:
            Failure: it can't be run, or how it ended can't be learned.
        """
        within_s = DELETE_S
        with Signals(ENDING, ending=ENDING, raising=True) as signals:
            try:
                try:
                    with Progress("starting the command"):
                        self._start()
                    signals.raising = False
                    return self._loop(signals)
                except Signals.Raised as exc:
                    if self._command:  # the second one
                        within_s = HASTE_S
                    self._own_exit = 128 + exc.number
                    return self._own_exit
                finally:
                    signals.raising = True
                    self._leave(within_s)
            except Signals.Raised as exc:  # no time for that either
                self._tell("interrupted")
                return 128 + exc.number

    def _start(self) -> None:
        session = {"sessionId": self._id, "cwd": self._cwd, "envs": self._envs}
        self._client.call("POST", SESSION, session)
        self._client.resumes = True
        reply = self._client.call(
            "POST",
            f"{self._session}/exec",
            {"command": self._script, "runAsync": True, "suppressInputEcho": True},
            shape={"cmdId": str},
        )
        self._command = f"{self._session}/command/{quoted(reply['cmdId'])}"
        if self._timeout_s is not None:
            self._kill_at = time.monotonic() + self._timeout_s

    def _loop(self, signals: Signals) -> int:
        while not (self._deleted and (self._complete or self._logs is None)):
            self._connect()
            poll = select.poll()
            poll.register(signals, select.POLLIN)
            if self._logs is not None:
                poll.register(self._logs, self._logs.events)
            for connection in self._requests.values():
                poll.register(connection, select.POLLIN)
            if self._hungry and in_foreground():
                poll.register(STDIN, select.POLLIN)
            ready = {number for number, _ in poll.poll(self._patience_s() * 1000)}
            for number in signals.take():
                self._interrupted(number)
                signals.raising = True  # the next one can't wait
            self._take_output(ready)
            for name, connection in list(self._requests.items()):
                if connection.fileno() in ready:
                    del self._requests[name]
                    self._take_reply(name, connection)
            self._take_input(ready)
            if self._size is not None and (self._complete or self._offset >= self._size):
                self._end()  # with the session goes what it has printed
                if self._own_exit is None:  # a server that tells no gaps may have left some out
                    self._lost_bytes += max(0, self._size - self._offset)
                self._size = None
            self._look_at_the_time(ready)
        if self._lost_bytes:
            ended = "" if self._exit is None else f"; the command's exit code is {self._exit}"
            message = f"{self._lost_bytes} bytes of the output are lost{ended}"
            raise Failure(message, code=self._own_exit)
        if self._own_exit is not None:
            return self._own_exit
        if self._exit is None:
            raise Failure("the command's session is gone, and its exit code with it")
        if self._size is not None:
            raise Failure(REST_LOST)
        return self._exit

    @property
    def _hungry(self) -> bool:
        """Whether the next piece of standard input is to be read."""
        return self._reads and self._input is None

    def _patience_s(self) -> float:
        if self._logs is not None and self._logs.pending:
            return 0.0
        patience = RETRY_S if self._outage.lasts else BEAT_S
        if self._hungry and not in_foreground():
            patience = min(patience, FOREGROUND_S)
        times = [
            at - time.monotonic() for at in (self._kill_at, self._give_up_at) if at is not None
        ]
        return max(0.0, min([patience, *times]))

    def _wanted(self) -> Iterator[tuple[str, str, str, Mapping[str, Any] | None]]:
        """What is to be asked of the server now: a name for it, method, path and body."""
        if self._ends:
            yield "delete", "DELETE", self._session, None
            return
        if self._exit is None:
            yield "wait", "GET", f"{self._command}?wait={WAIT_S}", None
        if self._interrupt:
            yield "interrupt", "POST", f"{self._command}/signal", {"signal": "SIGINT"}
        if self._input is not None:
            yield "input", "POST", f"{self._command}/input", self._input

    def _connect(self) -> None:
        """Open what isn't open, or was lost."""
        if self._deleted or time.monotonic() < self._outage.retry_at:
            return
        try:
            if self._logs is None and not self._complete:
                path = f"{self._command}/logs?follow=true&offset={self._offset}"
                self._logs = self._client.websocket(path)
                self._outage.connect()
            for name, method, path, body in self._wanted():
                if name not in self._requests:
                    self._requests[name] = self._client.start(method, path, body)
        except Refused as exc:
            self._gone(exc)
        except Unreachable as exc:
            self._lost(exc)

    def _lost(self, exc: Unreachable) -> None:
        """The server can't be reached: not yet a failure."""
        if self._outage.begin() or self._own_exit is not None:
            raise self._given_up(exc.message)
        if self._logs is None:  # else its output may come
            self._search.begin()

    def _given_up(self, message: str) -> Failure:
        self._client.resumes = False
        hint = f"`procd kill {self._id}` ends what may be left of the command"
        # All that it said has come before what is left of it is to end.
        known = self._exit if self._ends and not self._lost_bytes else None
        return Failure(message, hint, self._own_exit or known)

    def _gone(self, exc: Refused) -> None:
        """Session or command isn't there, or no longer."""
        if exc.status not in GONE:
            raise self._given_up(exc.message) from exc
        self._deleted = True

    def _take_output(self, ready: set[int]) -> None:
        logs = self._logs
        if logs is None:
            return
        try:
            if logs.fileno() in ready or logs.pending:
                logs.flush()
                for message in logs.receive():
                    self._outage.end()
                    piece = piece_of(message, self._offset)
                    self._lost_bytes += piece.begin - self._offset
                    self._offset = piece.end
                    write_all(piece.stream, piece.data)
                    if self._size is not None and self._own_exit is None:
                        self._kill_at = time.monotonic() + REST_S
            logs.beat()
            self._outage.hold()
        except BrokenPipeError:
            # Nobody reads what it prints: it ends as a command of a pipe does.
            self._close_logs()
            self._complete = True
            self._end(128 + signal.SIGPIPE)
        except Unreachable as exc:
            self._close_logs()
            self._drop_requests(time.monotonic())  # which may be lost, too, and never say so
            if not self._deleted:
                self._lost(exc)
        else:
            if logs.closed is not None:
                self._close_logs()
                self._complete = logs.closed.code == 1000
                if not self._complete:
                    self._lost(Unreachable(f"the server closed the output: {logs.closed.reason}"))

    def _close_logs(self) -> None:
        if self._logs is not None:
            self._logs.close()
            self._logs = None

    def _drop_requests(self, sent_before: float) -> None:
        """Expect no answer any more to what was sent before then: if still wanted, ask again."""
        for name, connection in list(self._requests.items()):
            if connection.sent_at < sent_before:
                del self._requests[name]
                connection.close()

    def _take_reply(self, name: str, connection: Connection) -> None:
        try:
            shape = dict if name == "wait" else object
            reply = self._client.finish(connection, DELETE_S, shape)
        except Unreachable as exc:
            self._lost(exc)  # what is still wanted is asked again
            return
        except Refused as exc:
            self._refused(name, exc)
            return
        self._outage.end()
        match name:
            case "wait":
                self._exit = reply.get("exitCode")
                if self._exit is not None:
                    self._reads, self._input = False, None
                    self._size = reply.get("outputBytes", 0)
                    self._kill_at = time.monotonic() + REST_S
            case "delete":
                self._deleted = True
            case "interrupt":
                self._interrupt = False
            case _:
                self._input = None

    def _refused(self, name: str, exc: Refused) -> None:
        match name:
            case "interrupt":
                self._interrupt = False  # it has ended by itself, or is ended soon
            case "input":
                if exc.status not in FULL_STOP:
                    raise self._given_up(exc.message) from exc
                self._reads, self._input = False, None
            case _:
                self._gone(exc)

    def _take_input(self, ready: set[int]) -> None:
        """Read the next piece of standard input, once the one before has been taken."""
        if not self._hungry or STDIN not in ready or not in_foreground():
            return
        try:
            data = os.read(STDIN, PIECE_BYTES)
        except OSError:
            data = b""  # no input is an empty input
        self._reads = bool(data)
        coded = binascii.b2a_base64(data, newline=False).decode()
        self._input = _keyed({"dataBase64": coded} if data else {"eof": True})

    def _interrupted(self, number: int) -> None:
        """Pass an interrupt on, and end what doesn't obey; any other signal ends everything."""
        if number != signal.SIGINT:
            self._end(128 + number)
            return
        self._own_exit = self._own_exit or 128 + number
        self._reads, self._input = False, None
        self._interrupt = True
        self._kill_at = time.monotonic() + OBEY_S

    def _look_at_the_time(self, ready: set[int]) -> None:
        now = time.monotonic()
        self._drop_requests(now - SILENT_S)
        if self._kill_at is not None and now >= self._kill_at:
            if self._size is not None and self._own_exit is None:
                raise Failure(REST_LOST)
            self._end(EXIT_TIMEOUT)
        # Who reads slowly what it printed may have kept an answer waiting.
        overdue = self._give_up_at is not None and now >= self._give_up_at and not ready
        if overdue and not self._deleted:
            raise self._given_up(f"{self._client.target.url} doesn't answer")

    def _end(self, own_exit: int | None = None) -> None:
        """End all that is left; the first reason counts."""
        self._own_exit = own_exit if self._own_exit is None else self._own_exit
        self._ends = True
        self._reads, self._input = False, None
        self._kill_at = None
        self._give_up_at = time.monotonic() + DELETE_S

    def _leave(self, within_s: float) -> None:
        """Leave nothing behind, on either side, however it went."""
        self._search.end()
        deleting = self._requests.pop("delete", None)
        for connection in self._requests.values():
            connection.close()
        self._close_logs()
        if self._deleted:
            return
        try:
            with Progress("ending the command"):
                self._client.insist("DELETE", self._session, deleting, within_s)
            self._deleted = True
        except Failure as exc:
            if not (isinstance(exc, Refused) and exc.status in GONE):
                self._tell(exc.message)

    def _tell(self, message: str) -> None:
        """Say what may be left, if there was anything."""
        if self._client.resumes and not self._deleted:
            write_all(STDERR, f"procd: {self._given_up(message)}\n".encode())


def _keyed(body: dict[str, Any]) -> dict[str, Any]:
    """Input that may be sent again."""
    return body | {"idempotencyKey": os.urandom(8).hex()}
