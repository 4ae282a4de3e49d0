"""The keys that leave a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.cli.detach import Detacher, parse
from procd.cli.failure import Failure


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-A,d", b"\x01d"),
        ("ctrl-@", b"\0"),
        ("ctrl-],q", b"\x1dq"),
        ("~,.", b"~."),
        ("", b""),
    ],
)
def test_parse(text: str, keys: bytes) -> None:
    assert parse(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ctrl-ab", "ab", "é", ",", "a,"])
def test_no_such_key(text: str) -> None:
    with pytest.raises(Failure, match="--detach-keys"):
        parse(text)


@given(st.lists(st.text("pqx", max_size=4)), st.sampled_from([b"pq", b"ppq", b"x", b"pqpx"]))
def test_any_cut(pieces: list[str], keys: bytes) -> None:
    typed = "".join(pieces).encode()
    detacher = Detacher(keys)
    sent, left = b"", False
    for piece in pieces:
        more, left = detacher.feed(piece.encode())
        sent += more
        if left:
            break
    found = typed.find(keys)
    assert left == (found >= 0)
    if left:
        assert sent == typed[:found]
    else:
        assert typed.startswith(sent)
        assert keys.startswith(typed[len(sent) :])
        assert len(typed) - len(sent) < len(keys)


def test_let_go() -> None:
    detacher = Detacher(b"pq")
    assert detacher.feed(b"xp") == (b"x", False)
    assert detacher.holds
    assert detacher.let_go() == b"p"
    assert not detacher.holds
    assert detacher.feed(b"q") == (b"q", False), "it is no second key any more"


def test_no_keys() -> None:
    assert Detacher(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
