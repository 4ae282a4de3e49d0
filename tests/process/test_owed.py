"""What waits for memory, whatever who takes it does meanwhile."""

from collections.abc import Callable

import pytest

from procd.process.owed import Owed


class Taker:
    """Takes what is handed over, and does what it is told to as it gets a piece."""

    def __init__(self) -> None:
        self.owed = Owed()
        self.taken: list[bytes] = []
        self.acts: dict[bytes, Callable[[], None]] = {}

    def take(self, data: bytes) -> None:
        """Act once on each, and take it if that raises nothing."""
        if (act := self.acts.pop(data, None)) is not None:
            act()
        self.taken.append(data)

    def pay(self) -> list[bytes]:
        """What has been taken then."""
        self.owed.pay(self.take)
        return self.taken


@pytest.fixture
def taker() -> Taker:
    """Who is owed two pieces."""
    made = Taker()
    made.owed.add(b"one")
    made.owed.add(b"two")
    return made


def short() -> None:
    """Have no memory."""
    raise MemoryError


def test_oldest_first(taker: Taker) -> None:
    """Those that are put first are older."""
    taker.owed.put_first([b"before", b"and"])
    assert taker.pay() == [b"before", b"and", b"one", b"two"]
    assert not taker.owed
    taker.owed.put_first([b"three"])
    taker.owed.add(b"four")
    assert taker.pay()[4:] == [b"three", b"four"]


@pytest.mark.parametrize("which", [b"one", b"two"])
def test_no_memory_for_one(taker: Taker, which: bytes) -> None:
    """It waits with those that follow."""
    taker.acts[which] = short
    with pytest.raises(MemoryError):
        taker.pay()
    assert taker.owed
    assert taker.pay() == [b"one", b"two"]


def test_who_takes_one_pays_the_rest(taker: Taker) -> None:
    """None is taken twice, and what waits by then comes after."""

    def act() -> None:
        taker.pay()
        taker.owed.add(b"three")

    taker.acts[b"one"] = act
    assert taker.pay() == [b"two", b"one", b"three"]
    assert not taker.owed


def test_who_takes_one_is_owed_more(taker: Taker) -> None:
    """It comes in its turn."""
    taker.acts[b"two"] = lambda: taker.owed.add(b"three")
    assert taker.pay() == [b"one", b"two", b"three"]


@pytest.mark.parametrize("is_short", [False, True])
def test_who_takes_one_wants_no_more(taker: Taker, is_short: bool) -> None:
    """Nothing more comes, that one neither if there was no memory for it."""

    def act() -> None:
        taker.owed.clear()
        if is_short:
            raise MemoryError

    taker.acts[b"one"] = act
    if is_short:
        with pytest.raises(MemoryError):
            taker.pay()
    assert taker.pay() == ([] if is_short else [b"one"])
    assert not taker.owed
