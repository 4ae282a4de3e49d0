"""Repl: one Python process that does one thing after another for procd.

What the process writes to its descriptors 1 and 2 goes to the log of the one that is under way, and
to nobody while there is none. Requests and replies go over a channel of their own.

Source: Process API contract, section 11.
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
from procd.services.interpreter.channel import BURST, Channel, channel_pair
from procd.services.interpreter.worker_protocol import Begun, Display, NonsenseError, Reply, parse

log = logging.getLogger(__name__)

# Unbuffered for the sake of C code, whose streams would keep what it says to the end. Python's own
# are made anew by the script.
SCRIPT: Final = ("-u", str(Path(worker.__file__).parent / "interpreter.py"))
# Which Python 3.8 knows as well.
MARSHAL_VERSION: Final = 4
# Displays of a cell and its error, each in a message; they are limited where they are made.
MAX_MESSAGE_BYTES: Final = 8 << 20
# The stream of a log that holds displays, one JSON object per line.
RESULTS: Final = 3
# Of what it says as it starts, for the case that it doesn't.
FIRST_WORDS_BYTES: Final = 4096


class Relay:
    """A store that keeps nothing: it hands bytes on to the log of whoever runs."""

    end = 0
    start = 0
    safe_lag_bytes = sys.maxsize

    def __init__(self) -> None:
        self.target: Log[Buffer] | None = None

    def append(self, data: bytes, stream: int = 0) -> None:
        """Hand on, or drop."""
        if self.target is not None and not self.target.sealed:
            self.target.append(data, stream)


class Repl:
    """An interpreter process.

    Args:
        python: the interpreter's path.
        preload: modules to import as it starts.

    Attributes:
        ready: the reply to its start; None if it ended before.
        begun: whether it has begun with what was asked last.

    Raises:
        SpawnFailed: it can't be started.
        Exhausted: there are as many processes as may be.
    """

    def __init__(
        self,
        processes: Supervisor,
        python: str,
        *,
        cwd: str,
        env: Mapping[str, str],
        preload: tuple[str, ...],
    ) -> None:
        try:
            ours, theirs = channel_pair()
        except OSError as exc:
            raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc
        try:
            self._channel = Channel(
                processes.loop, ours, self._received, self._cut_off, MAX_MESSAGE_BYTES
            )
        except OSError as exc:
            ours.close()
            theirs.close()
            raise SpawnFailed(f"cannot supervise a process: {exc.strerror}") from exc
        self._processes = processes
        self._relay = Relay()
        self._first_words = self._relay.target = Log(Buffer(FIRST_WORDS_BYTES), 0)
        try:
            self._process = processes.spawn(
                (python, *SCRIPT),
                cwd=cwd,
                env=env,
                output=Log(self._relay, 0),
                passed=(theirs,),
            )
        except BaseException:
            self._channel.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._tag = 0
        self.begun = False
        self._given_up = False  # it can't be ended
        self._leaving = False  # with all that it has started, which has its time of grace
        self._interrupted = False  # before it had begun
        self._reply: asyncio.Future[Reply | None] | None = None
        self._paused = False
        self._unshown: int | None = None  # a display that hears of its place after the pause
        self._process.done.add_done_callback(self._exited)
        self.ready = self._ask({"op": "start", "key": self._channel.key, "preload": preload})

    @property
    def running(self) -> bool:
        """Whether it can be asked for something."""
        return self._process.running and not self._process.done.done() and not self._given_up

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.record.pid

    @property
    def first_words(self) -> list[str]:
        """The lines of what it said as it started."""
        text = b"".join(run.data for run in self._first_words.store.runs()).decode(errors="replace")
        return text.strip().splitlines()

    def place(self, cwd: str) -> asyncio.Future[Reply | None]:
        """Have it take up a directory."""
        return self._ask({"op": "place", "cwd": cwd})

    def run(
        self, message: Mapping[str, object], output: Log[Buffer]
    ) -> asyncio.Future[Reply | None]:
        """Ask for something; what it writes until the reply goes to `output`.

        One at a time. The reply is None when the process ends before it.
        """
        self._tag = self._process.tag(self._number)
        if not self._process.retag(self._tag):
            message = {**message, "tag": self._tag}
        self._relay.target = output
        output.feed_from(self)
        return self._ask(message)

    def _ask(self, message: Mapping[str, object]) -> asyncio.Future[Reply | None]:
        assert self._reply is None or self._reply.done(), "one at a time"
        reply = self._reply = self._loop.create_future()
        self.begun = self._interrupted = False
        if self._process.done.done():
            reply.set_result(None)
        else:
            self._tell({**message, "id": self._number})
        return reply

    def _tell(self, message: Mapping[str, object]) -> None:
        self._channel.send(marshal.dumps(dict(message), MARSHAL_VERSION))

    def pause(self) -> None:
        """Leave what it writes in the kernel, and what it displays without an answer.

        Who waits for the answer waits on. Who doesn't, and has nothing left to say but that it has
        done, is heard: how slowly somebody reads makes nothing last longer than it does.
        """
        self._paused = True
        self._process.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._process.resume()
        self._channel.resume()
        number, self._unshown = self._unshown, None
        if number is not None:
            self._tell({"op": "shown", "id": number})

    def _received(self, data: bytes) -> None:
        try:
            message = parse(data, self._number)
        except NonsenseError as exc:
            log.warning("interpreter %d talks nonsense: %s", self.pid, exc)
            self._process.kill()
            return
        if isinstance(message, Display):
            self._process.drain()  # what was written before is in the pipes by now
            self._relay.append(message.bundle + b"\n", RESULTS)
            # It goes on when it knows that what it prints next comes after this.
            if not self._paused:
                self._tell({"op": "shown", "id": message.number})
                return
            if self._unshown is not None:  # it hasn't waited
                self._channel.pause()
            self._unshown = message.number
        elif isinstance(message, Begun):
            self.begun = True
            if self._interrupted:
                self.interrupt()
        else:
            self._process.drain()
            self._answer(message)
            self._number += 1

    def _answer(self, reply: Reply | None) -> None:
        self._relay.target = None
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(reply)

    def _cut_off(self, reason: str) -> None:
        if reason:
            log.warning("interpreter %d %s", self.pid, reason)
        if not self._leaving:
            self._process.kill()

    def look(self) -> None:
        """See whether it has replied or exited by now, though there was no turn for it yet."""
        self._channel.drain(BURST)
        self._process.poll()

    def _exited(self, _: object) -> None:
        self._channel.drain()
        self._channel.close()
        self._answer(None)
        if not self._leaving:
            self._process.kill()  # what it has started doesn't outlive it
            self._process.close()

    def interrupt(self) -> None:
        """SIGINT to the code, and to what it has started; not to what earlier code has.

        If the process has still to begin with it, then as soon as it has: before that it couldn't
        tell what is meant for this code from what came too late for the code before.
        """
        if not self.begun:
            self._interrupted = True
        elif self._process.running and (reply := self._reply) is not None and not reply.done():
            self._process.interrupt(self._tag, lambda: not reply.done())

    async def end(self, grace_s: float) -> None:
        """SIGTERM, then after `grace_s` SIGKILL, for the whole tree; returns as `kill` does."""
        try:
            if self._process.running:
                self._leaving = True
                await self._process.terminate(signal.SIGTERM, grace_s)
            await self._processes.trees.turns.take()
        finally:  # whatever becomes of the wait
            self._leaving = False
            self._process.kill()
            if self._process.done.done():
                self._process.close()
        await self._settled()

    async def kill(self) -> None:
        """SIGKILL for the whole tree; returns when it has ended, or won't: then it is given up."""
        try:
            await self._processes.trees.turns.take()
        finally:  # whatever becomes of the wait
            self._process.kill()
        await self._settled()

    async def _settled(self) -> None:
        try:
            async with asyncio.timeout(KILL_WAIT_S):
                await self._process.wait_killed()
                await asyncio.wait([self._process.done])
        except TimeoutError:  # what its disk keeps, or is not ours to signal, ends when it will
            log.warning("interpreter %d can't be ended", self.pid)
            self._given_up = True
            self._answer(None)
