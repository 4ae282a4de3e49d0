"""Replay filter: queries are removed, everything else is kept, however the output is cut."""

import itertools

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from procd.output.replay import MOST_HELD_BYTES, ReplayFilter

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

QUERIES = (
    b"\x05", b"\x1bZ", b"\x1b[c", b"\x1b[0c", b"\x1b[>c", b"\x1b[>0c", b"\x1b[=c", b"\x1b[=0c",
    b"\x1b[5n", b"\x1b[6n", b"\x1b[?6n", b"\x1b[?15n", b"\x1b[?996n", b"\x1b[?u", b"\x1b[?4m",
    b"\x1b[4$p", b"\x1b[?2026$p", b"\x1b[?1;1S", b"\x1b[?2;1;0S", b"\x1b[?1;4;0S", b"\x1b[>q",
    b"\x1b[>0q", b"\x1b[x", b"\x1b[0x", b"\x1b[1x", b"\x1b[11t", b"\x1b[13t", b"\x1b[13;2t",
    b"\x1b[14t", b"\x1b[14;2t", b"\x1b[15t", b"\x1b[16t", b"\x1b[18t", b"\x1b[19t", b"\x1b[20t",
    b"\x1b[21t", b"\x1b[1$w", b"\x1b[2$w", b"\x1b[1$u", b"\x1b[1;1;1;1;24;80*y", b"\x1b]4;1;?\x07",
    b"\x1b]4;1;?;2;?\x1b\\", b"\x1b]5;0;?\x07", b"\x1b]10;?\x07", b"\x1b]11;?\x1b\\",
    b"\x1b]12;?\x07", b"\x1b]17;?\x07", b"\x1b]19;?\x07", b"\x1b]52;c;?\x07", b"\x1b]52;c;?\x1b\\",
    b"\x1b]1337;ReportCellSize\x07", b"\x1b]1337;ReportVariable=bmFtZQ==\x1b\\", b"\x1bP$qm\x1b\\",
    b'\x1bP$q"p\x1b\\', b"\x1bP+q544e;436f\x1b\\", b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\",
    b"\x1b[?4g", b"\x1b]1337;Capabilities\x07", b"\x1b]99;i=1:p=?;\x1b\\", b"\x1b]99;p=?;\x1b\\",
    b"\x1b]99;i=1:p=alive;\x1b\\", b"\x1b]5522;type=read;Lg==\x1b\\", b"\x1b]701;?\x07",
    b"\x1b]776;?\x07",
    # Other spellings of the same.
    b"\x1b]011;?\x07", b"\xc2\x9d0052;c;?\x1b\\", b"\x1b[00c", b"\x1b[0;0c", b"\x1b[>0;1c",
    b"\x1b[1;6n", b"\x1b[6:1n", b"\x1b[?0u", b"\x1b[?01;01;0S", b"\x1b[018t", b"\x1b[&u",
    b"\x1b[1+p", b'\x1b["v', b"\x1b['|", b"\x1b[#R", b"\x1b]50;?\x07", b"\x1bP0$qm\x1b\\",
    # C1 controls, in UTF-8.
    b"\xc2\x9a", b"\xc2\x9b6n", b"\xc2\x9bc", b"\xc2\x9b?2026$p", b"\xc2\x9d11;?\x07",
    b"\x1b]11;?\xc2\x9c", b"\xc2\x90$qm\xc2\x9c", b"\xc2\x9fGa=q;\xc2\x9c",
)  # fmt: skip

SETTINGS = (
    b"plain text, caf\xc3\xa9 \x00\xff", b"\r\n", b"\x07", b"c",
    b"[6n",  # no ESC, no sequence
    b"\x1b7", b"\x1b8", b"\x1bc", b"\x1b(B", b"\x1b=", b"\x1b[31m", b"\x1b[38;2;1;2;3m",
    b"\x1b[2J", b"\x1b[H", b"\x1b[12;40H", b"\x1b[K",
    b"\x1b[u",  # restore the cursor
    b"\x1b[s",
    b"\x1b[2S",  # scroll
    b"\x1b[?25l", b"\x1b[?2004h", b"\x1b[?1049h",
    b"\x1b[?1;3;256S",  # XTSMGRAPHICS, setting
    b"\x1b[!p",
    b"\x1b[2 q",  # cursor shape
    b"\x1b[ q", b"\x1b[>4;1m", b"\x1b[>1u", b"\x1b[<u", b"\x1b[=1;1u", b"\x1b[8;24;80t",
    b"\x1b[22;0t", b"\x1b[23;0t", b"\x1b[1t", b"\x1b[2*x", b"\x1b[1;1;5;5$z", b"\x1b]0;title\x07",
    b"\x1b]0;is this a title?\x1b\\", b"\x1b]2;what?\x07", b"\x1b]4;1;rgb:ff/00/00\x07",
    b"\x1b]7;file:///tmp/a?b\x07", b"\x1b]8;;https://example.org/?q=1\x1b\\",
    b"\x1b]10;#ffffff\x1b\\", b"\x1b]52;c;aGVsbG8=\x07", b"\x1b]104\x07",
    b"\x1b]777;notify;Build;Done?\x07", b"\x1b]776;Done?\x07",
    b"\x1b]99;i=1:d=0;p=?\x1b\\",  # a payload that looks like a key
    b"\x1b]99;i=1:p=title;Done?\x1b\\", b"\x1b]5522;type=write;dHlwZT1yZWFk\x1b\\",
    b"\x1b[g",  # clear a tab stop
    b"\x1b[3g", b"\x1b\x00[31m", b"\x1b\r]0;title?\x07", b"\x1b\n7", b"\x1bP\x00q#0\x1b\\",
    b"\xc2 \x9b6n", b"\x1b]133;A\x07", b"\x1b]1337;SetMark\x07", b"\x1bP1;1|17/17\x1b\\",
    b"\x1bPq#0;2;0;0;0~-\x1b\\", b"\x1b_Ga=T,f=100;AAAA\x1b\\",
    b"\x1b_Gi=1;a=q\x1b\\",  # a payload that looks like a key
    b"\x1b\\", b"\x1b[1c", b"\x1b[>1q", b"\x1b[?1;2;3S", b"\x1b[010t", b"\xc2\x9b31m",
    b"\xc2\x9d0;title?\xc2\x9c",
    b"\xc2\xa96n \xe7\x9b\x9b6n",  # U+00A9 and U+76DB, which has the byte 9b
    b"\x1b[6\x18n",  # given up
    b"\x1b[6\xc3\xa9n",  # by a character
    b"\x1b[\xe2\x82\xac6n", b"\x1b[6\xf0\x9f\x98\x80n", b"\x1b\xc2\xa0[6n", b"\x1b[31\xffm",
    b"\x1b]11;?\x18",
)  # fmt: skip


def filtered(pieces: list[bytes]) -> bytes:
    """The output of a filter for these pieces."""
    replay = ReplayFilter()
    return b"".join([*map(replay.feed, pieces), replay.flush()])


def without_queries(output: bytes) -> bytes:
    """The same for a single piece."""
    return filtered([output])


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    """`whole` in pieces."""
    borders = [0, *sorted({place % (len(whole) + 1) for place in places}), len(whole)]
    return [whole[begin:end] for begin, end in itertools.pairwise(borders)]


@pytest.mark.parametrize("query", QUERIES, ids=repr)
def test_query_is_removed(query: bytes) -> None:
    assert without_queries(query) == b""
    assert without_queries(b"before" + query + b"after") == b"beforeafter"


@pytest.mark.parametrize("setting", SETTINGS, ids=repr)
def test_setting_is_kept(setting: bytes) -> None:
    assert without_queries(setting) == setting
    assert without_queries(b"before" + setting + b"after") == b"before" + setting + b"after"


@pytest.mark.parametrize(
    ("output", "kept"),
    [
        # Without the query, the unfinished sequence would go on with what follows.
        (b"\x1b[3\x1b[6nm", b"\x1b[3\x1b\\m"),
        (b"\x1b\x1b[6nm", b"\x1b\x1b\\m"),
        (b"\x1b[1\x1b[2\x1b[6nm", b"\x1b[1\x1b[2\x1b\\m"),
        (b"\x1b]0;title\x1b[6ntext", b"\x1b]0;title\x1b\\text"),
        (b"\x1bPq#0\xc2\x9b6ntext", b"\x1bPq#0\x1b\\text"),
        (b"\x1b[3\x1b[1m", b"\x1b[3\x1b[1m"),
        # So would an unfinished character: C2 9B is CSI.
        (b"\xc2\x1b]11;?\x1b\\\x9bc", b"\xc2\x1b\\\x9bc"),
        (b"\xc2\xc2\x9b6n\x9bc", b"\xc2\x1b\\\x9bc"),
        (b"\x1b]0;\xc2\x1b[6n\x9c", b"\x1b]0;\xc2\x1b\\\x9c"),
        (b"\x1b[3\xc2\x1b[6nm", b"\x1b[3\xc2\x1b\\m"),
    ],
)
def test_replacement_of_a_query(output: bytes, kept: bytes) -> None:
    """The screen looks as with the query."""
    assert without_queries(output) == kept
    assert without_queries(b"before" + output + b"after") == b"before" + kept + b"after"


PARTS = st.lists(
    st.one_of(
        st.sampled_from(QUERIES).map(lambda query: (query, False)),
        st.sampled_from(SETTINGS).map(lambda setting: (setting, True)),
        st.binary(max_size=20)
        .map(lambda data: data.translate(None, b"\x1b\xc2\x05"))
        .map(lambda data: (data, True)),
    ),
    max_size=30,
)


@UNTIMED
@given(PARTS)
def test_exactly_the_queries_are_missing(parts: list[tuple[bytes, bool]]) -> None:
    whole = b"".join(part for part, _ in parts)
    assert without_queries(whole) == b"".join(part for part, kept in parts if kept)


PLACES = st.lists(st.integers(0, 1 << 16), max_size=12)
# Whole and cut sequences, and bytes with a meaning in the grammar, in any order. ENQ occurs only by
# itself, and not within a sequence.
CUT_SEQUENCES = st.lists(
    st.one_of(
        st.sampled_from([*QUERIES, *SETTINGS]),
        st.sampled_from([*QUERIES[1:], *SETTINGS]).flatmap(
            lambda text: st.integers(0, len(text)).map(lambda end: text[:end])
        ),
        st.sampled_from([b"\x1b", b"\\", b"[", b"]", b"P", b"_G", b"?", b";", b"a=q", b"\x07"]),
        st.sampled_from([b"\xc2", b"\x9b", b"\x9d", b"\x9c", b"6", b"n", b"\r", b"\x18", b"4;"]),
        st.sampled_from([b"\xff", b"\xe2", b"\x82", b"\xac", b"\xf0", b"\x9f", b"\xc3\xa9", b"["]),
        st.sampled_from([b"\xc2\x1b[6n", b"\x1b\r", b"\0", b"\x7f", b"$", b"q", b"99;", b"p="]),
    ),
    max_size=20,
).map(b"".join)


@UNTIMED
@given(CUT_SEQUENCES, PLACES)
def test_cuts_make_no_difference(whole: bytes, places: list[int]) -> None:
    assert filtered(cut(whole, places)) == without_queries(whole)
    single_bytes = [whole[index : index + 1] for index in range(len(whole))]
    assert filtered(single_bytes) == without_queries(whole)


@UNTIMED
@example(b"\x1b]4;1;?\x1bZ")
@example(b"\x1b[\x1b]4;1;?\x1bZ6n")
@example(b"\x1b]11;?\x1b]11;?\x1bZ")
@given(CUT_SEQUENCES)
def test_removal_makes_no_query(whole: bytes) -> None:
    left = without_queries(whole)
    assert without_queries(left) == left


def test_sequence_that_is_still_open() -> None:
    """It is held back until the next piece, or the end."""
    replay = ReplayFilter()
    assert replay.feed(b"text\x1b]11;?\x1b") == b"text"
    assert replay.flush() == b"\x1b]11;?\x1b"
    assert replay.feed(b"text\x1b]11;?") == b"text"
    assert replay.flush() == b"\x1b]11;?"
    assert replay.feed(b"text\x1b[") == b"text"
    assert replay.feed(b"6") == b""
    assert replay.feed(b"nmore") + replay.flush() == b"more"
    assert replay.feed(b"c") + replay.flush() == b"c"


@pytest.mark.parametrize(
    "begin", [b"\x1b]52;c;", b"\x1bPq", b"\x1b_Ga=T;", b"\xc2\x9d4;", b"\x1b["]
)
def test_long_open_sequence(begin: bytes) -> None:
    """It is passed on."""
    replay = ReplayFilter()
    piece = b"0" * 4096
    shown = replay.feed(begin)
    for count in range(1, 100):
        shown += replay.feed(piece)
        assert len(begin) + count * len(piece) - len(shown) <= MOST_HELD_BYTES
    shown += replay.feed(b"\x1b[6")
    shown += replay.feed(b"ntext")
    assert shown + replay.flush() == begin + piece * 99 + b"text"
    shown = replay.feed(begin + piece * 5) + replay.flush()
    assert shown + replay.feed(b"next") == begin + piece * 5 + b"next"


SIZE = 1 << 18
NASTY = {
    "escapes": b"\x1b" * SIZE,
    "open CSI": b"\x1b[" * (SIZE // 2),
    "CSI with digits": b"\x1b[" + b"1" * SIZE,
    "CSI with semicolons": b"\x1b[?" + b";" * SIZE,
    "window report": b"\x1b[18;" + b"0" * SIZE,
    "open OSC": b"\x1b]4;" + b"a" * SIZE,
    "open OSC of question marks": b"\x1b]4;" + b"?" * SIZE,
    "OSC numbers": b"\x1b]4;1;?" * (SIZE // 7) + b"\x07",
    "open DCS": b"\x1bP+q" + b"61" * (SIZE // 2),
    "open APC": b"\x1b_G" + b"a" * SIZE,
    "APC of keys": b"\x1b_G" + b"a=" * (SIZE // 2),
    "ESC and controls": b"\x1b" + b"\0" * SIZE,
    "OSC of controls": b"\x1b]" + b"0\0" * (SIZE // 2),
    "APC of a key and controls": b"\x1b_Ga" + b"\0" * SIZE,
    "keys of kitty": b"\x1b]99;" + b":p\0" * (SIZE // 3),
    "halves of characters": b"\xc2\x1b]" * (SIZE // 3),
    "halves": b"\xc2" * SIZE,
    "ESC and halves": b"\x1b" + b"\xc2" * SIZE,
    "pairs of ESC and a half": b"\x1b\x1b\xc2" * (SIZE // 3),
    "CSI of halves": b"\x1b[" + b"\xe2\xf0\x82\xc2" * (SIZE // 4),
    "OSC of halves": b"\x1b]1" + b"\xff" * SIZE,
    "ENQ": b"\x05" * SIZE,
}


@pytest.mark.parametrize("output", NASTY.values(), ids=NASTY.keys())
def test_no_backtracking(output: bytes) -> None:
    """A quarter of a mebibyte of each is filtered well within the suite's timeout."""
    whole = without_queries(output)
    assert len(whole) <= len(output)
    pieces = [output[index : index + 4096] for index in range(0, len(output), 4096)]
    assert filtered(pieces) == whole
