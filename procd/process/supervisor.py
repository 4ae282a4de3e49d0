"""Processes: everything that procd has started and still supervises.

How each kind is started (with pipes, reading from us, on a terminal), under which limits, and how
all of them are ended.
"""

import asyncio
import itertools
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Final, NamedTuple

from procd.config import ProcessConfig
from procd.errors import Exhausted, SpawnFailed
from procd.metrics import Histogram
from procd.output.budget import Budget
from procd.output.log import Log, Store
from procd.process import cgroup, tags
from procd.process import tree as proctree
from procd.process.hurry import Hurry
from procd.process.limits import confinement
from procd.process.memory import memory_bytes
from procd.process.placement import Placement
from procd.process.poller import Poller
from procd.process.process import STDERR, STDOUT, Process, ProcessRecord
from procd.process.reaper import Orphans
from procd.process.spawn import Spec
from procd.process.spawn_rate import SpawnRate
from procd.process.starts import Starts, Steps, at_once
from procd.process.tree import Forest, Tree
from procd.process.trees import Trees
from procd.process.tty import open_pty
from procd.tasks import Tasks
from procd.throttle import Turns
from procd.unix.fd import OwnedFd, may_last, pipes
from procd.unix.malloc import Heap

log = logging.getLogger(__name__)

# How many that last are started in a turn of the event loop. Each keeps it until the child, which
# has no precedence, has found a processor and become its program (vfork).
SPAWNS: Final = 1
# How long the exits of trees that have been killed may take to be heard of.
EXIT_WAIT_S: Final = 0.5
# Buckets of the time that a start takes.
SPAWN_BOUNDS_S: Final = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.064, 0.256, 1.0)


class Apart(NamedTuple):
    """The reading end of a further pipe, and what is called with what comes by it."""

    fd: OwnedFd
    on_data: Callable[[bytes], None]


class Processes:
    """All supervised processes, and what they share: limits, memory, turns, the cgroups' root."""

    def __init__(self, config: ProcessConfig) -> None:
        self.config = config
        self.tasks = Tasks()
        # To start a process keeps the event loop: whoever starts many awaits `turns.take()` first.
        self.turns = Turns(SPAWNS)
        self.starts = Starts()
        self._hurry, self._placement = Hurry(), Placement()
        self.pids: dict[int, Process] = {}
        self.trees = Trees(self.pids, self.tasks)
        self.spawn_times = Histogram(SPAWN_BOUNDS_S)
        self._unsettled: set[Process] = set()
        self._unseen = 0  # how many have been started in this turn and are not among those yet
        run_shift = tags.PROCESS_BITS + tags.PART_BITS
        self._run_tag = tags.TAG_BASE + (secrets.randbits(tags.RUN_BITS) << run_shift)
        self._tags = itertools.count(self._run_tag + (1 << tags.PART_BITS), 1 << tags.PART_BITS)
        self.confinement = confinement(config)
        loop = asyncio.get_running_loop()
        self.heap = Heap(loop)
        self.memory = Budget(config.total_output_bytes(memory_bytes()), self.heap.freed)
        self._spawn_rate = SpawnRate(loop.time, config.max_spawns_per_s, config.spawn_burst)
        self._cgroups = cgroup.find_root(config.cgroup)
        if limits := cgroup.wanted_limits(config):
            if self._cgroups is None:
                log.warning("no cgroup v2 is delegated: %s are not set", ", ".join(limits))
            else:
                self._cgroups = self._cgroups.limited(limits, os.getpid())
        if (hard := tags.obstacle()) is not None:
            log.warning("process trees can't be marked, as the hard RLIMIT_RTTIME is %d", hard)
        self._leaves: set[cgroup.Leaf] = set()
        self._closing = False  # nothing is started any more
        proctree.become_subreaper()
        self.poller = Poller(loop)
        self.orphans = Orphans(self.pids, self.trees.looks, self.tasks, self._remove_leaves)

    def check_memory(self, size: int = 0) -> None:
        """Refuse to begin what would have output of its own to keep, and `size` bytes beside it.

        Raises:
            Exhausted: `process.max_total_output_bytes` are kept.
        """
        if self.memory.has_room(size):
            return
        self.memory.relieve(size)
        if not self.memory.has_room(size):
            most = self.memory.most_bytes
            raise Exhausted(f"limit of {most} bytes of output held in memory is reached")

    def check_descriptors(self) -> None:
        """Refuse to begin what would last, where few descriptors are left.

        Raises:
            Exhausted: those that are left are for what takes a moment.
            SpawnFailed: how many there are can't be known.
        """
        try:
            if may_last():
                return
        except OSError as exc:
            raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc
        raise Exhausted("limit of open files is reached: those left are for commands")

    def starting(
        self,
        argv: tuple[str, ...],
        *,
        cwd: str,
        env: Mapping[str, str],
        output: Log[Store],
        stdin: OwnedFd | None = None,
        passed: Sequence[OwnedFd] = (),
        apart: Apart | None = None,
        long_lived: bool = False,
        merged: bool = False,
    ) -> Steps[Process]:
        """Start a command with a pipe each for stdout and stderr, in steps.

        Args:
            stdin: becomes the child's input, instead of /dev/null; closed here.
            passed: become the child's descriptors from 3 on; closed here.
            apart: is read besides, and not into the log; closed if it can't be started.
            long_lived: it is worth a cgroup of its own, where there is a root for them, and leaves
                descriptors to what isn't.
            merged: one pipe is both, as stdout, so that the order of what comes is exact.

        Raises:
            SpawnFailed: it can't be started; nothing is left behind.
            Exhausted: `process.max_processes` are supervised, or few descriptors are left.
        """
        theirs = [*passed] if stdin is None else [stdin, *passed]
        ours = [] if apart is None else [apart.fd]
        try:
            if long_lived:
                self.check_descriptors()
            try:
                readings, writings = pipes(1 if merged else 2)
                ours += readings
                theirs += writings
                if not merged:
                    self.poller.arrivals.watch(*readings)
                for writing in writings:
                    self.confinement.give(writing.number)
            except OSError as exc:
                raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc
            stdio = (
                os.devnull if stdin is None else stdin.number,
                writings[0].number,
                writings[-1].number,
                *[fd.number for fd in passed],
            )
            spec = Spec(argv=argv, cwd=cwd, env=env, stdio=stdio)
            more = yield
            process = yield from self._start(spec, output, long_lived=long_lived, more=more)
            self._read(process, readings, apart)
        except BaseException:
            for fd in ours:
                fd.close()
            raise
        finally:
            for fd in theirs:
                fd.close()
        return process

    # For who starts one alone: it is there before anybody else gets a turn.
    spawn = at_once(starting)

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
            Exhausted: `process.max_processes` are supervised, or few descriptors are left.
        """
        self.check_descriptors()
        master: OwnedFd | None = None
        try:
            master, slave = open_pty(cols, rows)
            self.confinement.give(slave)
            # Opened by path it becomes the controlling terminal; 1 and 2 are copies of 0.
            spec = Spec(argv=argv, cwd=cwd, env=env, stdio=(slave, 0, 0))
            process = at_once(self._start)(spec, output, master=master, long_lived=True)
            self._read(process, (master,))
        except BaseException as exc:
            if master is not None:
                master.close()
            if isinstance(exc, OSError):
                place = f"{exc.filename}: " if exc.filename else ""
                raise SpawnFailed(f"cannot start a process: {place}{exc.strerror}") from exc
            raise
        return process

    def _read(
        self, process: Process, readings: Sequence[OwnedFd], apart: Apart | None = None
    ) -> None:
        try:
            for stream, reading in zip((STDOUT, STDERR), readings, strict=False):
                process.read_from(reading, stream)
            if apart is not None:
                process.read_apart(apart.fd, apart.on_data)
        except BaseException as exc:
            process.kill()
            process.hang_up()
            if isinstance(exc, OSError):
                raise SpawnFailed(f"cannot supervise a process: {exc.strerror}") from exc
            raise

    def _start(
        self,
        spec: Spec,
        output: Log[Store],
        *,
        master: OwnedFd | None = None,
        long_lived: bool,
        more: bool | None = None,
    ) -> Steps[Process]:
        if self._closing:
            raise SpawnFailed("cannot start a process: procd is stopping")
        if len(self._unsettled) + self._unseen >= self.config.max_processes:
            raise Exhausted(f"limit of {self.config.max_processes} processes is reached")
        self._spawn_rate.take()
        tag = next(self._tags)
        leaf = self._leaf(tag, long_lived=long_lived)
        entrance = leaf.entrance if leaf is not None else ()
        spec.owner, spec.umask = self.confinement.owner, self.confinement.umask
        spec.wrappers = entrance + self.confinement.wrappers
        tree = Tree(0, tag, tags.PROCESS_MASK)
        try:
            begin = time.perf_counter()
            tree.leader = pid = self._hurry.spawn(spec, tag)
            self.spawn_times.add(time.perf_counter() - begin)
            if more and not spec.wrappers:  # which may make it another user's, not ours to move
                self._placement.send_off(tree)
            self._unseen += 1
            try:
                yield
            finally:
                self._unseen -= 1
            record = ProcessRecord(pid=pid, tree=tree, started_at=time.time(), leaf=leaf)
            process = Process(self, record, output, master=master)
            self._unsettled.add(process)
            self.pids[pid] = process
        except SpawnFailed:
            if leaf is not None:
                leaf.remove()
            raise
        except Exception as exc:  # no descriptor is left for the pidfd, say: take it back
            if tree.leader:  # else its pid was lost, for want of memory
                os.kill(tree.leader, signal.SIGKILL)  # /proc may not show it, if there is memory
            self.trees.start_kill(tree)  # type: ignore[unused-awaitable]  # it goes on by itself
            tree.leader = 0  # an orphan as any: once it is collected, the pid is anybody's
            if leaf is not None:
                self._leaves.add(leaf)
            if isinstance(exc, OSError):
                raise SpawnFailed(f"cannot supervise a process: {exc.strerror}") from exc
            raise
        if leaf is not None and not entrance:
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
        self.pids.pop(process.record.pid, None)  # there may have been no memory to note it

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

    def stop(self, but: Container[int] = ()) -> None:
        """Start nothing any more, and begin to kill every tree, orphans of earlier ones included.

        Args:
            but: leaders of trees that are left alone.
        """
        self._closing = True
        ended = [process for process in self._unsettled if process.record.pid not in but]
        spared = {process.record.tree.tag for process in self._unsettled.difference(ended)}
        trees = [process.record.tree for process in ended]
        killing = self.trees.start_kill(Forest(trees, self._run_tag, spared))
        for process in ended:
            process.kill(along=killing)

    async def aclose(self, within_s: float = proctree.KILL_WAIT_S) -> None:
        """End every tree, and supervise nothing any more; what won't end in time is let go."""
        self.stop()
        exits = [process.done for process in self._unsettled]
        # Trees end in tasks, those of processes that are forgotten by now among them.
        await self.tasks.aclose(within_s)
        if exits:
            await asyncio.wait(exits, timeout=EXIT_WAIT_S)
        for process in list(self._unsettled):
            process.abandon()
        self.orphans.close()
        await self.tasks.aclose(EXIT_WAIT_S)
        self.poller.close()
        self.heap.close()
