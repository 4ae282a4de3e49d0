"""Process: one supervised process, with its child, its exit, its tree and its log.

Execute, PTYs and whatever else runs something are made of this. What a successor of procd would
have to be told is plain data in `ProcessRecord`; each descriptor has one owner here.
"""

import asyncio
import itertools
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Final, TypeVar

from procd.config import ProcessConfig
from procd.errors import Exhausted, SpawnFailed
from procd.metrics import Durations
from procd.streams.backlog import Budget
from procd.streams.log import Log, Store
from procd.tasks import Tasks
from procd.unix import cgroup, proctree
from procd.unix.child import Child, ExitStatus
from procd.unix.confine import confinement
from procd.unix.fd import FdReader, FdWriter, OwnedFd, pipe
from procd.unix.proctree import Tree
from procd.unix.spawn import Source, Spec, spawn
from procd.unix.tty import open_pty, set_winsize

log = logging.getLogger(__name__)

STDOUT: Final = 1
STDERR: Final = 2

PIPE_BURST_BYTES: Final = 256 << 10
# With the 4,095 bytes of the read that goes beyond, this still makes one frame.
PTY_BURST_BYTES: Final = 60 << 10
# Orphans that have ended are collected this long after the first news of one, all at once.
SWEEP_DELAY_S: Final = 1.0
# Buckets of the time that a start takes.
SPAWN_BOUNDS_S: Final = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.064, 0.256, 1.0)

T = TypeVar("T")


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


class Process:
    """A process from its start until its output has ended.

    `done` is set when it has exited and its log is sealed: at the end of its output, or `drain_s`
    after the exit if a background child still holds it open. That child's later output is read and
    dropped, so that it is never stopped by a broken pipe, until `hang_up` or its own end.
    """

    def __init__(
        self,
        processes: "Processes",
        record: ProcessRecord,
        output: Log[Store],
        *,
        master: OwnedFd | None = None,
    ) -> None:
        self.record = record
        self.log = output
        self.master = master
        self.input_fd = master
        self.stdin: FdWriter | None = None
        self._processes = processes
        self._loop = asyncio.get_running_loop()
        self._readers: list[FdReader] = []
        self._drain_timer: asyncio.TimerHandle | None = None
        self._killing: asyncio.Task[None] | None = None
        self.done: asyncio.Future[ExitStatus] = self._loop.create_future()
        self._child = Child(self._loop, record.pid, self._exited)
        if master is not None:
            self.write_to(master)

    @property
    def running(self) -> bool:
        """Whether it has not exited yet."""
        return self.record.exit is None

    def write_to(self, fd: OwnedFd) -> None:
        """Take `fd` as the way to the process's standard input."""
        self.input_fd = fd
        self.stdin = FdWriter(self._loop, fd)

    def read_from(self, fd: OwnedFd, stream: int, burst_bytes: int) -> None:
        """Read `fd` into the log as `stream`."""

        def received(data: bytes) -> None:
            if not self.log.sealed:
                self.log.append(data, stream)

        if fd is self.input_fd and self.stdin is not None:
            fd.before_close = self.stdin.abandon  # one descriptor, two registrations
        self.log.feed_from(self.read_apart(fd, received, burst_bytes))

    def read_apart(
        self, fd: OwnedFd, on_data: Callable[[bytes], None], burst_bytes: int
    ) -> FdReader:
        """Read `fd` into `on_data` and not into the log; `done` waits for its end as well."""
        reader = FdReader(self._loop, fd, on_data, self._one_ended, burst_bytes=burst_bytes)
        self._readers.append(reader)
        return reader

    def _one_ended(self) -> None:
        if all(reader.ended for reader in self._readers):
            if not self.running:
                self._finish()
            self._processes.settle(self)

    def _exited(self, status: ExitStatus) -> None:
        self.record.exit = status
        self.record.tree.leader = 0
        self._processes.exited(self)
        if all(reader.ended for reader in self._readers):
            self._finish()
        else:
            self._drain_timer = self._loop.call_later(
                self._processes.config.drain_s, self._drain_over
            )
        self._processes.settle(self)

    def _drain_over(self) -> None:
        self.take_pending()
        self._finish()

    def pause(self) -> None:
        """Leave its output in the kernel, which in time stops it: for a log that isn't its own."""
        for reader in self._readers:
            reader.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        for reader in self._readers:
            reader.resume()

    def take_pending(self) -> None:
        """Move what the kernel already holds into the log."""
        for reader in self._readers:
            reader.drain()

    def _finish(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        if self.done.done():
            return
        for reader in self._readers:
            reader.resume()  # from here on it runs free, into nothing
        self.log.seal()
        assert self.record.exit is not None
        self.done.set_result(self.record.exit)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to supervise."""
        return not self.running and all(reader.ended for reader in self._readers)

    def usage(self) -> dict[str, int] | None:
        """What all in its cgroup use (see `Leaf.usage`); None if it has none of its own."""
        return None if self.record.leaf is None else self.record.leaf.usage()

    def signal_tree(self, number: int) -> None:
        """Send a signal to the process and all that descends from it."""
        for pidfd in self._processes.reach(self.record.tree, number):
            pidfd.close()

    def kill(self) -> None:
        """Begin to end the whole tree, now; `killed` waits for the end of it.

        Descendants count wherever they went: other sessions, other process groups, orphans.
        """
        if self._killing is not None and not self._killing.done():
            return
        if self.record.leaf is not None:
            self.record.leaf.kill()
        self._killing = self._processes.start_kill(self.record.tree)

    async def killed(self) -> None:
        """Wait until everything that `kill` was after has ended."""
        if self._killing is not None:
            await asyncio.wait([self._killing])

    async def end(self, number: int, grace_s: float) -> None:
        """Signal everyone, give them `grace_s` to leave, then kill; returns when all have ended."""
        reached = self._processes.reach(self.record.tree, number)
        self.signal_tree(signal.SIGCONT)  # a stopped process would not hear the first
        await proctree.ended(reached, grace_s)
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
        if self.stdin is not None and self.input_fd is not None and not self.input_fd.closed:
            self.stdin.abandon()
            self.input_fd.close()
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
        self.done.cancel()


class SpawnRate:
    """A token bucket: `burst` processes at once, and `per_s` a second on average; 0: any number.

    Args:
        now: a monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float], per_s: float, burst: int) -> None:
        self._now = now
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._filled_at = now()

    def take(self) -> None:
        """Take one.

        Raises:
            Exhausted: there is none.
        """
        if not self._per_s:
            return
        now = self._now()
        grown = self._tokens + (now - self._filled_at) * self._per_s
        self._tokens = min(float(self._burst), grown)
        self._filled_at = now
        if self._tokens < 1:
            raise Exhausted(f"limit of {self._per_s:g} new processes per second is reached")
        self._tokens -= 1


def cgroup_limits(config: ProcessConfig) -> dict[str, str]:
    """What the settings ask of every leaf: file of a controller → its content."""
    wanted = {
        "memory.max": config.memory_max_bytes,
        "pids.max": config.pids_max,
        "cpu.weight": config.cpu_weight,
    }
    return {file: str(value) for file, value in wanted.items() if value}


class Processes:
    """All supervised processes, and the orphans that they leave behind.

    procd is the reaper of its descendants' orphans. Their statuses are collected one pid at a time
    and never with a wait for any child, so that nobody's status is taken by mistake.
    """

    def __init__(self, config: ProcessConfig) -> None:
        self.config = config
        self.tasks = Tasks()
        self.pids: dict[int, Process] = {}
        self.spawns = Durations(SPAWN_BOUNDS_S)
        self._unsettled: set[Process] = set()
        run_shift = proctree.PROCESS_BITS + proctree.PART_BITS
        self._run_tag = proctree.TAG_BASE + (secrets.randbits(proctree.RUN_BITS) << run_shift)
        self._tags = itertools.count(
            self._run_tag + (1 << proctree.PART_BITS), 1 << proctree.PART_BITS
        )
        self.confinement = confinement(config)
        self.memory = Budget(config.max_total_output_bytes)
        self._loop = asyncio.get_running_loop()
        self._spawns = SpawnRate(self._loop.time, config.max_spawns_per_s, config.spawn_burst)
        self._cgroups = cgroup.find_root(config.cgroup)
        if limits := cgroup_limits(config):
            if self._cgroups is None:
                log.warning("no cgroup v2 is delegated: %s are not set", ", ".join(limits))
            else:
                self._cgroups = self._cgroups.limited(limits, os.getpid())
        self._leaves: set[cgroup.Leaf] = set()
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None
        self._sweep_wanted = False
        proctree.become_subreaper()
        self._old_handler: Any = signal.signal(signal.SIGCHLD, self._child_news)

    def check_memory(self) -> None:
        """Refuse to begin what would have output of its own to keep.

        Raises:
            Exhausted: `process.max_total_output_bytes` are kept.
        """
        if self.memory.full:
            most = self.memory.most_bytes
            raise Exhausted(f"limit of {most} bytes of output held in memory is reached")

    def spawn(
        self,
        argv: tuple[str, ...],
        *,
        cwd: str,
        env: Mapping[str, str],
        output: Log[Store],
        stdin: OwnedFd | None = None,
        passed: Sequence[OwnedFd] = (),
    ) -> Process:
        """Start a command with a pipe each for stdout and stderr.

        Args:
            stdin: becomes the child's input, instead of /dev/null; closed here.
            passed: become the child's descriptors from 3 on; closed here.

        Raises:
            SpawnFailed: it can't be started; nothing is left behind.
            Exhausted: `process.max_processes` are supervised.
        """
        with ExitStack() as theirs, ExitStack() as ours:
            for fd in passed:
                theirs.callback(fd.close)
            stdio: list[Source] = [os.devnull]
            if stdin is not None:
                theirs.callback(stdin.close)
                stdio[0] = stdin.number
            readings: list[OwnedFd] = []
            for _ in (STDOUT, STDERR):
                reading, writing = _opened(pipe)
                ours.callback(reading.close)
                theirs.callback(writing.close)
                self._give(writing.number)
                readings.append(reading)
                stdio.append(writing.number)
            stdio += [fd.number for fd in passed]
            spec = Spec(argv=argv, cwd=cwd, env=env, stdio=tuple(stdio))
            process = self._start(spec, output)
            ours.pop_all()
        for stream, reading in zip((STDOUT, STDERR), readings, strict=True):
            process.read_from(reading, stream, PIPE_BURST_BYTES)
        return process

    def spawn_reader(
        self, argv: tuple[str, ...], *, cwd: str, env: Mapping[str, str], output: Log[Store]
    ) -> Process:
        """Start a command that reads a pipe of ours and whose own output is nobody's concern.

        Raises:
            SpawnFailed: it can't be started; nothing is left behind.
            Exhausted: `process.max_processes` are supervised.
        """
        with ExitStack() as ours, ExitStack() as theirs:
            reading, writing = _opened(pipe)
            theirs.callback(reading.close)
            ours.callback(writing.close)
            self._give(reading.number)
            stdio = (reading.number, os.devnull, os.devnull)
            spec = Spec(argv=argv, cwd=cwd, env=env, stdio=stdio)
            process = self._start(spec, output, long_lived=True)
            process.write_to(writing)
            ours.pop_all()
        return process

    def spawn_pty(
        self,
        argv: tuple[str, ...],
        *,
        cwd: str,
        env: Mapping[str, str],
        output: Log[Store],
        cols: int,
        rows: int,
    ) -> Process:
        """Start a command on a terminal of its own, which is its controlling terminal.

        Raises:
            SpawnFailed: it can't be started; nothing is left behind.
            Exhausted: `process.max_processes` are supervised.
        """
        with ExitStack() as ours:
            master, slave = _opened(lambda: open_pty(cols, rows))
            ours.callback(master.close)
            self._give(slave)
            # The session leader opens the slave by path, which makes it the controlling terminal;
            # 1 and 2 are copies of 0.
            spec = Spec(argv=argv, cwd=cwd, env=env, stdio=(slave, 0, 0))
            process = self._start(spec, output, master=master, long_lived=True)
            ours.pop_all()
        process.read_from(master, STDOUT, PTY_BURST_BYTES)
        return process

    def _give(self, descriptor_or_path: int | str) -> None:
        """Let the user that children run as open a pipe or a terminal of theirs by name."""
        try:
            self.confinement.give(descriptor_or_path)
        except OSError as exc:
            raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc

    def _start(
        self,
        spec: Spec,
        output: Log[Store],
        *,
        master: OwnedFd | None = None,
        long_lived: bool = False,
    ) -> Process:
        if len(self._unsettled) >= self.config.max_processes:
            raise Exhausted(f"limit of {self.config.max_processes} processes is reached")
        self._spawns.take()
        confinement = self.confinement
        tag = next(self._tags)
        leaf = self._leaf(tag, long_lived=long_lived)
        limited = leaf is not None and bool(leaf.entrance)
        if limited or confinement.prefix or confinement.umask is not None:
            entrance = leaf.entrance if leaf is not None else ()
            argv = entrance + confinement.prefix + spec.argv
            spec = replace(spec, argv=argv, umask=confinement.umask)
        try:
            begin = time.perf_counter()
            pid = spawn(spec, tag)
            self.spawns.add(time.perf_counter() - begin)
        except SpawnFailed:
            if leaf is not None:
                leaf.remove()
            raise
        record = ProcessRecord(
            pid=pid, tree=Tree(pid, tag, proctree.PROCESS_MASK), started_at=time.time(), leaf=leaf
        )
        try:
            process = Process(self, record, output, master=master)
        except OSError as exc:  # no descriptor is left for the pidfd, for instance: take it back
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if leaf is not None:
                self._leaves.add(leaf)
            raise SpawnFailed(f"cannot supervise a process: {exc.strerror}") from exc
        self.pids[pid] = process
        self._unsettled.add(process)
        if leaf is not None and not limited:
            try:
                leaf.add(pid)
            except OSError as exc:
                log.warning("process %d has no cgroup of its own: %s", pid, exc.strerror)
        return process

    @property
    def supervised(self) -> int:
        """How many processes there are that run, or whose output is still read."""
        return len(self._unsettled)

    def _leaf(self, tag: int, *, long_lived: bool) -> cgroup.Leaf | None:
        """A cgroup of its own for a long-lived process, where there is a root for them.

        Not for every command, unless its leaf has limits: to make, enter and remove a leaf costs a
        fifth of what a whole command does, and the tag finds everyone too.
        """
        root = self._cgroups
        if root is None or not (long_lived or root.limits):
            return None
        try:
            return root.leaf(f"procd-{tag:x}")
        except OSError as exc:
            if root.limits:  # it must not run without them
                raise SpawnFailed(f"cannot limit a process: {exc.strerror}") from exc
            log.warning("the process with tag %x has no cgroup of its own: %s", tag, exc.strerror)
            return None

    def exited(self, process: Process) -> None:
        """Its status was read: from now on its pid may be anybody's."""
        del self.pids[process.record.pid]

    def settle(self, process: Process) -> None:
        """Forget a process with nothing left to supervise."""
        if process.settled:
            self._unsettled.discard(process)
            if process.record.leaf is not None:
                self._leaves.add(process.record.leaf)
                process.record.leaf = None
                self._remove_leaves()

    def _remove_leaves(self) -> None:
        """Remove the leaves that nobody is in any more; the others are tried again later."""
        self._leaves = {leaf for leaf in self._leaves if not leaf.remove()}

    def _child_news(self, number: int, frame: FrameType | None) -> None:
        # A signal handler runs in this thread, between any two instructions.
        if not self._sweep_wanted:
            self._sweep_wanted = True
            self._loop.call_soon_threadsafe(self._plan_sweep)

    def _plan_sweep(self) -> None:
        if self._closed:
            return
        self._sweep = self._loop.call_later(SWEEP_DELAY_S, self._reap_orphans)

    def _reap_orphans(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._sweep_wanted = False
        self._remove_leaves()
        for pid in proctree.own_children():
            if pid not in self.pids:
                proctree.reap(pid)

    async def aclose(self) -> None:
        """End every tree, orphans of earlier ones included, and supervise nothing any more."""
        for process in self._unsettled:
            process.kill()
        kills = [
            self.start_kill(Tree(0, tag, proctree.PROCESS_MASK)) for tag in self._orphan_tags()
        ]
        if kills:
            await asyncio.wait(kills)
        for process in list(self._unsettled):
            await process.killed()
        exits = [process.done for process in self._unsettled]
        if exits:
            await asyncio.wait(exits, timeout=proctree.KILL_WAIT_S)
        await self.tasks.aclose()
        for process in list(self._unsettled):
            process.abandon()
        signal.signal(signal.SIGCHLD, self._old_handler)
        self._closed = True
        self._reap_orphans()

    def _orphan_tags(self) -> set[int]:
        """The tags of those among our orphans whose process is no longer supervised."""
        known = {process.record.tree.tag for process in self._unsettled}
        orphans = [pid for pid in proctree.own_children() if pid not in self.pids]
        tags = {proctree.tag_of(pid) & proctree.PROCESS_MASK for pid in orphans}
        return {tag for tag in tags - known if tag & proctree.RUN_MASK == self._run_tag}

    def reach(self, tree: Tree, number: int) -> list[OwnedFd]:
        """Signal a tree; without a descriptor to spare, at least its first process group."""
        try:
            return proctree.signal_tree(tree, number, self.pids)
        except OSError as exc:
            log.warning("the tree with tag %x can't be walked: %s", tree.tag, exc.strerror)
            if tree.leader:
                os.killpg(tree.leader, number)
            return []

    def start_kill(self, tree: Tree) -> asyncio.Task[None]:
        """Kill a tree: a first round at once, those after it in a task."""
        reached = self.reach(tree, signal.SIGKILL)
        return self.tasks.run(
            proctree.finish_kill(tree, reached, self.pids), f"kill tree {tree.tag:x}"
        )


def _opened(opener: Callable[[], tuple[OwnedFd, T]]) -> tuple[OwnedFd, T]:
    try:
        return opener()
    except OSError as exc:
        raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc
