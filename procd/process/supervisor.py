"""Supervisor: starts every process, with its pipes or its terminal, and ends all of them."""

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
from procd.process.child import Child
from procd.process.limits import child_limits
from procd.process.process import STDERR, STDOUT, Process, ProcessRecord
from procd.process.reaper import Reaper
from procd.process.spawn import Spec, spawn
from procd.process.tree import KILL_WAIT_S, Tree, Trees, become_subreaper
from procd.process.tty import Terminal, open_terminal
from procd.tasks import Tasks, Turns
from procd.unix.fd import OwnedFd, has_room_for_long_lived, pipe
from procd.unix.libc import MallocTrimmer
from procd.unix.own_process import autogroup_nice
from procd.unix.procfs import stat_of

log = logging.getLogger(__name__)

# How long to wait for the exit statuses of killed processes when procd stops.
EXIT_WAIT_S: Final = 0.5
# Bounds of the histogram of the durations of starts.
SPAWN_BOUNDS_S: Final = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.064, 0.256, 1.0)


class ExtraPipe(NamedTuple):
    fd: OwnedFd
    on_data: Callable[[bytes], None]


class SpawnRate:
    """A token bucket: `burst` starts at once, and `per_s` a second on average; 0: no limit."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._filled_at = time.monotonic()

    def take(self) -> None:
        if not self._per_s:
            return
        now = time.monotonic()
        new_tokens = (now - self._filled_at) * self._per_s
        self._tokens = min(float(self._burst), self._tokens + new_tokens)
        self._filled_at = now
        if self._tokens < 1:
            raise Exhausted(f"limit of {self._per_s:g} new processes per second is reached")
        self._tokens -= 1


class Supervisor:
    """All supervised processes, and what they share: limits, memory budget, cgroup root.

    Await `turns.take()` before a start, as each start blocks the event loop.
    """

    def __init__(self, config: ProcessConfig) -> None:
        self.config = config
        self.tasks = Tasks()
        self.turns = Turns(1)
        self.children: dict[int, Child] = {}
        self.trees = Trees(self.children, self.tasks)
        self.spawn_times = Histogram(SPAWN_BOUNDS_S)
        self._unsettled: set[Process] = set()
        run_shift = tags.PROCESS_BITS + tags.PART_BITS
        self._run_tag = tags.TAG_BASE + (secrets.randbits(tags.RUN_BITS) << run_shift)
        self._tags = itertools.count(self._run_tag + (1 << tags.PART_BITS), 1 << tags.PART_BITS)
        self.child_limits = child_limits(config)
        self.loop = asyncio.get_running_loop()
        self.malloc = MallocTrimmer(self.loop)
        self.memory = Budget(config.total_output_bytes(cgroup.memory_bytes()), self.malloc.freed)
        self._spawn_rate = SpawnRate(config.max_spawns_per_s, config.spawn_burst)
        self._cgroups = cgroup.find_root(config.cgroup)
        if limits := cgroup.wanted_limits(config):
            if self._cgroups is None:
                log.warning("no cgroup v2 is delegated: %s are not set", ", ".join(limits))
            else:
                self._cgroups = self._cgroups.limited(limits, os.getpid())
        if (hard := tags.obstacle()) is not None:
            log.warning("process trees can't be tagged, as the hard RLIMIT_RTTIME is %d", hard)
        # Commands may share procd's session, unless it has a terminal (reading that would stop
        # them), its autogroup has another priority, or orphans are found by session.
        own = stat_of(os.getpid())
        self._shares_session = (
            own is not None and not own.terminal and not autogroup_nice() and hard is None
        )
        self._leaves: set[cgroup.Leaf] = set()
        self._closing = False
        become_subreaper()
        self.reaper = Reaper(self.children, self.trees.turns, self.tasks, self._remove_leaves)

    def check_memory(self, size: int = 0) -> None:
        """Refuse new work with Exhausted if its output and `size` bytes have no room."""
        if self.memory.has_room(size):
            return
        self.memory.relieve(size)
        if not self.memory.has_room(size):
            most = self.memory.most_bytes
            raise Exhausted(f"limit of {most} bytes of output held in memory is reached")

    def check_descriptors(self) -> None:
        """Refuse new long-lived work with Exhausted if few descriptors are left."""
        try:
            if has_room_for_long_lived():
                return
        except OSError as exc:
            raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc
        raise Exhausted("limit of open files is reached: those left are for commands")

    def spawn(
        self,
        argv: tuple[str, ...],
        *,
        cwd: str,
        env: Mapping[str, str],
        output: Log[Store],
        stdin: OwnedFd | None = None,
        passed: Sequence[OwnedFd] = (),
        extra: ExtraPipe | None = None,
        long_lived: bool = False,
        merged: bool = False,
        session: bool = True,
    ) -> Process:
        """Start a command whose output goes to pipes: one for stdout, one for stderr.

        Args:
            stdin: becomes the child's input, instead of /dev/null; closed here.
            passed: become the child's descriptors from 3 on; closed here.
            extra: is read as well, but not into the log; closed if the start fails.
            long_lived: it gets a cgroup of its own, if any can, but not the last descriptors.
            merged: whether both streams get one pipe, as stdout, so that their order is exact.
            session: whether it needs a session of its own. The kernel makes an autogroup for it,
                which costs as much as the rest of a start on a busy machine: sched(7).

        Raises:
            SpawnFailed: the start failed, and left nothing behind.
            Exhausted: a limit is reached.
        """
        readings: list[OwnedFd] = []
        writings: list[OwnedFd] = []
        try:
            if long_lived:
                self.check_descriptors()
            try:
                for _ in range(1 if merged else 2):
                    reading, writing = pipe()
                    readings.append(reading)
                    writings.append(writing)
                    self.child_limits.give(writing.number)
            except OSError as exc:
                raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc
            stdio = (
                os.devnull if stdin is None else stdin.number,
                writings[0].number,
                writings[-1].number,
                *[fd.number for fd in passed],
            )
            session = session or not self._shares_session
            spec = Spec(argv=argv, cwd=cwd, env=env, stdio=stdio, session=session)
            process = self._start(spec, output, long_lived=long_lived)
        except BaseException:
            for fd in readings if extra is None else [*readings, extra.fd]:
                fd.close()
            raise
        finally:
            for fd in (*writings, *passed) if stdin is None else (*writings, *passed, stdin):
                fd.close()
        if merged:
            process.read(readings[0], STDOUT)
        else:
            stdout, stderr = readings
            process.read(stdout, STDOUT).pair_with(process.read(stderr, STDERR))
        if extra is not None:
            process.read_apart(extra.fd, extra.on_data)
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
        """Start a command on its own controlling terminal; raises as `spawn`."""
        self.check_descriptors()
        terminal: Terminal | None = None
        try:
            terminal = open_terminal(cols, rows)
            self.child_limits.give(terminal.path)
            # Opened by path, it becomes the controlling terminal; 1 and 2 are duplicates of 0.
            spec = Spec(argv=argv, cwd=cwd, env=env, stdio=(terminal.path, 0, 0))
            return self._start(spec, output, terminal=terminal, long_lived=True)
        except BaseException as exc:
            if terminal is not None:
                terminal.close()
            if isinstance(exc, OSError):
                raise SpawnFailed(f"cannot start a process: {exc.strerror}") from exc
            raise

    def _start(
        self,
        spec: Spec,
        output: Log[Store],
        *,
        terminal: Terminal | None = None,
        long_lived: bool,
    ) -> Process:
        if self._closing:
            raise SpawnFailed("cannot start a process: procd is stopping")
        if len(self._unsettled) >= self.config.max_processes:
            raise Exhausted(f"limit of {self.config.max_processes} processes is reached")
        self._spawn_rate.take()
        tag = next(self._tags)
        leaf = self._leaf(tag, long_lived=long_lived)
        entrance = leaf.entrance if leaf is not None else ()
        spec.run_as, spec.umask = self.child_limits.run_as, self.child_limits.umask
        spec.wrappers = entrance + self.child_limits.wrappers
        begin = time.perf_counter()
        try:
            pid = spawn(spec, tag)
        except SpawnFailed:
            if leaf is not None:
                leaf.remove()
            raise
        self.spawn_times.add(time.perf_counter() - begin)
        tree = Tree(pid, tag, tags.PROCESS_MASK)
        record = ProcessRecord(pid=pid, tree=tree, started_at=time.time(), leaf=leaf)
        try:
            process = Process(
                record,
                output,
                self.trees,
                drain_s=self.config.drain_s,
                on_exit=self._exited,
                on_settled=self._settled,
                terminal=terminal,
            )
        except OSError as exc:  # no descriptor is left for the pidfd: undo the start
            os.kill(pid, signal.SIGKILL)
            self.trees.start_kill(tree)  # type: ignore[unused-awaitable]  # it goes on by itself
            tree.leader = 0  # like an orphan: the reaper reads its status
            if leaf is not None:
                self._leaves.add(leaf)
            raise SpawnFailed(f"cannot supervise a process: {exc.strerror}") from exc
        self._unsettled.add(process)
        self.children[pid] = process.child
        if leaf is not None and not entrance:
            try:
                leaf.add(pid)
            except OSError as exc:
                log.warning("process %d has no cgroup of its own: %s", pid, exc.strerror)
        return process

    @property
    def supervised(self) -> int:
        """How many processes run, or have output that isn't at its end."""
        return len(self._unsettled)

    def _leaf(self, tag: int, *, long_lived: bool) -> cgroup.Leaf | None:
        """Make a cgroup for a long-lived process, or for any if leaves have limits."""
        root = self._cgroups
        if root is None or not (long_lived or root.limits):
            return None
        try:
            return root.leaf(f"procd-{tag:x}")
        except OSError as exc:
            if root.limits:  # it mustn't run without them
                raise SpawnFailed(f"cannot limit a process: {exc.strerror}") from exc
            log.warning("the process with tag %x has no cgroup of its own: %s", tag, exc.strerror)
            return None

    def _exited(self, process: Process) -> None:
        del self.children[process.record.pid]

    def _settled(self, process: Process) -> None:
        self._unsettled.discard(process)
        if process.record.leaf is not None:
            self._leaves.add(process.record.leaf)
            process.record.leaf = None
            self._remove_leaves()

    def _remove_leaves(self) -> None:
        self._leaves = {leaf for leaf in self._leaves if not leaf.remove()}

    def stop(self, but: Container[int] = ()) -> None:
        """Refuse new starts, and begin to kill every tree but those with these leaders."""
        self._closing = True
        for process in self._unsettled:
            if process.record.pid not in but:
                process.kill()

    async def aclose(self, within_s: float = KILL_WAIT_S) -> None:
        """Kill every tree and release all descriptors, also of trees that don't end in time."""
        self.stop()
        # Orphans of processes that have settled.
        self.trees.start_kill(Tree(0, self._run_tag, tags.RUN_MASK))  # type: ignore[unused-awaitable]  # `tasks` waits for it
        exits = [process.done for process in self._unsettled]
        await self.tasks.aclose(within_s)
        if exits:
            await asyncio.wait(exits, timeout=EXIT_WAIT_S)
        for process in list(self._unsettled):
            process.abandon()
        self.reaper.close()
        await self.tasks.aclose(EXIT_WAIT_S)
        self.malloc.close()
