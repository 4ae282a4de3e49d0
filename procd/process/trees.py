"""Trees: whole trees of processes are signalled and ended, in turns of the event loop."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol

from procd.process import tree as proctree
from procd.process.sudo import Relays
from procd.process.tree import Forest, Tree
from procd.tasks import Tasks
from procd.throttle import Turns

log = logging.getLogger(__name__)

Only = Callable[[int], bool]


class Leader(Protocol):
    """The first process of a tree."""

    def signal(self, number: int) -> None:
        """Send it a signal; after its end, do nothing."""


class Trees:
    """Reaches all processes of a tree, and leaves turns to others where there are many.

    Args:
        supervised: the leaders of all trees by pid, until their status is read.

    Attributes:
        looks: the turns in which trees are searched. Whoever has one signalled or ended takes a
            turn first; who starts a process takes none of these.
    """

    def __init__(self, supervised: Mapping[int, Leader], tasks: Tasks) -> None:
        self._supervised = supervised
        self._tasks = tasks
        self.looks = Turns()

    async def tell(
        self,
        tree: Tree,
        number: int,
        only: Only | None = None,
        *,
        wakes: bool = False,
        relays: Relays | None = None,
    ) -> dict[int, int]:
        """Signal a tree, or `only` some of it; if nobody can look, its first process group.

        Args:
            wakes: whether who is stopped is continued, to hear it.
            relays: those that are asked before the signal, which is SIGKILL; gets whom it finds.

        Returns:
            Those that are known to have got it: pid → start time.
        """
        reached: dict[int, int] = {}
        await self.looks.spread(
            self._reach(tree, number, reached, only, wakes=wakes, relays=relays)
        )
        return reached

    def start_telling(self, tree: Tree, number: int, only: Only) -> None:
        """As `tell`, at once if the tree is small."""
        steps = self._reach(tree, number, {}, only)
        self.looks.begin(steps)
        self._tasks.start(self.looks.finish(steps), f"signal tree {tree.tag:x}")

    async def signal(self, tree: Tree, number: int) -> None:
        """Signal all of a tree, whatever becomes of the caller.

        Raises:
            OSError: no descriptor is left to look for them with; some may have got it.
            MemoryError: there is no memory to; likewise.
        """
        steps = proctree.signal_tree(tree, number, self._supervised, {})
        self.looks.begin(steps)
        await self._tasks.finish(self.looks.finish(steps), f"signal tree {tree.tag:x}")

    def start_kill(self, tree: Tree | Forest) -> asyncio.Task[None]:
        """Kill a tree: the first piece of a first round at once, what follows in a task."""
        reached: dict[int, int] = {}
        relays = Relays()
        first = self._kill_once(tree, reached, relays)
        self.looks.begin(first)
        killing = proctree.finish_kill(tree, first, reached, relays, self._supervised, self.looks)
        return self._tasks.run(killing, f"kill tree {tree.tag:x}")

    async def end(self, tree: Tree) -> None:
        """Kill a tree; returns when it has ended, or after `KILL_WAIT_S`: the kill goes on then."""
        await self.looks.take()
        await asyncio.wait([self.start_kill(tree)], timeout=proctree.KILL_WAIT_S)

    async def emptied(self, tree: Tree) -> None:
        """Wait until nobody is in a tree any more."""
        await proctree.emptied(tree, self._supervised, self.looks)

    def _reach(
        self,
        tree: Tree | Forest,
        number: int,
        reached: dict[int, int],
        only: Only | None = None,
        *,
        wakes: bool = False,
        relays: Relays | None = None,
    ) -> Iterator[None]:
        try:
            yield from proctree.signal_tree(
                tree, number, self._supervised, reached, only=only, wakes=wakes, relays=relays
            )
        except (OSError, MemoryError) as exc:
            for leader in tree.leaders:
                with suppress(OSError):  # it isn't ours to signal
                    os.killpg(leader, number)
            log.warning("the tree with tag %x can't be walked: %r", tree.tag, exc)

    def _kill_once(
        self, tree: Tree | Forest, reached: dict[int, int], relays: Relays
    ) -> Iterator[None]:
        try:
            yield from self._reach(tree, signal.SIGKILL, reached, relays=relays)
        finally:
            # Whom /proc hides.
            for leader in (tree.leaders & self._supervised.keys()) - reached.keys():
                self._supervised[leader].signal(signal.SIGKILL)
