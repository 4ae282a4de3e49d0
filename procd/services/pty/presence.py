"""Who is attached to a PTY, the sizes of their windows, and which of them counts.

Clients of the contract only read and type. One that asked for it (see api/attendant) also tells its
window's size, hears who else is there, and may take the PTY over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SMALLEST: Final = "smallest"


@dataclass(slots=True, eq=False)
class Member:
    """One attached client.

    Attributes:
        may_write: whether it types and resizes, or only looks on.
        drop: ends its connection, given the name of who took over.
        changed: told of every change here, and whether its client is to hear of it at once; None
            for a client that didn't ask.
        number: which one it is, set when it joins.
        size: columns and rows of its window, if it told.
        visible: whether somebody may be looking at that window.
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
        """Whether its size is one of those to agree on."""
        return self.may_write and self.visible and self.size is not None


class Attendance:
    """The members of one PTY.

    Args:
        policy: `latest`: the size told last counts (contract, section 10.5); `smallest`: the
            smallest window of those that are visible.
        resize: gives the PTY a size.
        changed: told of every change, besides the members.

    Attributes:
        active: the number of the member that typed or told its size last, and whose terminal
            therefore answers the program's questions; 0 for none.
        told: what members are told of the last change, for whoever makes that to keep; empty until
            then.
    """

    def __init__(
        self, policy: str, resize: Callable[[int, int], object], changed: Callable[[], None]
    ) -> None:
        self.policy = policy
        self.active = 0
        self.told = b""
        self._resize = resize
        self._changed = changed
        self._last_number = 0
        self._members: dict[int, Member] = {}

    @property
    def members(self) -> list[Member]:
        """All members, oldest first."""
        return list(self._members.values())

    def join(self, member: Member) -> None:
        """Add a member."""
        self._last_number += 1
        member.number = self._last_number
        self._members[member.number] = member
        if member.may_write and self.active not in self._members:
            self.active = member.number
        self.tell()

    def leave(self, member: Member) -> None:
        """Remove a member; a second time does nothing."""
        if self._members.pop(member.number, None) is None:
            return
        if self.active == member.number:
            writers = [each.number for each in self.members if each.may_write]
            self.active = writers[-1] if writers else 0
        self.tell()
        if member.counts and self.policy == SMALLEST:
            self._agree()

    def typed(self, member: Member) -> bool:
        """Note that `member`, who may write, has typed; whether another was active before."""
        if self.active == member.number:
            return False
        self.active = member.number
        self.tell()
        return True

    def sized(self, member: Member, size: tuple[int, int], *, visible: bool) -> None:
        """Note the size of a member's window; it counts if the member may write."""
        member.size, member.visible = size, visible
        if member.may_write and visible:
            self.active = member.number
        self.tell()
        if not member.may_write:
            return
        if self.policy == SMALLEST:
            self._agree()
        elif visible:
            self._resize(*size)

    def take_over(self, member: Member) -> None:
        """Send away all others that may write."""
        for other in self.members:
            if other is not member and other.may_write:
                other.drop(member.name)

    def tell(self, *, at_once: bool = False) -> None:
        """Let the members know that something here has changed.

        Args:
            at_once: and not in the next turn, together with what else has changed by then.
        """
        self.told = b""
        self._changed()
        for member in self.members:
            if member.changed is not None:
                member.changed(at_once)

    def _agree(self) -> None:
        sizes = [each.size for each in self.members if each.counts and each.size]
        if sizes:
            self._resize(min(cols for cols, _ in sizes), min(rows for _, rows in sizes))
