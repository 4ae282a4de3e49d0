"""Process: one supervised process, with its child, its exit, its tree and its log.

Execute, PTYs and whatever else runs something are made of this. What a successor of procd would
have to be told is plain data in `ProcessRecord`; each descriptor has one owner here.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from signal import SIGINT
from typing import Final, Protocol

from procd.config import ProcessConfig
from procd.output.buffer import Backlog
from procd.output.log import Log, Store
from procd.process import cgroup, tags
from procd.process import tree as proctree
from procd.process.child import Child, ExitStatus
from procd.process.pair import Pair
from procd.process.poller import MEMORY_REST_S, Poller
from procd.process.reader import FdReader
from procd.process.tree import Tree
from procd.process.trees import Trees
from procd.process.tty import set_winsize
from procd.process.writer import FdWriter
from procd.unix.fd import OwnedFd
from procd.unix.pidfd import ended

STDOUT: Final = 1
STDERR: Final = 2

PIPE_BURST_BYTES: Final = 256 << 10
# With the 4,095 bytes of the read that goes beyond, this still makes one frame.
PTY_BURST_BYTES: Final = 60 << 10
# What is taken of what is pending: all that a pipe can hold (fcntl(2)), or a terminal (measured).
# Of a terminal hardly more, for a child may pour into it: in the shortest backlog, of 128 KiB, a
# pause at a quarter and the burst that goes beyond it leave room for 32 KiB.
PIPE_HELD_BYTES: Final = 1 << 20
PTY_HELD_BYTES: Final = 24 << 10
# How long an exit waits for memory in which to keep what was said before it.
MEMORY_WAIT_S: Final = 5.0


@dataclass(slots=True)
class ProcessRecord:
    """What is true of a process whoever supervises it.

    Attributes:
        started_at: seconds since the epoch.
        exit: how it ended; None until then.
    """

    pid: int
    tree: Tree
    started_at: float
    leaf: cgroup.Leaf | None = None
    exit: ExitStatus | None = None


class Supervisor(Protocol):
    """What a process needs of whoever supervises all of them."""

    config: ProcessConfig
    poller: Poller
    trees: Trees

    def exited(self, process: "Process") -> None:
        """Its status was read: from now on its pid may be anybody's."""

    def settle(self, process: "Process") -> None:
        """Look whether anything is left to supervise."""


class Process:
    """A process from its start until its output has ended.

    `done` is set when it has exited and its log is sealed: at the end of its output, or `drain_s`
    after the exit if a background child still holds it open. That child's later output is read and
    dropped, so that it is never stopped by a broken pipe, until `hang_up` or its own end. After
    `hang_up` the exit alone sets it; `abandon` cancels it.

    Attributes:
        on_done: called in the moment that `done` is set, or cancelled by `abandon`.
    """

    def __init__(
        self,
        processes: Supervisor,
        record: ProcessRecord,
        output: Log[Store],
        *,
        master: OwnedFd | None = None,
    ) -> None:
        self.record = record
        self.log = output
        self.master = master
        self._processes = processes
        self._loop = asyncio.get_running_loop()
        self._readers: list[FdReader] = []
        self._unread = 0  # of them, those whose end hasn't been read
        self._drain_timer: asyncio.TimerHandle | None = None
        self._drained_by = 0.0  # when to wait no longer for memory to take the last output with
        self._killing: asyncio.Task[None] | None = None
        self.done: asyncio.Future[ExitStatus] = self._loop.create_future()
        self.on_done: Callable[[], None] | None = None
        self.stdin = None if master is None else FdWriter(processes.poller, master)
        self._child = Child(processes.poller, record.pid, self._exited)  # last: it calls us

    @property
    def running(self) -> bool:
        """Whether it has not exited yet."""
        return self.record.exit is None

    def read_from(self, fd: OwnedFd, stream: int) -> None:
        """Read `fd` into the log as `stream`."""

        def received(data: bytes) -> None:
            if not self.log.sealed:
                self.log.append(data, stream)

        if fd is self.master and self.stdin is not None:
            fd.before_close = self.stdin.abandon  # one descriptor, two registrations
        reader = self.read_apart(fd, received)
        if len(self._readers) > 1:
            Pair(self._readers[0], reader, self._processes.poller.arrivals)
        self.log.feed_from(reader)

    def read_apart(self, fd: OwnedFd, on_data: Callable[[bytes], None]) -> FdReader:
        """Read `fd` into `on_data` and not into the log; `done` waits for its end as well."""
        is_terminal = fd is self.master
        reader = FdReader(
            self._processes.poller,
            fd,
            on_data,
            self._one_ended,
            burst_bytes=PTY_BURST_BYTES if is_terminal else PIPE_BURST_BYTES,
            may_go_on=(lambda: self.running) if is_terminal else None,
        )
        try:
            self._readers.append(reader)
        except MemoryError:
            reader.close()
            raise
        self._unread += 1
        return reader

    def _one_ended(self) -> None:
        self._unread -= 1
        if not self._unread and not self.running:
            self._finish()
            self._processes.settle(self)

    def _exited(self, status: ExitStatus) -> None:
        self.record.exit = status
        self.record.tree.leader = 0
        self._processes.exited(self)
        if self._unread:
            self._drained_by = self._loop.time() + MEMORY_WAIT_S
            self._drain_timer = self._loop.call_later(
                self._processes.config.drain_s, self._drain_over
            )
        if self.master is not None and not self.log.paused:
            self.take_pending()  # it may have let go of its terminal long ago
        if not self._unread:
            self._finish()
        self._processes.settle(self)

    def _drain_over(self) -> None:
        try:
            if not self.take_pending() and self._loop.time() < self._drained_by:
                self._drain_timer = self._loop.call_later(MEMORY_REST_S, self._drain_over)
                return
        except BaseException:
            self._finish()
            raise
        self._finish()

    def pause(self) -> None:
        """Leave its output in the kernel, which in time stops it: for a log that isn't its own."""
        for reader in self._readers:
            reader.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        for reader in self._readers:
            reader.resume()

    def take_pending(self) -> bool:
        """Move what the kernel already holds into the log; whether there was memory for all."""
        most = PIPE_HELD_BYTES if self.master is None else PTY_HELD_BYTES
        taken = True
        for reader in self._readers:
            taken = reader.drain(most) and taken
        return taken

    def _finish(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        if self.done.done():
            return
        self.log.seal()
        if self._unread:  # by a background child, which runs on
            for reader in self._readers:
                if not reader.ended:
                    reader.discard()
            self.log = Log(Backlog(0), 0)  # it keeps nothing of what there was
        assert self.record.exit is not None
        self.done.set_result(self.record.exit)
        if self.on_done is not None:
            self.on_done()

    @property
    def settled(self) -> bool:
        """Whether nothing is left to supervise."""
        return not self.running and not self._unread

    def usage(self) -> dict[str, int] | None:
        """What all in its cgroup use (see `Leaf.usage`); None if it has none of its own."""
        return None if self.record.leaf is None else self.record.leaf.usage()

    def look(self) -> None:
        """Learn now whether it has exited: where the loop is late, its status may lie unread.

        Whoever is about to end it because of the time looks first. `done` is set as ever.
        """
        self._child.look()

    def signal(self, number: int) -> None:
        """Send a signal to the process alone; after its end, do nothing."""
        self._child.signal(number)

    def tag(self, part: int) -> int:
        """What can mark a part of its tree.

        Args:
            part: a number; those that are equal in the last 16 bits have the same tag.
        """
        return self.record.tree.tag + (part & ((1 << tags.PART_BITS) - 1))

    def retag(self, tag: int) -> bool:
        """Have what it starts from now on carry `tag`; False if it has to do that itself."""
        leader = self.record.tree.leader
        return not leader or tags.retag(leader, tag)

    def interrupt(self, tag: int, still: Callable[[], bool]) -> None:
        """SIGINT to the process, and to those of its process group that carry `tag`.

        Args:
            still: whether they are at what is to be interrupted: it may take some turns.
        """
        tree = self.record.tree
        hears = proctree.in_foreground(tree, tag)
        self._processes.trees.start_telling(tree, SIGINT, lambda pid: still() and hears(pid))

    def kill(self, along: asyncio.Task[None] | None = None) -> None:
        """Begin to end the whole tree, now unless it is large; `killed` waits for the end of it.

        Descendants count wherever they went: other sessions, other process groups, orphans.

        Args:
            along: a kill of many trees that has begun, with this one among them.
        """
        if self._killing is not None and not self._killing.done():
            return
        if self.record.leaf is not None:
            self.record.leaf.kill()
        self._killing = along or self._processes.trees.start_kill(self.record.tree)

    async def killed(self) -> None:
        """Wait until everything that `kill` was after has ended, or for `KILL_WAIT_S`.

        What is in an uninterruptible sleep may take as long as its disk does.
        """
        if self._killing is not None:
            await asyncio.wait([self._killing], timeout=proctree.KILL_WAIT_S)

    async def tell(self, number: int) -> dict[int, int]:
        """Signal everyone, the stopped too; those known to have got it: pid → start time."""
        return await self._processes.trees.tell(self.record.tree, number, wakes=True)

    async def leave(self, number: int, grace_s: float) -> None:
        """`tell` everyone, and wait until all have left, at most `grace_s`."""
        await self._processes.trees.looks.take()
        await ended(await self.tell(number), grace_s)

    async def see_off(self, told: Mapping[int, int], grace_s: float) -> None:
        """Wait at most `grace_s` for who was told to leave, then kill; returns as `killed` does."""
        try:
            await ended(told, grace_s)
            await self._processes.trees.looks.take()
        finally:  # whatever becomes of the wait
            self.kill()
        await self.killed()

    async def end(self, number: int, grace_s: float) -> None:
        """`leave`, then kill; returns as `killed` does."""
        try:
            await self.leave(number, grace_s)
            await self._processes.trees.looks.take()
        finally:  # whatever becomes of the wait
            self.kill()
        await self.killed()

    def resize(self, cols: int, rows: int) -> None:
        """Set the winsize of its terminal, if it has one that is open."""
        if self.master is not None and not self.master.closed:
            set_winsize(self.master, cols, rows)

    def hang_up(self) -> None:
        """Close its output, and its terminal: the kernel sends SIGHUP to those still there."""
        for reader in self._readers:
            reader.close()
        self._unread = 0
        if self.master is not None:
            self.master.close()
        self._processes.settle(self)

    def abandon(self) -> None:
        """Let go of every descriptor, whatever state the process is in."""
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        self.hang_up()
        self._child.forget()
        if self.done.cancel() and self.on_done is not None:
            self.on_done()
