"""Process: one supervised process, with its exit, its tree, its log and its terminal."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from signal import SIGINT
from typing import Final

from procd.output.buffer import Buffer
from procd.output.log import Log, Store
from procd.process import cgroup, tags
from procd.process.child import Child, ExitStatus
from procd.process.io import LARGE_PIPE_BYTES, READ_BYTES, TTY_READ_BYTES, FdReader, FdWriter
from procd.process.tree import KILL_WAIT_S, Tree, Trees
from procd.process.tty import Terminal, set_window_size
from procd.unix.fd import OwnedFd
from procd.unix.pidfd import wait_ended
from procd.unix.procfs import stat_of

STDOUT: Final = 1
STDERR: Final = 2

# The capacity of a terminal, as measured. No more is read when the time after the exit is over: a
# background child may go on writing, and its output mustn't push the program's out of the log.
TTY_CAPACITY_BYTES: Final = 24 << 10


@dataclass(slots=True)
class ProcessRecord:
    """The plain facts about a process; `started_at` in seconds since the epoch."""

    pid: int
    tree: Tree
    started_at: float
    leaf: cgroup.Leaf | None = None
    exit: ExitStatus | None = None


class Process:
    """A process from its start until its output has ended.

    `done` is set when it has exited and its log is sealed: at the end of its output, or `drain_s`
    after the exit if a background child still has the output open. Later output of that child is
    read and dropped, so that it gets no SIGPIPE. When `on_exit` is called, the pid may be reused;
    `on_settled` is called when nothing is left to supervise.
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
        self._open_outputs = 0  # readers that haven't reached their end
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
        return self.record.exit is None

    def read(self, fd: OwnedFd, stream: int, *, read_bytes: int = READ_BYTES) -> FdReader:
        def received(data: bytes) -> None:
            if not self.log.sealed:
                self.log.append(data, stream)

        reader = self.read_apart(fd, received, read_bytes=read_bytes)
        self.log.feed_from(reader)
        return reader

    def read_apart(
        self, fd: OwnedFd, on_data: Callable[[bytes], None], *, read_bytes: int = READ_BYTES
    ) -> FdReader:
        """Read `fd` into `on_data` and not into the log; `done` waits for its end as well."""
        reader = FdReader(self._loop, fd, on_data, self._output_ended, read_bytes=read_bytes)
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
        """Read what the kernel holds into the log, also while paused."""
        most_bytes = LARGE_PIPE_BYTES if self.terminal is None else TTY_CAPACITY_BYTES
        for reader in self._readers:
            reader.drain(most_bytes)

    def pause(self) -> None:
        for reader in self._readers:
            reader.pause()

    def resume(self) -> None:
        for reader in self._readers:
            reader.resume()

    def _finish(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        if self.done.done():
            return
        self.log.seal()
        if self._open_outputs:  # a background child has them open
            for reader in self._readers:
                if not reader.ended:
                    reader.discard()
            self.log = Log(Buffer(0), 0)  # free the output
        assert self.record.exit is not None
        self.done.set_result(self.record.exit)

    async def wait(self) -> ExitStatus:
        """Wait until `done` is set; raises CancelledError after `abandon`."""
        if not self.done.done():
            await asyncio.wait([self.done])
        return self.done.result()

    def _settle(self) -> None:
        if not self.running and not self._open_outputs:
            self._on_settled(self)

    def usage(self) -> dict[str, int] | None:
        return None if self.record.leaf is None else self.record.leaf.usage()

    def poll(self) -> None:
        """Read its status now if it has ended; to be called before a timeout ends it."""
        self.child.poll()

    def signal(self, number: int) -> None:
        self.child.signal(number)

    def tag(self, part: int) -> int:
        """The tag of a part of its tree; the last 16 bits of the number count."""
        return self.record.tree.tag + (part & ((1 << tags.PART_BITS) - 1))

    def retag(self, tag: int) -> bool:
        """Have what it starts from now on carry `tag`; False if only it can do that itself."""
        leader = self.record.tree.leader
        return not leader or tags.retag(leader, tag)

    def interrupt(self, tag: int, still: Callable[[], bool]) -> None:
        """Send SIGINT to the process and those of its group with `tag`, while `still()` is true."""
        tree = self.record.tree

        def in_foreground(pid: int) -> bool:
            stat = stat_of(pid)
            return stat is not None and stat.group == tree.leader and tags.tag_of(pid) == tag

        self._trees.start_signal(
            tree, SIGINT, lambda pid: still() and (pid == tree.leader or in_foreground(pid))
        )

    async def send_signal(self, number: int) -> dict[int, int]:
        """Signal its whole tree, and continue stopped processes; returns pid → start time."""
        return await self._trees.try_signal(self.record.tree, number, wake=True)

    def kill(self) -> None:
        """Begin to kill the whole tree, with descendants in other sessions, and orphans."""
        if self._killing is not None and not self._killing.done():
            return
        if self.record.leaf is not None:
            self.record.leaf.kill()
        self._killing = self._trees.start_kill(self.record.tree)

    async def wait_killed(self) -> None:
        """Wait at most `KILL_WAIT_S` until the whole tree that `kill` kills has ended."""
        if self._killing is not None:
            await asyncio.wait([self._killing], timeout=KILL_WAIT_S)

    async def wait_then_kill(self, signalled: Mapping[int, int], grace_s: float) -> None:
        """Wait at most `grace_s` for the `signalled` processes, then kill the tree in any case."""
        try:
            await wait_ended(signalled, grace_s)
            await self._trees.turns.take()
        finally:
            self.kill()
        await self.wait_killed()

    async def end(self, number: int, grace_s: float) -> None:
        """Signal the whole tree, and kill what is left after `grace_s`, even if cancelled."""
        try:
            await self._trees.turns.take()
            await wait_ended(await self.send_signal(number), grace_s)
            await self._trees.turns.take()
        finally:
            self.kill()
        await self.wait_killed()

    def resize(self, cols: int, rows: int) -> None:
        if self.terminal is not None and not self.terminal.master.closed:
            set_window_size(self.terminal.master, cols, rows)

    def close(self) -> None:
        """Close its output and its terminal; the kernel sends SIGHUP to the terminal's session."""
        for reader in self._readers:
            reader.close()
        self._open_outputs = 0
        if self.terminal is not None:
            self.terminal.close()
        self._settle()

    def abandon(self) -> None:
        """Release every descriptor, whatever state the process is in."""
        self.close()
        self.child.close()
        self.done.cancel()
