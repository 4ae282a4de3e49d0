"""A terminal of the server, in this one.

Source: Process API contract, section 10; the README's section "Routes" for `?offset`.
"""

import json
import os
import select
import signal
import time
from collections.abc import Mapping
from typing import Any, Final

from procd.cli.client import PTY, Client
from procd.cli.detach import HOLD_S, Detacher
from procd.cli.failure import Failure, Refused, Unreachable
from procd.cli.http import REPLY_S, query, quoted
from procd.cli.io import ENDING, PIECE_BYTES, STDIN, Signals
from procd.cli.progress import Progress
from procd.cli.terminal import Terminal
from procd.cli.websocket import BEAT_S, TEXT, Closed, WebSocket

# By it the server tells who is attached, and each change of size, and waits until its output is
# acknowledged.
PROTOCOL: Final = "procd.pty.v1"
# Less than the smallest window that a server can have.
ACK_BYTES: Final = 16 << 10
EXIT_TOKEN: Final = "X-Daytona-Pty-Exit-Control"  # noqa: S105 - no secret
ENVS_TOKEN: Final = "X-Daytona-Pty-Envs~"  # noqa: S105 - names what follows
FORBIDDEN: Final = 403
CTRL_C: Final = b"\x03"
QUICK_S: Final = 5.0
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 2.0
# Close codes after which the terminal may still be there: RFC 6455, section 7.4.1, and the
# registry of the IANA (1012: service restart, 1013: try again later).
PASSING: Final = (1001, 1005, 1006, 1012, 1013)
SLOW: Final = "slow consumer"


class Attachment:
    """One attachment to one terminal.

    Args:
        views: only look on: nothing is typed, resized or created.
        creates: create the terminal if it isn't there, with `cwd` and `envs`.
        retry_s: how long a lost server is looked for.
    """

    def __init__(
        self,
        client: Client,
        pty_id: str,
        terminal: Terminal,
        *,
        detach_keys: bytes,
        views: bool,
        creates: bool,
        cwd: str,
        envs: Mapping[str, str],
        retry_s: float,
    ) -> None:
        self._client = client
        self._id = pty_id
        self._path = f"{PTY}/{quoted(pty_id)}"
        self._terminal = terminal
        self._detacher = Detacher(detach_keys)
        self._let_go_at: float | None = None  # what that holds back
        self._views = views
        self._creates = creates
        self._cwd = cwd
        self._envs = dict(envs)
        self._retry_s = retry_s
        self._websocket: WebSocket | None = None
        # Where the output goes on; None while the replay isn't complete.
        self._offset: int | None = None
        self._anew = False  # whether it goes on with all that is kept, instead
        self._replay_bytes = 0
        self._live_offset = 0
        self._acknowledged: int | None = None  # None while the server waits for nothing
        self._lost_at: float | None = None
        self._retry_at = 0.0
        self._pause_s = FIRST_RETRY_S
        self._exit: int | None = None

    def run(self) -> int | None:
        """Attach until its end, or until it is left.

        Returns:
            The exit code of its shell; None if it was left.

        Raises:
            Failure: it isn't there, or not any more, or the server is gone for too long.
            Signals.Raised: this process is to end.
        """
        numbers = (*ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
        with Signals(numbers, ending=ENDING, raising=True) as signals:
            try:
                with Progress(f"attaching to {self._id}"):
                    self._websocket = self._open()
                with self._terminal:
                    try:
                        return self._loop(signals)
                    finally:
                        signals.ending = ()
            finally:
                if self._websocket is not None:
                    self._websocket.close()

    def _open(self) -> WebSocket:
        """Attach for the first time; create it if need be.

        Raises:
            Failure: neither is possible.
        """
        while True:
            try:
                self._client.call("GET", self._path)
                self._resize()
                return self._connect()
            except Refused as exc:
                if exc.status not in (404, 410):
                    raise
                if self._views or not self._creates:
                    raise Failure(
                        f"there is no terminal {self._id}", "`procd ps` lists them"
                    ) from exc
            try:
                return self._create()
            except Refused as exc:
                if exc.status != 409:  # somebody else has just created it
                    raise

    def _create(self) -> WebSocket:
        columns, rows = self._terminal.size or (None, None)
        where = query(id=self._id, cols=columns, rows=rows, cwd=self._cwd or None)
        protocols = [EXIT_TOKEN, PROTOCOL]
        if self._envs:
            import base64  # not needed to attach

            token = base64.urlsafe_b64encode(json.dumps(self._envs).encode()).rstrip(b"=")
            protocols.append(ENVS_TOKEN + token.decode())
        return self._client.websocket(f"{PTY}/create-connect{where}", protocols)

    def _connect(self) -> WebSocket:
        viewer = "true" if self._views else None
        offset = None if self._anew else self._offset
        where = query(offset=offset, viewer=viewer, modes="true")
        # Who waits meanwhile for the keys that leave shall not wait long.
        within_s = QUICK_S if self._client.resumes else REPLY_S
        path = f"{self._path}/connect{where}"
        return self._client.websocket(path, [EXIT_TOKEN, PROTOCOL], within_s=within_s)

    def _resize(self) -> None:
        size = self._terminal.size
        if self._views or size is None:
            return
        body = {"cols": size[0], "rows": size[1]}
        try:
            self._client.call("POST", f"{self._path}/resize", body, within_s=QUICK_S)
        except Refused as exc:
            if exc.status != FORBIDDEN:
                raise
            self._look_on()

    def _look_on(self) -> None:
        self._views = True
        self._terminal.tell("this token may only look on: Ctrl-C leaves")

    def _loop(self, signals: Signals) -> int | None:
        while True:
            websocket = self._websocket
            poll = select.poll()
            poll.register(signals, select.POLLIN)
            if websocket is not None:
                poll.register(websocket, websocket.events)
            if websocket is None or not websocket.full:
                poll.register(STDIN, select.POLLIN)
            ready = {number for number, _ in poll.poll(self._patience_s() * 1000)}
            for number in signals.take():
                self._signalled(number)
            if STDIN in ready:
                if self._typed():
                    return None
            elif self._let_go_at is not None and time.monotonic() >= self._let_go_at:
                self._let_go_at = None
                self._send(self._detacher.let_go())
            if self._websocket is None:
                self._retry()
            else:
                self._receive(self._websocket, ready)
            if self._exit is not None:
                return self._exit

    def _patience_s(self) -> float:
        now = time.monotonic()
        patience_s = BEAT_S if self._let_go_at is None else max(0.0, self._let_go_at - now)
        if self._websocket is None:
            return min(patience_s, max(0.0, self._retry_at - now))
        return 0.0 if self._websocket.pending else patience_s

    def _signalled(self, number: int) -> None:
        if number == signal.SIGTSTP:
            self._terminal.suspend()
            return
        if number == signal.SIGCONT:
            self._terminal.enter()  # the shell had it in between
            self._begin_again()
            return  # what is to come resizes
        if self._websocket is not None:
            try:
                self._resize()
            except Refused:
                return  # it has just ended, which its socket says better
            except Unreachable as exc:
                self._lose(exc)

    def _begin_again(self) -> None:
        """Have all shown anew."""
        self._part()
        self._anew = True
        self._retry_at = 0.0

    def _part(self) -> None:
        """Leave the connection, to look for another."""
        if self._websocket is not None:
            self._websocket.close()
            self._websocket = None
        self._client.resumes = True
        self._acknowledged = None

    def _typed(self) -> bool:
        """Pass on what is typed; True if that was to leave."""
        data = os.read(STDIN, PIECE_BYTES)
        if not data:
            raise Signals.Raised(signal.SIGHUP)  # what hung up is this terminal
        keys, leaves = self._detacher.feed(data)
        self._let_go_at = time.monotonic() + HOLD_S if self._detacher.holds else None
        if self._views:
            return leaves or CTRL_C in keys
        self._send(keys)
        return leaves

    def _send(self, keys: bytes) -> None:
        if keys and self._websocket is not None and not self._views:
            try:
                self._websocket.send(keys)
            except Unreachable as exc:
                self._lose(exc)

    def _receive(self, websocket: WebSocket, ready: set[int]) -> None:
        try:
            if websocket.fileno() in ready or websocket.pending:
                websocket.flush()
                for message in websocket.receive():
                    if message.opcode == TEXT:
                        self._controlled(json.loads(message.payload))
                    else:
                        self._shown(message.payload)
                self._acknowledge(websocket)
            websocket.beat()
        except Unreachable as exc:
            self._lose(exc)
            return
        if websocket.closed is not None:
            self._closed(websocket.closed)

    def _shown(self, data: bytes) -> None:
        self._terminal.write(data)
        if self._offset is not None:
            self._offset += len(data)
            return
        self._replay_bytes -= len(data)
        self._check_replay()

    def _acknowledge(self, websocket: WebSocket) -> None:
        if self._acknowledged is None or self._offset is None:
            return
        if self._offset - self._acknowledged >= ACK_BYTES:
            self._acknowledged = self._offset
            websocket.send(json.dumps({"type": "ack", "offset": self._offset}).encode(), TEXT)

    def _check_replay(self) -> None:
        if self._replay_bytes <= 0:
            self._offset = self._live_offset - self._replay_bytes

    def _controlled(self, control: Mapping[str, Any]) -> None:
        """Source: contract, section 10.5; README, "What procd adds to the contract"."""
        status = control.get("status")
        if status == "connected":
            self._client.resumes = self._anew = False
            if self._lost_at is not None:
                self._lost_at = None
                self._pause_s = FIRST_RETRY_S
                self._terminal.tell("connected again")
            begin = int(control.get("offset", 0))
            if "liveOffset" in control:
                self._terminal.write(str(control.get("modes", "")).encode())
                self._offset = None
                self._replay_bytes = int(control["replayBytes"])
                self._live_offset = int(control["liveOffset"])
                self._check_replay()
            else:
                if self._offset is not None and begin > self._offset:
                    self._terminal.tell(f"{begin - self._offset} bytes of output are lost")
                self._offset = begin
        elif status == "presence":
            if self._acknowledged is None:
                self._acknowledged = self._offset
            # Who was active last answers: several answers would be typed into the program.
            self._terminal.answer(control["active"] == control["you"])
        elif status == "exited":
            self._exit = int(control["exitCode"])
        elif status == "error":
            raise Failure(str(control.get("error") or "the server refuses the terminal"))
        elif status == "read-only":
            self._look_on()

    def _closed(self, closed: Closed) -> None:
        if self._exit is not None:
            return
        reason = closed.reason
        try:
            ending = json.loads(reason)
            if "exitCode" in ending:
                self._exit = int(ending["exitCode"])
                return
            reason = str(ending["error"])
        except (ValueError, KeyError, TypeError):
            pass  # a text of its own
        if closed.code == 1000:
            self._exit = 0
        elif closed.code in PASSING:
            self._lose(Unreachable(f"the server closed the connection: {reason}"))
        elif reason == SLOW:
            # What it was to show next is no longer kept: begin again with what is.
            self._anew = True
            self._lose(Unreachable("this terminal is too slow for that much output"))
        else:
            raise Failure(reason or f"the server closed with code {closed.code}")

    def _lose(self, exc: Unreachable) -> None:
        """Not yet a failure: say so, and look for the server."""
        self._part()
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            if self._retry_s:
                self._terminal.tell(f"{exc.message}; trying again, the detach keys leave")
        if now - self._lost_at >= self._retry_s:
            raise Unreachable(exc.message, f"come back with `procd attach {self._id}`") from exc
        self._retry_at = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, LONGEST_RETRY_S)

    def _retry(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        try:
            self._resize()
        except Refused as exc:
            # It may have ended meanwhile, and its end is still to be seen; or it has gone.
            if exc.status != 410:
                raise
            self._anew = False
        except Unreachable as exc:
            self._lose(exc)
            return
        try:
            self._websocket = self._connect()
        except Unreachable as exc:
            self._lose(exc)
            return
        if self._anew or self._offset is None:
            self._terminal.clear()
