"""Output as text: what becomes of characters and of gaps."""

from procd.api.reply import EVERY_STREAM, OutputText
from procd.process import STDERR, STDOUT
from procd.streams.backlog import Backlog


def output(cap_bytes: int, *said: tuple[int, bytes]) -> Backlog:
    """A backlog with a head and a tail of half the cap each."""
    store = Backlog(cap_bytes, cap_bytes // 2)
    for stream, data in said:
        store.append(data, stream)
    return store


def texts(store: Backlog) -> tuple[str, str, str]:
    """All of it, stdout and stderr."""
    both, out, err = (
        "".join(OutputText(store, stream).texts()) for stream in (EVERY_STREAM, STDOUT, STDERR)
    )
    return both, out, err


def gap(size: int) -> str:
    """The mark."""
    return f"\n[... {size} bytes dropped ...]\n"


def test_characters_that_a_gap_has_cut_are_dropped_whole() -> None:
    """Both halves, of whatever length, and they are counted."""
    for character in "é", "€", "😀":
        data = character.encode()
        for cap_bytes in range(2, 64, 2):
            store = output(cap_bytes, (STDOUT, data * 50))
            kept = cap_bytes // 2 // len(data)
            dropped = gap(len(data) * (50 - 2 * kept))
            text = character * kept + dropped + character * kept
            assert texts(store) == (text, text, "")


def test_the_rest_of_a_character_may_arrive_in_parts() -> None:
    """It is no less a rest for that."""
    store = output(8, (STDOUT, b"abcd" + b"\xf0" * 20), *[(STDOUT, b"\x9f")] * 3, (STDOUT, b"!"))
    assert texts(store)[0] == "abcd" + gap(23) + "!"


def test_each_stream_has_its_own_rest() -> None:
    """The one that comes later, too."""
    said = [(STDOUT, "€".encode()), (STDERR, "ü".encode())] * 20
    halves = [(STDOUT, b"\xac"), (STDERR, b"\xbc"), (STDOUT, b"out"), (STDERR, b"err")]
    store = output(16, *said, *halves)
    both, out, err = texts(store)
    assert out == "€€" + gap(55) + "out"
    assert err == "ü" + gap(39) + "err"
    assert both == "€ü€" + gap(55 + 39) + "outerr"


def test_a_stream_that_has_lost_nothing_is_whole() -> None:
    """Its character may lie on both sides of a gap that is another's."""
    said = [(STDERR, b"\xe2\x82"), (STDOUT, b"x" * 100), (STDERR, b"\xac"), (STDOUT, b"end")]
    both, out, err = texts(output(16, *said))
    assert err == "€"
    assert out == "x" * 6 + gap(90) + "xxxxend"
    assert both == "x" * 6 + gap(90) + "xxxx€end"


def test_what_is_no_utf_8_stays() -> None:
    """No more is taken for the rest of a character than one can have."""
    store = output(16, (STDOUT, b"\x80" * 100))
    assert texts(store)[1] == "\ufffd" * 8 + gap(87) + "\ufffd" * 5
