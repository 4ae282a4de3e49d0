"""procd attach: a terminal of the server, in this one.

Source: Process API contract, section 10; docs/wire.md; docs/api.md for `?offset`.
"""

import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import click

from procd.cli.display import Progress
from procd.cli.failure import Failure, Refused, Unreachable
from procd.cli.options import Name, cwd_option, env_option, environment, pass_client
from procd.cli.output_stream import ENVS_TOKEN, PROTOCOLS, PtyStream, Reconnect
from procd.cli.signals import ENDING, Signals
from procd.cli.stdio import READ_BYTES, STDIN
from procd.cli.terminal import Terminal
from procd.cli.transport import PTY, REPLY_S, Client, query, quoted
from procd.cli.websocket import WAIT_S, Closed, wait

# What programs on the server should know about the terminal here.
INHERITED: Final = ("TERM", "COLORTERM")
DETACH_KEYS: Final = "ctrl-p,ctrl-q"
# How long the first detach key waits for the next: readline(3), keyseq-timeout.
HOLD_S: Final = 0.5
CONTROLS: Final = "@abcdefghijklmnopqrstuvwxyz[\\]^_"
CTRL_C: Final = b"\x03"
# How long one attempt may take while the user may want to leave.
QUICK_S: Final = 5.0
# Close codes after which the terminal may still be there: RFC 6455, section 7.4.1, and the IANA's
# registry (1012: service restart, 1013: try again later).
TEMPORARY: Final = (1001, 1005, 1006, 1012, 1013)


@click.command("attach")
@click.argument("pty_id", metavar="[ID]", required=False, type=Name(PTY))
@click.option("--view", "-v", "views", is_flag=True, help="Only watch.")
@click.option("--no-create", is_flag=True, help="Fail if there is no terminal of this name.")
@cwd_option
@env_option
@click.option(
    "--detach-keys",
    default=DETACH_KEYS,
    show_default=True,
    envvar="PROCD_DETACH_KEYS",
    show_envvar=True,
    metavar="KEYS",
    help="Keys that leave the terminal, with commas between; empty for none. A key that isn't"
    " followed by the next within half a second is sent on.",
)
@click.option(
    "--retry",
    "retry_s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to look for a lost server.",
)
@pass_client
def command(
    client: Client,
    *,
    pty_id: str | None,
    views: bool,
    no_create: bool,
    cwd: str,
    envs: tuple[str, ...],
    detach_keys: str,
    retry_s: float,
) -> None:
    """Use a terminal of the server in this one.

    A terminal that isn't there is created, with --cwd and --env, which have no effect on others;
    without ID, a new one is. Its earlier output is shown first. It gets the size of the window
    here. When its shell ends, its exit code becomes this one's.

    Ctrl-P Ctrl-Q leaves the terminal, and everything that runs in it goes on. A lost connection is
    resumed where it broke off: no byte is lost or shown twice, but what is typed meanwhile is
    dropped. This terminal is restored in any case.

    With --view nothing is typed, resized or created, and Ctrl-C leaves as well.

    \b
    Examples:
      procd attach work
      procd attach --cwd /src --env EDITOR build
      procd attach --view work
      procd attach --detach-keys ctrl-a,d work
    """
    keys = DetachKeys(detach_keys)
    name = pty_id or f"t-{os.urandom(3).hex()}"
    terminal = Terminal()
    inherited = {each: os.environ[each] for each in INHERITED if os.environ.get(each)}
    attachment = Attachment(client, name, terminal, keys, views=views, retry_s=retry_s)
    envs_here = inherited | environment(envs)
    code = attachment.run(creates=not no_create and not views, cwd=cwd, envs=envs_here)
    if code is None:
        again = f"procd attach {'--view ' if views else ''}{name}"
        click.echo(f"[left {name}: come back with `{again}`]", err=True)
        return
    click.echo(f"[{name} has ended with exit code {code}]", err=True)
    sys.exit(code)


class DetachKeys:
    """Finds the keys that leave the terminal (like `ctrl-p,ctrl-q`) in what is typed."""

    def __init__(self, text: str) -> None:
        keys = bytearray()
        for name in text.split(",") if text else []:
            control = name.lower().removeprefix("ctrl-")
            if len(name) == 1 and name.isascii():
                keys += name.encode()
            elif control != name.lower() and len(control) == 1 and control in CONTROLS:
                keys.append(CONTROLS.index(control))
            else:
                raise Failure(
                    f"--detach-keys {text}: {name or 'nothing'}: no such key",
                    f"write letters, or ctrl- and a letter, with commas between: {DETACH_KEYS}",
                )
        self._keys = bytes(keys)
        self.held = b""

    def release(self) -> bytes:
        held, self.held = self.held, b""
        return held

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be sent, and whether the keys were typed."""
        data = self.release() + data
        if not self._keys:
            return data, False
        before, keys, _ = data.partition(self._keys)
        if keys:
            return before, True
        for size in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:size]):
                self.held = data[-size:]
                return data[:-size], False
        return data, False


class Attachment:
    """One attachment to one terminal.

    If it only `views`, nothing is typed, resized or created. A lost server is looked for `retry_s`.
    """

    def __init__(
        self,
        client: Client,
        pty_id: str,
        terminal: Terminal,
        detach_keys: DetachKeys,
        *,
        views: bool,
        retry_s: float,
    ) -> None:
        self._client = client
        self._id = pty_id
        self._path = f"{PTY}/{quoted(pty_id)}"
        self._terminal = terminal
        self._detach_keys = detach_keys
        self._release_at = math.inf  # when to send what those hold back
        self._views = views
        self._stream: PtyStream | None = None
        self._offset: int | None = None  # where the output goes on after a lost connection
        self._restarts = False  # whether to show everything anew on the next connection
        self._retry_s = retry_s
        self._is_lost = False
        self._reconnect = Reconnect(retry_s)
        self._exit_code: int | None = None

    def run(self, *, creates: bool, cwd: str, envs: Mapping[str, str]) -> int | None:
        """Attach until the terminal ends or the user leaves it; returns its exit code or None.

        If `creates`, the terminal is created if it isn't there, with `cwd` and `envs`.
        """
        numbers = (*ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
        with Signals(numbers, raising=True) as signals:
            try:
                with Progress(f"attaching to {self._id}"):
                    self._stream = self._open(creates=creates, cwd=cwd, envs=envs)
                with self._terminal:
                    try:
                        return self._loop(signals)
                    finally:
                        signals.raising = False  # not while the terminal is restored
            finally:
                self._disconnect()

    def _open(self, *, creates: bool, cwd: str, envs: Mapping[str, str]) -> PtyStream:
        try:
            self._client.call("GET", self._path)
        except Refused as exc:
            if exc.status not in (404, 410):
                raise
            if creates:
                return self._create(cwd, envs)
            raise Failure(f"there is no terminal {self._id}", "`procd ps` lists them") from exc
        self._resize()
        return self._connect()

    def _create(self, cwd: str, envs: Mapping[str, str]) -> PtyStream:
        import base64  # only needed here

        columns, rows = self._terminal.size or (None, None)
        parameters = query(id=self._id, cols=columns, rows=rows, cwd=cwd or None)
        token = base64.urlsafe_b64encode(json.dumps(envs).encode()).rstrip(b"=").decode()
        protocols = [*PROTOCOLS, *([ENVS_TOKEN + token] if envs else [])]
        return PtyStream(self._client.websocket(f"{PTY}/create-connect{parameters}", protocols))

    def _connect(self) -> PtyStream:
        offset = None if self._restarts else self._offset
        parameters = query(
            offset=offset,
            viewer="true" if self._views else None,
            modes="true",
        )
        within_s = QUICK_S if self._is_lost else REPLY_S
        path = f"{self._path}/connect{parameters}"
        return PtyStream(self._client.websocket(path, PROTOCOLS, within_s=within_s), offset)

    def _resize(self) -> None:
        size = self._terminal.size
        if self._views or size is None:
            return
        body = {"cols": size[0], "rows": size[1]}
        try:
            self._client.call("POST", f"{self._path}/resize", body, within_s=QUICK_S)
        except Refused as exc:
            if exc.status != 403:
                raise
            self._only_view()

    def _only_view(self) -> None:
        self._views = True
        self._terminal.notify("this token may only look on: Ctrl-C leaves")

    def _loop(self, signals: Signals) -> int | None:
        while self._exit_code is None:
            ready = self._wait(signals)
            try:
                for number in signals.take():
                    self._handle_signal(number)
                if STDIN in ready:
                    if self._read_keys():
                        return None
                elif time.monotonic() >= self._release_at:
                    self._release_at = math.inf
                    self._send(self._detach_keys.release())
                if self._stream is None:
                    self._try_again()
                else:
                    self._receive(self._stream)
            except Unreachable as exc:
                self._lost(exc)
        return self._exit_code

    def _wait(self, signals: Signals) -> set[int]:
        now = time.monotonic()
        timeout_s = min(WAIT_S, max(0, self._release_at - now))
        if self._stream is not None:
            return wait(self._stream.websocket, (signals.fileno(), STDIN), timeout_s)
        timeout_s = min(timeout_s, max(0, self._reconnect.retry_at - now))
        return wait(None, (signals.fileno(), STDIN), timeout_s)

    def _handle_signal(self, number: int) -> None:
        if number == signal.SIGTSTP:
            self._terminal.suspend()
        elif number == signal.SIGCONT:
            self._terminal.enter()  # the shell has used the terminal meanwhile
            self._disconnect()
            self._restarts = True
            self._reconnect.retry_at = 0.0
        elif self._stream is not None:
            with contextlib.suppress(Refused):  # the terminal has ended, as its socket will say
                self._resize()

    def _disconnect(self) -> None:
        if self._stream is not None:
            self._offset = self._stream.offset
            self._stream.websocket.close()
            self._stream = None

    def _read_keys(self) -> bool:
        """Send what is typed; returns whether the user leaves."""
        data = os.read(STDIN, READ_BYTES)
        if not data:
            sys.exit(128 + signal.SIGHUP)  # this terminal is gone
        keys, leaves = self._detach_keys.feed(data)
        self._release_at = time.monotonic() + HOLD_S if self._detach_keys.held else math.inf
        if self._views:
            return leaves or CTRL_C in keys
        self._send(keys)
        return leaves

    def _send(self, keys: bytes) -> None:
        if keys and self._stream is not None and not self._views:
            self._stream.websocket.send(keys)

    def _receive(self, stream: PtyStream) -> None:
        for message in stream.receive():
            if isinstance(message, bytes):
                self._terminal.write(message)
            else:
                self._handle_control(message, stream.offset)
        if stream.websocket.closed is not None and self._exit_code is None:
            self._handle_close(stream.websocket.closed)

    def _handle_control(self, control: Mapping[str, Any], offset: int | None) -> None:
        match control.get("status"):
            case "connected":
                self._handle_connected(control, offset)
            case "presence":
                # The terminal that was used last answers: several answers would be input.
                self._terminal.answer_queries(control["active"] == control["you"])
            case "exited":
                self._exit_code = int(control["exitCode"])
            case "read-only":
                self._only_view()
            case _:
                pass

    def _handle_connected(self, control: Mapping[str, Any], offset: int | None) -> None:
        if self._is_lost:
            self._is_lost = False
            self._reconnect = Reconnect(self._retry_s)
            self._terminal.notify("connected again")
        self._restarts = False
        self._terminal.write(str(control.get("modes", "")).encode())
        if offset is not None and "liveOffset" not in control:
            lost_bytes = int(control.get("offset", 0)) - offset
            if lost_bytes > 0:
                self._terminal.notify(f"{lost_bytes} bytes of output are lost")

    def _handle_close(self, closed: Closed) -> None:
        if closed.code in TEMPORARY:
            raise Unreachable(f"the server closed the connection: {closed.reason}")
        if closed.reason == "slow consumer":
            self._restarts = True  # the server no longer has what follows
            raise Unreachable("this terminal is too slow for that much output")
        raise Failure(closed.reason or f"the server closed with code {closed.code}")

    def _lost(self, exc: Unreachable) -> None:
        self._disconnect()
        if not self._is_lost and self._retry_s:
            self._terminal.notify(f"{exc.message}; trying again, the detach keys leave")
        self._is_lost = True
        if self._reconnect.failed():
            raise Unreachable(exc.message, f"come back with `procd attach {self._id}`") from exc

    def _try_again(self) -> None:
        if time.monotonic() < self._reconnect.retry_at:
            return
        try:
            self._resize()
        except Refused as exc:
            if exc.status != 410:
                raise
            self._restarts = False  # it has ended; its last output is still to come
        self._stream = self._connect()
        if self._restarts or self._offset is None:
            self._terminal.clear()
