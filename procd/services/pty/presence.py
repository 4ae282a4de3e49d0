"""Who is attached to a PTY, the sizes of their windows, and which size the PTY has.

Clients of the contract only read and type. Those of api/pty_protocol also tell the size of their
window, are told who is attached, and may take the PTY over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SMALLEST: Final = "smallest"


@dataclass(slots=True, eq=False)
class Member:
    """An attached client; one that may not write is a viewer.

    `drop` ends its connection, given the name of the client that takes over. `changed` is called at
    every change, with whether the client is to be told at once; None if it didn't ask. `size` has
    the columns and rows of its window, if it told.
    """

    name: str
    may_write: bool
    drop: Callable[[str], None]
    changed: Callable[[bool], None] | None = None
    number: int = 0
    size: tuple[int, int] | None = None
    visible: bool = True

    @property
    def counts(self) -> bool:
        return self.may_write and self.visible and self.size is not None


class Presence:
    """The members of one PTY.

    With the policy `latest` the size told last counts (contract, section 10.5), with `smallest` the
    smallest of the visible windows. `active` is the number of the member that typed or told its
    size last, whose terminal answers the program's queries; 0 for none.
    """

    def __init__(
        self, policy: str, resize: Callable[[int, int], object], changed: Callable[[], None]
    ) -> None:
        self.policy = policy
        self.active = 0
        self.encoded = b""
        self._resize = resize
        self._changed = changed
        self._last_number = 0
        self.members: list[Member] = []

    def join(self, member: Member) -> None:
        self._last_number += 1
        member.number = self._last_number
        self.members.append(member)
        if member.may_write and not self.active:
            self.active = member.number
        self.notify()

    def leave(self, member: Member) -> None:
        """Remove a member; a second time does nothing."""
        if member not in self.members:
            return
        self.members.remove(member)
        if self.active == member.number:
            writers = [each.number for each in self.members if each.may_write]
            self.active = writers[-1] if writers else 0
        self.notify()
        if member.counts and self.policy == SMALLEST:
            self._apply_smallest()

    def typed(self, member: Member) -> bool:
        """Note that a member has typed. Returns whether another was active before."""
        if self.active == member.number:
            return False
        self.active = member.number
        self.notify()
        return True

    def set_size(self, member: Member, size: tuple[int, int], *, visible: bool) -> None:
        """Note the size of a member's window; it counts if the member may write."""
        member.size, member.visible = size, visible
        if member.may_write and visible:
            self.active = member.number
        self.notify()
        if member.may_write and self.policy == SMALLEST:
            self._apply_smallest()
        elif member.may_write and visible:
            self._resize(*size)

    def take_over(self, member: Member) -> None:
        """End the connections of all others that may write."""
        for other in [*self.members]:
            if other is not member and other.may_write:
                other.drop(member.name)

    def notify(self, *, at_once: bool = False) -> None:
        """Tell the members of a change, `at_once` or in the next turn with other changes."""
        self.encoded = b""
        self._changed()
        for member in [*self.members]:
            if member.changed is not None:
                member.changed(at_once)

    def _apply_smallest(self) -> None:
        sizes = [each.size for each in self.members if each.counts and each.size]
        if sizes:
            self._resize(min(cols for cols, _ in sizes), min(rows for _, rows in sizes))
