"""One Python process that serves one request after another (contract, section 11).

What it writes to its descriptors 1 and 2 goes to the log of the cell that runs, and is dropped
while none does. Requests and replies use a channel of their own.
"""

import asyncio
import logging
import marshal
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from procd import worker
from procd.errors import SpawnFailed
from procd.output.buffer import Buffer
from procd.output.log import Log
from procd.process.supervisor import Supervisor
from procd.process.tree import KILL_WAIT_S
from procd.services.interpreter.worker_protocol import (
    PACKETS_PER_TURN,
    Begun,
    Channel,
    Display,
    NonsenseError,
    Reply,
    parse,
)

log = logging.getLogger(__name__)

# Unbuffered, so that output of C code is not lost when the process dies.
SCRIPT: Final = ("-u", str(Path(worker.__file__).parent / "interpreter.py"))
# Confirmations of displays that the process does not read; the worker waits for each of them.
MAX_UNREAD_BYTES: Final = 16 << 10
# The stream of a log that holds displays, one JSON object per line.
RESULTS: Final = 3
MAX_STARTUP_OUTPUT_BYTES: Final = 4096
# After so many pieces of output in quick succession, output gathers in the pipes for this time.
# [measured: without it, 300,000 lines take twice as long]
FLOOD_PIECES: Final = 8
GATHER_S: Final = 0.002


class OutputRouter:
    """The store of a process's log: it keeps nothing, and passes bytes on to a cell's log."""

    end = 0
    start = 0
    safe_lag_bytes = sys.maxsize

    def __init__(self, target: Log[Buffer] | None) -> None:
        self.target = target

    def append(self, data: bytes, stream: int = 0) -> None:
        if self.target is not None and not self.target.sealed:
            self.target.append(data, stream)


class InterpreterProcess:
    """An interpreter process; raises SpawnFailed or Exhausted if it can't be started.

    `ready` is the reply to its start; None if it ended. `begun`: the latest request's code has
    begun.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        python: str,
        *,
        cwd: str,
        env: Mapping[str, str],
        preload: tuple[str, ...],
    ) -> None:
        try:
            self._channel = Channel(supervisor.loop, self._received, self._channel_ended)
        except OSError as exc:
            raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc
        self._startup_output = Buffer(MAX_STARTUP_OUTPUT_BYTES)
        self._router = OutputRouter(Log(self._startup_output, 0))
        output = Log(self._router, 0)
        output.tap = self._gather
        self._loop = asyncio.get_running_loop()
        self._last_output = 0.0
        self._pieces = 0
        try:
            self._process = supervisor.spawn(
                (python, *SCRIPT),
                cwd=cwd,
                env=env,
                output=output,
                passed=(self._channel.theirs,),
            )
        except BaseException:
            self._channel.close()
            raise
        self.pid = self._process.record.pid
        self._number = 0  # of the request
        self._tag = 0
        self._unkillable = False
        self.begun = False
        self._terminating = False  # its children have their time of grace
        self._interrupt_pending = False
        self._reply: asyncio.Future[Reply | None] | None = None
        self._paused = False
        self._unconfirmed: int | None = None  # the display that is confirmed after the pause
        self._process.done.add_done_callback(self._exited)
        self.ready = self._ask({"op": "start", "key": self._channel.key, "preload": preload})

    @property
    def running(self) -> bool:
        """Whether it can serve a request."""
        return self._process.running and not (self._process.done.done() or self._unkillable)

    @property
    def startup_output(self) -> list[str]:
        text = b"".join(run.data for run in self._startup_output.runs()).decode(errors="replace")
        return text.strip().splitlines()

    async def prepare(self, cwd: str) -> None:
        """Wait for its start, and have it change to a directory; raises SpawnFailed."""
        if await asyncio.shield(self.ready) is None:
            lines = self.startup_output
            reason = lines[-1] if lines else "without a word"
            raise SpawnFailed(f"the interpreter ended as it started: {reason}")
        reply = await asyncio.shield(self._ask({"op": "chdir", "cwd": cwd}))
        if reply is None:
            raise SpawnFailed("the interpreter ended as it started")
        if reply.error is not None:
            raise SpawnFailed(reply.error["value"])

    def run(
        self, message: Mapping[str, object], output: Log[Buffer]
    ) -> asyncio.Future[Reply | None]:
        """Send a request. Until the reply, which is None at the end, `output` gets the output."""
        self._tag = self._process.tag(self._number)
        if not self._process.retag(self._tag):
            message = {**message, "tag": self._tag}
        self._router.target = output
        output.feed_from(self)
        return self._ask(message)

    def _ask(self, message: Mapping[str, object]) -> asyncio.Future[Reply | None]:
        reply = self._reply = self._loop.create_future()
        self.begun = self._interrupt_pending = False
        if self._process.done.done():
            reply.set_result(None)
        else:
            self._send({**message, "id": self._number})
        return reply

    def _send(self, message: dict[str, object]) -> None:
        self._channel.send(marshal.dumps(message, 4))  # Python 3.8 knows this format

    def pause(self) -> None:
        """Leave output in the pipes, and displays without confirmation, so that the code waits.

        Replies are read all the same: a slow client does not make its code last longer.
        """
        self._paused = True
        self._process.pause()

    def resume(self) -> None:
        self._paused = False
        self._resume_reading()
        if self._unconfirmed is not None:
            self._send({"op": "shown", "id": self._unconfirmed})
            self._unconfirmed = None

    def _gather(self, _: bytes) -> None:
        now = self._loop.time()
        self._pieces = self._pieces + 1 if now - self._last_output < 2 * GATHER_S else 0
        self._last_output = now
        if self._pieces > FLOOD_PIECES:
            self._process.pause()
            self._loop.call_later(GATHER_S, self._resume_reading)

    def _resume_reading(self) -> None:
        if not self._paused:
            self._process.resume()

    def _received(self, data: bytes) -> None:
        try:
            message = parse(data, self._number)
            if self._channel.unsent_bytes > MAX_UNREAD_BYTES:
                raise NonsenseError("it does not read what it is sent")
        except NonsenseError as exc:
            log.warning("interpreter %d sends nonsense: %s", self.pid, exc)
            self._process.kill()
            return
        match message:
            case Display():
                self._process.drain()  # what was written before it is in the pipes by now
                self._router.append(message.bundle + b"\n", RESULTS)
                if self._paused:
                    self._unconfirmed = message.number
                else:
                    self._send({"op": "shown", "id": message.number})
            case Begun():
                self.begun = True
                if self._interrupt_pending:
                    self.interrupt()
            case Reply():
                self._process.drain()
                self._finish(message)
                self._number += 1

    def _finish(self, reply: Reply | None) -> None:
        self._router.target = None
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(reply)

    def _channel_ended(self, reason: str) -> None:
        if reason:
            log.warning("interpreter %d %s", self.pid, reason)
        if not self._terminating:
            self._process.kill()

    def poll(self) -> None:
        """Read a reply or an exit that the event loop has not come to yet."""
        self._channel.drain(PACKETS_PER_TURN)
        self._process.poll()

    def _exited(self, _: object) -> None:
        self._channel.drain()
        self._channel.close()
        self._finish(None)
        if not self._terminating:
            self._process.kill()  # what it has started doesn't outlive it
            self._process.close()

    def interrupt(self) -> None:
        """SIGINT to the code and to what it has started, not to what earlier code has started.

        It is sent when the code has begun: before, it would be taken for one for the code before.
        """
        if not self.begun:
            self._interrupt_pending = True
        elif self._process.running and (reply := self._reply) is not None and not reply.done():
            self._process.interrupt(self._tag, lambda: not reply.done())

    async def terminate(self, grace_s: float) -> None:
        """SIGTERM, then after `grace_s` SIGKILL, for the whole tree; returns as `kill` does."""
        self._terminating = True
        try:
            await self._process.end(signal.SIGTERM, grace_s)
        finally:
            self._process.close()
        await self._wait_for_exit()

    async def kill(self) -> None:
        """SIGKILL for the whole tree; returns when it has ended, or after KILL_WAIT_S."""
        self._process.kill()
        await self._process.wait_killed()
        await self._wait_for_exit()

    async def _wait_for_exit(self) -> None:
        _, pending = await asyncio.wait([self._process.done], timeout=KILL_WAIT_S)
        if pending:
            log.warning("interpreter %d can't be killed", self.pid)
            self._unkillable = True
            self._finish(None)
