"""Attendance: who is active, whose window counts, and who hears of what."""

from procd.services.pty.presence import SMALLEST, Attendance, Member


class Pty:
    """A terminal that tells what becomes of it."""

    def __init__(self, policy: str) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.changes = 0
        self.dropped: list[tuple[str, str]] = []
        self.heard: list[tuple[str, bool]] = []
        self.attendance = Attendance(policy, self._resize, self._changed)

    def _resize(self, cols: int, rows: int) -> None:
        self.sizes.append((cols, rows))

    def _changed(self) -> None:
        self.changes += 1

    def join(self, name: str, *, may_write: bool = True, hears: bool = False) -> Member:
        """Have somebody attach."""

        def changed(at_once: bool) -> None:
            self.heard.append((name, at_once))

        def drop(who: str) -> None:
            self.dropped.append((name, who))

        member = Member(name, may_write, drop, changed if hears else None)
        self.attendance.join(member)
        return member


def test_who_is_active() -> None:
    """The first who may write, who typed or told a size last, and then the latest of those left."""
    pty = Pty("latest")
    attendance = pty.attendance
    assert attendance.active == 0
    viewer = pty.join("viewer", may_write=False)
    assert attendance.active == 0
    first, other, second, third = (pty.join(name) for name in ("1", "other", "2", "3"))
    assert attendance.members == [viewer, first, other, second, third]
    assert len({member.number for member in attendance.members}) == 5
    assert attendance.active == first.number
    changes = pty.changes
    assert not attendance.typed(first)
    assert pty.changes == changes, "nothing is new"
    assert attendance.typed(second)
    assert (attendance.active, pty.changes) == (second.number, changes + 1)
    attendance.sized(first, (80, 24), visible=False)
    attendance.sized(viewer, (80, 24), visible=True)
    assert attendance.active == second.number
    attendance.sized(first, (80, 24), visible=True)
    assert attendance.active == first.number
    attendance.leave(second)
    assert attendance.active == first.number
    attendance.leave(first)
    assert attendance.active == third.number
    changes = pty.changes
    attendance.leave(first)
    assert pty.changes == changes
    attendance.leave(third)
    assert attendance.active == other.number
    attendance.leave(other)
    assert attendance.active == 0
    assert attendance.members == [viewer]


def test_the_latest_size_counts() -> None:
    """Of who may write and may be looked at; nobody's by leaving."""
    pty = Pty("latest")
    viewer, first, second = pty.join("v", may_write=False), pty.join("1"), pty.join("2")
    third = pty.join("3")
    for member, size, visible in (
        (first, (80, 24), True), (second, (100, 50), True), (viewer, (1, 1), True),
        (third, (2, 2), False),
    ):  # fmt: skip
        pty.attendance.sized(member, size, visible=visible)
    pty.attendance.leave(second)
    assert pty.sizes == [(80, 24), (100, 50)]


def test_the_smallest_size_counts() -> None:
    """Of each side, and only of windows that count, as long as they do."""
    pty = Pty(SMALLEST)
    viewer, silent, first, second = (
        pty.join("v", may_write=False), pty.join("s"), pty.join("1"), pty.join("2"),
    )  # fmt: skip
    pty.attendance.sized(viewer, (1, 1), visible=True)
    assert pty.sizes == []
    pty.attendance.sized(first, (80, 24), visible=True)
    pty.attendance.sized(second, (60, 50), visible=True)
    assert pty.sizes.pop() == (60, 24)
    pty.attendance.sized(first, (80, 24), visible=False)
    assert pty.sizes.pop() == (60, 50)
    pty.sizes.clear()
    for member in first, viewer, silent:
        pty.attendance.leave(member)
    assert pty.sizes == []
    third = pty.join("3")
    pty.attendance.sized(third, (100, 40), visible=True)
    pty.attendance.leave(second)
    assert pty.sizes == [(60, 40), (100, 40)]
    pty.attendance.leave(third)
    assert pty.sizes == [(60, 40), (100, 40)], "nobody is left to agree with"


def test_who_asked_for_it_hears_of_each_change() -> None:
    """Together with what else changes in the same turn, unless it is to be at once."""
    pty = Pty("latest")
    attendance = pty.attendance
    pty.join("asked", hears=True)
    assert pty.heard == [("asked", False)]
    for change in (
        lambda: pty.join("other"),
        lambda: attendance.typed(attendance.members[-1]),
        lambda: attendance.sized(attendance.members[-1], (80, 24), visible=True),
        lambda: attendance.leave(attendance.members[-1]),
    ):
        pty.heard.clear()
        changes = pty.changes
        attendance.told = b"what they were told"
        change()
        assert pty.heard == [("asked", False)]
        assert (pty.changes, attendance.told) == (changes + 1, b"")
    pty.heard.clear()
    attendance.tell(at_once=True)
    assert pty.heard == [("asked", True)]


def test_who_takes_over_sends_away_who_may_write() -> None:
    pty = Pty("latest")
    pty.join("viewer", may_write=False)
    pty.join("first")
    pty.attendance.take_over(pty.join("second"))
    assert pty.dropped == [("first", "second")]
