"""Process: one supervised process, with its exit, its tree, its log and its terminal.

Execute, sessions, terminals and contexts are all made of this. What would have to be carried over
to a successor of procd is plain data in `ProcessRecord`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from signal import SIGINT
from typing import Final

from procd.output.buffer import Buffer
from procd.output.log import Log, Store
from procd.process import cgroup, tags
from procd.process.child import Child, ExitStatus
from procd.process.io import LARGE_PIPE_BYTES, TTY_READ_BYTES, FdReader, FdWriter
from procd.process.tree import KILL_WAIT_S, Tree, Trees, in_foreground
from procd.process.tty import Terminal, set_window_size
from procd.unix.fd import OwnedFd
from procd.unix.pidfd import ended

STDOUT: Final = 1
STDERR: Final = 2

# What a terminal may hold that was not read yet, by measurement. No more is read at the exit, as a
# background child may go on writing, and a slow reader must not lose the end of the log.
TTY_HELD_BYTES: Final = 24 << 10


@dataclass(slots=True)
class ProcessRecord:
    """The plain facts about a process.

    Attributes:
        started_at: seconds since the epoch.
        exit: how it ended; None until then.
    """

    pid: int
    tree: Tree
    started_at: float
    leaf: cgroup.Leaf | None = None
    exit: ExitStatus | None = None


class Process:
    """A process from its start until its output has ended.

    `done` is set when it has exited and its log is sealed: at the end of its output, or `drain_s`
    after the exit if a background child still holds the output open. What that child writes later
    is read and dropped, so that a broken pipe never stops it, until `close` or its own end.
    `abandon` cancels `done`.

    Args:
        trees: signals and kills its tree.
        drain_s: how long a background child's output is waited for after the exit.
        on_exit: called when its status was read: from then on its pid may be reused.
        on_settled: called when nothing is left to supervise.

    Attributes:
        stdin: what is typed into its terminal; None without one.
    """

    def __init__(
        self,
        record: ProcessRecord,
        output: Log[Store],
        trees: Trees,
        *,
        drain_s: float,
        on_exit: Callable[["Process"], None],
        on_settled: Callable[["Process"], None],
        terminal: Terminal | None = None,
    ) -> None:
        self.record = record
        self.log = output
        self.terminal = terminal
        self._trees = trees
        self._drain_s = drain_s
        self._on_exit = on_exit
        self._on_settled = on_settled
        self._loop = asyncio.get_running_loop()
        self._readers: list[FdReader] = []
        self._open_outputs = 0  # readers whose end was not read yet
        self._drain_timer: asyncio.TimerHandle | None = None
        self._killing: asyncio.Task[None] | None = None
        self.done: asyncio.Future[ExitStatus] = self._loop.create_future()
        self.stdin: FdWriter | None = None
        self.child = Child(self._loop, record.pid, self._exited)
        if terminal is not None:
            self.stdin = FdWriter(self._loop, terminal.master)
            terminal.master.before_close = self.stdin.abandon
            self.read(terminal.master, STDOUT, read_bytes=TTY_READ_BYTES)

    @property
    def running(self) -> bool:
        """Whether it has not exited yet."""
        return self.record.exit is None

    def read_pair(self, stdout: OwnedFd, stderr: OwnedFd) -> None:
        """Read two pipes into the log: each stream in exact order, both as they arrive."""
        self.read(stdout, STDOUT).pair_with(self.read(stderr, STDERR))

    def read(self, fd: OwnedFd, stream: int, *, read_bytes: int | None = None) -> FdReader:
        """Read `fd` into the log as `stream`."""

        def received(data: bytes) -> None:
            if not self.log.sealed:
                self.log.append(data, stream)

        reader = self.read_apart(fd, received, read_bytes=read_bytes)
        self.log.feed_from(reader)
        return reader

    def read_apart(
        self, fd: OwnedFd, on_data: Callable[[bytes], None], *, read_bytes: int | None = None
    ) -> FdReader:
        """Read `fd` into `on_data` and not into the log; `done` waits for its end as well."""
        options = {} if read_bytes is None else {"read_bytes": read_bytes}
        reader = FdReader(self._loop, fd, on_data, self._output_ended, **options)
        self._readers.append(reader)
        self._open_outputs += 1
        return reader

    def _output_ended(self) -> None:
        self._open_outputs -= 1
        if not self._open_outputs and not self.running:
            self._finish()
            self._settle()

    def _exited(self, status: ExitStatus) -> None:
        self.record.exit = status
        self.record.tree.leader = 0
        self._on_exit(self)
        if self.terminal is not None:
            self.terminal.slave.close()
        if self._open_outputs:
            self._drain_timer = self._loop.call_later(self._drain_s, self._drain_over)
        else:
            self._finish()
        self._settle()

    def _drain_over(self) -> None:
        self.drain()
        self._finish()

    def drain(self) -> None:
        """Move into the log what the kernel holds."""
        most_bytes = LARGE_PIPE_BYTES if self.terminal is None else TTY_HELD_BYTES
        for reader in self._readers:
            reader.drain(most_bytes)

    def pause(self) -> None:
        """Leave its output in the kernel, which in time stops it."""
        for reader in self._readers:
            reader.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        for reader in self._readers:
            reader.resume()

    def _finish(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        if self.done.done():
            return
        self.log.seal()
        if self._open_outputs:  # a background child still holds them
            for reader in self._readers:
                if not reader.ended:
                    reader.discard()
            self.log = Log(Buffer(0), 0)  # release the output
        assert self.record.exit is not None
        self.done.set_result(self.record.exit)

    async def wait(self) -> ExitStatus:
        """Wait until `done` is set; if the caller is cancelled, `done` is not.

        Raises:
            CancelledError: `abandon` was called.
        """
        if not self.done.done():
            await asyncio.wait([self.done])
        return self.done.result()

    def _settle(self) -> None:
        if self.settled:
            self._on_settled(self)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to supervise."""
        return not self.running and not self._open_outputs

    def usage(self) -> dict[str, int] | None:
        """What its cgroup uses (see `Leaf.usage`); None if it has none of its own."""
        return None if self.record.leaf is None else self.record.leaf.usage()

    def poll(self) -> None:
        """Read its status now if it has ended; call it before ending it because of the time.

        A late event loop finds that a time is over before it reads what happened until then.
        """
        self.child.poll()

    def signal(self, number: int) -> None:
        """Send a signal to the process alone; after its end, do nothing."""
        self.child.signal(number)

    def tag(self, part: int) -> int:
        """The tag that marks a part of its tree.

        Args:
            part: a number; those that are equal in the last 16 bits have the same tag.
        """
        return self.record.tree.tag + (part & ((1 << tags.PART_BITS) - 1))

    def retag(self, tag: int) -> bool:
        """Have what it starts from now on carry `tag`; False if it has to do that itself."""
        leader = self.record.tree.leader
        return not leader or tags.retag(leader, tag)

    def interrupt(self, tag: int, still: Callable[[], bool]) -> None:
        """Send SIGINT to the process, and to those of its process group that carry `tag`.

        Args:
            still: whether that is still wanted: the search may take some turns of the loop.
        """
        tree = self.record.tree
        hears = in_foreground(tree, tag)
        self._trees.start_signal(tree, SIGINT, lambda pid: still() and hears(pid))

    async def send_signal(self, number: int) -> dict[int, int]:
        """Signal its whole tree, stopped processes too.

        Returns:
            Those that are known to have got it: pid → start time.
        """
        return await self._trees.try_signal(self.record.tree, number, wake=True)

    def kill(self, along: asyncio.Task[None] | None = None) -> None:
        """Begin to kill the whole tree; `wait_killed` waits for its end.

        Descendants count wherever they went: other sessions, other process groups, orphans.

        Args:
            along: a kill of many trees, this one among them, that has begun.
        """
        if self._killing is not None and not self._killing.done():
            return
        if self.record.leaf is not None:
            self.record.leaf.kill()
        self._killing = along or self._trees.start_kill(self.record.tree)

    async def wait_killed(self) -> None:
        """Wait until everything that `kill` is after has ended, at most `KILL_WAIT_S`."""
        if self._killing is not None:
            await asyncio.wait([self._killing], timeout=KILL_WAIT_S)

    async def terminate(self, number: int, grace_s: float) -> None:
        """Signal the whole tree, and wait at most `grace_s` for the end of those that got it."""
        await self._trees.turns.take()
        await ended(await self.send_signal(number), grace_s)

    async def wait_then_kill(self, told: Mapping[int, int], grace_s: float) -> None:
        """Wait at most `grace_s` for the end of those that were signalled, then kill the tree.

        It is killed even if the caller is cancelled. Returns as `wait_killed` does.
        """
        try:
            await ended(told, grace_s)
            await self._trees.turns.take()
        finally:
            self.kill()
        await self.wait_killed()

    async def end(self, number: int, grace_s: float) -> None:
        """`terminate`, then kill the tree, even if the caller is cancelled."""
        try:
            await self.terminate(number, grace_s)
            await self._trees.turns.take()
        finally:
            self.kill()
        await self.wait_killed()

    def resize(self, cols: int, rows: int) -> None:
        """Set the window size of its terminal, if it has one that is open."""
        if self.terminal is not None and not self.terminal.master.closed:
            set_window_size(self.terminal.master, cols, rows)

    def close(self) -> None:
        """Close its output and its terminal: the kernel sends SIGHUP to those that still use it."""
        for reader in self._readers:
            reader.close()
        self._open_outputs = 0
        if self.terminal is not None:
            self.terminal.close()
        self._settle()

    def abandon(self) -> None:
        """Release every descriptor, whatever state the process is in."""
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        self.close()
        self.child.close()
        self.done.cancel()
