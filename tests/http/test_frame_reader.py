"""Frames that are masked, cut anywhere, and the first that isn't."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.http.frame_reader import (
    FRAMES_A_TURN,
    LEAST_FRAMES,
    MASKED,
    NO_FRAME,
    FrameTurns,
    Incoming,
    _unmasked,
)

KEY = b"key!"


class Fed:
    """Keeps what it is fed, where aiohttp's parser would take it apart."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take some."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """There is no more."""
        self.data += b"the end"


class Tap:
    """Where it comes from."""

    def __init__(self) -> None:
        self.awaited = True
        self.held = False

    def hold(self) -> None:
        """Read no more for now."""
        self.held = True

    def release(self) -> None:
        """Read again."""
        self.held = False


def one_turn() -> FrameTurns:
    """There comes no other."""
    return FrameTurns(lambda _: None)


def turns() -> FrameTurns:
    """Those of the event loop."""
    return FrameTurns(asyncio.get_running_loop().call_soon)


def frame(size: int, *, masked: bool, wide: bool, first: int = 0x82) -> bytes:
    """A frame, binary unless `first` says else; `wide`: with a longer length than it must have."""
    bit = MASKED if masked else 0
    if size < 126 and not wide:
        length = bytes([bit | size])
    elif size < 1 << 16:
        length = bytes([bit | 126]) + size.to_bytes(2)
    else:
        length = bytes([bit | 127]) + size.to_bytes(8)
    # Any payload could be taken for a header.
    return bytes([first]) + length + (KEY if masked else b"") + b"\x02" * size


SIZES = st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 65535, 65536, 70_000]))


@given(
    sizes=st.lists(st.tuples(SIZES, st.booleans()), max_size=6),
    bad=st.none() | st.tuples(SIZES, st.booleans()),
    cuts=st.lists(st.integers(1, 20), min_size=1, max_size=30),
)
def test_all_is_passed_on_up_to_a_frame_without_a_mask(
    sizes: list[tuple[int, bool]], bad: tuple[int, bool] | None, cuts: list[int]
) -> None:
    good = b"".join(frame(size, masked=True, wide=wide) for size, wide in sizes)
    data = good
    if bad is not None:
        data += frame(bad[0], masked=False, wide=bad[1])
    fed: Any = Fed()
    guard = Incoming(fed, Tap(), one_turn())
    at = 0
    for cut in cuts:
        guard.feed_data(data[at : at + cut])
        if fed.data.endswith(NO_FRAME):
            break
        at += cut
    else:
        guard.feed_data(data[at:])
    assert fed.data == (good if bad is None else good + NO_FRAME)


@given(
    firsts=st.lists(st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x89]), max_size=8),
    cuts=st.lists(st.integers(1, 20), min_size=1, max_size=30),
)
def test_no_message_within_another(firsts: list[int], cuts: list[int]) -> None:
    """Though nothing of that has come yet."""
    data, passed, is_open, ended = b"", b"", False, False
    for first in firsts:
        data += frame(0, masked=True, wide=False, first=first)
        ended = ended or (is_open and first & 0x0F in (1, 2))
        if not ended:
            passed += frame(0, masked=True, wide=False, first=first)
            is_open = not first & 0x80 if first != 0x89 else is_open
    fed: Any = Fed()
    guard = Incoming(fed, Tap(), one_turn())
    at = 0
    for cut in [*cuts, len(data)]:
        guard.feed_data(data[at : at + cut])
        at += cut
        if fed.data.endswith(NO_FRAME):
            break
    assert fed.data == passed + NO_FRAME * ended


@pytest.mark.parametrize("first", [0x01, 0x02])
@pytest.mark.parametrize("second", [0x81, 0x82])
def test_no_message_within_another_that_comes_alone(first: int, second: int) -> None:
    begun = frame(0, masked=True, wide=False, first=first)
    fed: Any = Fed()
    guard = Incoming(fed, Tap(), one_turn())
    for data in begun, frame(0, masked=True, wide=False, first=second):
        guard.listener = lambda *_: pytest.fail("it was offered")
        guard.feed_data(data)
    assert fed.data == begun + NO_FRAME


# First bytes: of messages, or parts of some; and of Close, Ping and Pong.
MESSAGES = [0x00, 0x01, 0x02, 0x80, 0x81, 0x82]
CONTROLS = [0x88, 0x89, 0x8A]


@given(
    frames=st.lists(
        st.tuples(st.sampled_from(MESSAGES), SIZES, st.booleans())
        | st.tuples(st.sampled_from(CONTROLS), st.integers(0, 125), st.just(False)),
        max_size=8,
    ),
    bad=st.booleans(),
    cuts=st.lists(st.integers(1, 20), min_size=1, max_size=30),
)
def test_who_is_deaf_hears_control_frames(
    frames: list[tuple[int, int, bool]], bad: bool, cuts: list[int]
) -> None:
    data, heard = b"", b""
    for first, size, wide in frames:
        whole = frame(size, masked=True, wide=wide, first=first)
        data += whole
        heard += whole if first in CONTROLS else b""
    if bad:
        data += frame(1, masked=False, wide=False)
        heard += NO_FRAME
    fed: Any = Fed()
    guard = Incoming(fed, Tap(), one_turn())
    guard.deaf = True
    at = 0
    for cut in cuts:
        guard.feed_data(data[at : at + cut])
        at += cut
        if fed.data.endswith(NO_FRAME):
            break
    else:
        guard.feed_data(data[at:])
    assert fed.data == heard


@pytest.mark.parametrize(
    "nonsense",
    [b"\xc2\x81" + KEY + b"x", b"\x82\xff" + b"\xff" * 8 + KEY],
    ids=["reserved bit", "no length"],
)
def test_who_is_deaf_hears_what_is_no_frame(nonsense: bytes) -> None:
    fed: Any = Fed()
    guard = Incoming(fed, Tap(), one_turn())
    guard.deaf = True
    guard.feed_data(frame(5, masked=True, wide=False) + nonsense)
    assert fed.data == nonsense


def test_what_looks_like_a_message_within_another_is_none() -> None:
    """Though it comes alone, and somebody waits for the next message."""
    inner = frame(3, masked=True, wide=False)
    fed: Any = Fed()
    guard = Incoming(fed, Tap(), one_turn())
    begin = frame(2 * len(inner), masked=True, wide=False)[: -2 * len(inner)]
    guard.feed_data(begin)
    for _ in range(2):
        guard.listener = lambda *_: pytest.fail("it was offered")
        guard.feed_data(inner)
    offered: list[bytes] = []

    def take(data: bytes, is_text: bool) -> bool:
        offered.append(data)
        return not is_text

    guard.listener = take
    guard.feed_data(inner)
    assert offered == [_unmasked(inner)]
    assert fed.data == begin + inner + inner


def test_one_that_becomes_deaf_hears_its_frame_to_the_end() -> None:
    fed: Any = Fed()
    guard = Incoming(fed, Tap(), one_turn())
    begun, ping = (
        frame(1000, masked=True, wide=False),
        frame(1, masked=True, wide=False, first=0x89),
    )
    guard.feed_data(begun[:500])
    guard.deaf = True
    guard.feed_data(begun[500:] + begun + ping)
    assert fed.data == begun + ping


MANY = [frame(at % 4, masked=True, wide=False) for at in range(3 * FRAMES_A_TURN + 7)]


async def test_many_frames_take_turns() -> None:
    """So many of them each turn, in order, and nothing is read meanwhile."""
    fed: Any = Fed()
    tap = Tap()
    guard = Incoming(fed, tap, turns())
    guard.feed_data(b"".join(MANY) + MANY[0][:1])
    for turn in range(1, 4):
        assert fed.data == b"".join(MANY[: turn * FRAMES_A_TURN])
        assert tap.held
        await asyncio.sleep(0)
    assert fed.data == b"".join(MANY)
    assert not tap.held
    guard.feed_data(MANY[0][1:])
    assert fed.data == b"".join([*MANY, MANY[0]])


async def test_who_is_deaf_drops_them_in_turns() -> None:
    fed: Any = Fed()
    tap = Tap()
    guard = Incoming(fed, tap, turns())
    guard.deaf = True
    ping = frame(1, masked=True, wide=False, first=0x89)
    guard.feed_data(b"".join(MANY) + ping)
    for _ in range(3):
        assert tap.held
        assert fed.data == b""
        await asyncio.sleep(0)
    assert not tap.held
    assert fed.data == ping


async def test_frames_that_wait_for_room() -> None:
    """None is taken until there is some, however much more comes."""
    fed: Any = Fed()
    tap = Tap()
    guard = Incoming(fed, tap, turns())
    tap.awaited = False
    guard.feed_data(b"".join(MANY))
    await asyncio.sleep(0)
    guard.feed_data(b"".join(MANY))
    await asyncio.sleep(0)
    assert fed.data == b"".join(MANY[:FRAMES_A_TURN])
    tap.awaited = True
    for _ in range(10):
        guard.go_on()
        await asyncio.sleep(0)
    assert not tap.held
    assert fed.data == b"".join([*MANY, *MANY])


@pytest.mark.parametrize("awaited", [True, False])
async def test_the_end_comes_behind_what_waits(awaited: bool) -> None:
    """That takes its turns, though there be no room: nobody makes any."""
    fed: Any = Fed()
    tap = Tap()
    guard = Incoming(fed, tap, turns())
    guard.feed_data(b"".join(MANY))
    tap.awaited = awaited
    guard.feed_eof()
    for turn in range(1, 4):
        assert fed.data == b"".join(MANY[: turn * FRAMES_A_TURN])
        await asyncio.sleep(0)
    assert fed.data == b"".join(MANY) + b"the end"


async def test_many_clients_share_the_turns() -> None:
    """So many frames of all of them, in order; and who types a key is heard at once."""
    shared = turns()
    all_fed: list[Any] = [Fed() for _ in range(2 * FRAMES_A_TURN // LEAST_FRAMES)]
    guards = [Incoming(fed, Tap(), shared) for fed in all_fed]
    frames = [frame(0, masked=True, wide=False)] * 3 * LEAST_FRAMES
    size = len(frames[0])

    def taken() -> list[int]:
        return [len(fed.data) // size for fed in all_fed]

    for guard in guards:
        guard.feed_data(b"".join(frames))
    was = [0] * len(guards)
    while sum(was) < len(guards) * len(frames):
        now = taken()
        assert sum(now) - sum(was) == FRAMES_A_TURN
        key: Any = Fed()
        Incoming(key, Tap(), shared).feed_data(frames[0])
        assert key.data == frames[0]
        await asyncio.sleep(0)
        was = now
    assert all(fed.data == b"".join(frames) for fed in all_fed)


async def test_each_turn_has_its_own_frames() -> None:
    """However many were taken in the one before."""
    shared = turns()
    fed: Any = Fed()
    Incoming(fed, Tap(), shared).feed_data(b"".join(MANY[:FRAMES_A_TURN]))
    assert shared.left == 0
    await asyncio.sleep(0)
    assert shared.left == FRAMES_A_TURN


async def test_two_who_send_much_have_as_many_turns() -> None:
    """The first is waiting again before the second has had its own."""
    shared = turns()
    all_fed: list[Any] = [Fed() for _ in range(2)]
    guards = [Incoming(fed, Tap(), shared) for fed in all_fed]
    shared.spend(FRAMES_A_TURN)
    for guard in guards:
        guard.feed_data(MANY[0] * (4 * FRAMES_A_TURN))
    for turn in range(1, 4):
        await asyncio.sleep(0)
        taken = [len(fed.data) // len(MANY[0]) for fed in all_fed]
        assert taken == [turn * FRAMES_A_TURN // 2] * 2


async def test_who_is_often_told_to_go_on_has_no_more_turns() -> None:
    async def taken(times: int) -> list[int]:
        """How much of each of two is taken in a turn, the first of which is told so often."""
        shared = turns()
        all_fed: list[Any] = [Fed() for _ in range(2)]
        guards = [Incoming(fed, Tap(), shared) for fed in all_fed]
        for guard in guards:
            guard.feed_data(MANY[0] * (2 * FRAMES_A_TURN))
        for _ in range(times):
            guards[0].go_on()
        await asyncio.sleep(0)
        return [len(fed.data) for fed in all_fed]

    assert await taken(9) == await taken(0)


async def test_who_has_few_frames_leaves_the_others_no_more_than_there_are() -> None:
    shared = turns()
    all_fed: list[Any] = [Fed() for _ in range(20)]
    guards = [Incoming(fed, Tap(), shared) for fed in all_fed]
    shared.spend(FRAMES_A_TURN)
    for guard, frames in zip(guards, [3] + [FRAMES_A_TURN] * 19, strict=True):
        guard.feed_data(MANY[0] * frames)
    await asyncio.sleep(0)
    assert sum(len(fed.data) for fed in all_fed) == FRAMES_A_TURN * len(MANY[0])


def test_others_have_their_turns_though_one_fails() -> None:
    """As where there is no memory."""
    called: list[Callable[[], None]] = []
    shared = FrameTurns(called.append)
    poor: Any = Fed()
    fed: Any = Fed()
    guards = [Incoming(each, Tap(), shared) for each in (poor, fed)]
    shared.spend(FRAMES_A_TURN)
    for guard in guards:
        guard.feed_data(b"".join(MANY[:2]))

    def refuse(_: bytes) -> None:
        raise MemoryError

    poor.feed_data = refuse
    with pytest.raises(MemoryError):
        called.pop()()
    called.pop()()
    assert fed.data == b"".join(MANY[:2])


async def test_who_has_few_frames_waits_for_some_of_many() -> None:
    shared = turns()
    many = [Incoming(Fed(), Tap(), shared) for _ in range(10)]  # type: ignore[arg-type]
    for guard in many:
        guard.feed_data(b"".join(MANY))
    few: Any = Fed()
    Incoming(few, Tap(), shared).feed_data(b"".join(MANY[:3]))
    for _ in range(len(many) * LEAST_FRAMES // FRAMES_A_TURN + 1):
        assert few.data == b""
        await asyncio.sleep(0)
    assert few.data == b"".join(MANY[:3])


@given(payload=st.binary(max_size=125), key=st.binary(min_size=4, max_size=4), text=st.booleans())
def test_a_short_message_is_offered_as_it_was_before_its_mask(
    payload: bytes, key: bytes, text: bool
) -> None:
    hidden = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    data = bytes([0x81 if text else 0x82, MASKED | len(payload)]) + key + hidden
    fed: Any = Fed()
    guard = Incoming(fed, Tap(), one_turn())
    offered: list[tuple[bytes, bool]] = []

    def listener(message: bytes, is_text: bool) -> bool:
        offered.append((message, is_text))
        return len(offered) < 3

    guard.listener = listener
    for _ in range(4):
        guard.feed_data(data)
    # The third wasn't taken: the parser has it, and what follows comes after it.
    assert offered == [(payload, text)] * 3
    assert fed.data == data * 2


@pytest.mark.parametrize(
    "data",
    {
        "ping": frame(2, masked=True, wide=False, first=0x89),
        "close": frame(2, masked=True, wide=False, first=0x88),
        "begun": frame(2, masked=True, wide=False, first=0x02),
        "compressed": frame(2, masked=True, wide=False, first=0xC2),
        "two": frame(2, masked=True, wide=False) * 2,
        "long": frame(126, masked=True, wide=False),
        "wide": frame(2, masked=True, wide=True),
        "half": frame(2, masked=True, wide=False)[:-1],
        "begun, as long as a short one": frame(1000, masked=True, wide=False)[: 2 + 4 + 126],
    }.values(),
)
def test_all_else_is_for_the_parser(data: bytes) -> None:
    fed: Any = Fed()
    guard = Incoming(fed, Tap(), one_turn())
    guard.listener = lambda *_: pytest.fail("it was offered")
    guard.feed_data(data)
    assert fed.data == data
    assert guard.listener is None


class Refusing(Fed):
    """Refuses the first that it is fed."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take it, and no more."""
        super().feed_data(data)
        return True, b""


@pytest.mark.parametrize(
    "nonsense", [frame(1, masked=True, wide=False, first=0xC2), frame(1, masked=False, wide=False)]
)
@pytest.mark.parametrize("end", ["close", "close behind another frame", "eof"])
async def test_who_was_refused_is_waited_for_until_it_answers(nonsense: bytes, end: str) -> None:
    """What else it sends is dropped."""
    parser: Any = Refusing()
    guard = Incoming(parser, Tap(), one_turn())
    guard.feed_data(nonsense)
    refused = parser.data
    waiting = asyncio.ensure_future(guard.answered(60))
    ping = frame(1, masked=True, wide=False, first=0x89)
    close = frame(2, masked=True, wide=False, first=0x88)
    for data in ping, ping + ping:
        guard.feed_data(data)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    if end == "eof":
        guard.feed_eof()
    else:
        guard.feed_data(close if end == "close" else ping + close)
    async with asyncio.timeout(10):
        await waiting
    assert parser.data.removesuffix(b"the end") == refused


async def test_who_was_refused_is_waited_for_until_it_is_silent() -> None:
    """For as long as it sends something, the wait begins anew."""
    silence_s = 0.05
    guard = Incoming(Refusing(), Tap(), one_turn())  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    begin = loop.time()
    guard.feed_data(b"\xff")
    loop.call_later(silence_s / 2, guard.feed_data, b"\xff")
    async with asyncio.timeout(10):
        await guard.answered(silence_s)
    assert loop.time() >= begin + 1.5 * silence_s
