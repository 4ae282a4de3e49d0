"""Frames: RFC 6455 headers, and one object for all who stand at the same offset."""

import struct

import pytest

from procd.output.buffer import Buffer
from procd.output.frames import (
    BINARY,
    CACHED_FRAMES,
    FRAME_BYTES,
    PING,
    PONG,
    TEXT,
    Frames,
    encode,
)


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_header_sizes(size: int, header: bytes) -> None:
    """Each of the three forms of a length is used for just its range."""
    payload = b"p" * size
    assert encode(BINARY, payload) == header + payload


@pytest.mark.parametrize(
    ("opcode", "first"), [(TEXT, 0x81), (BINARY, 0x82), (PING, 0x89), (PONG, 0x8A)]
)
def test_opcodes(opcode: int, first: int) -> None:
    """Every frame is final, unmasked and of its opcode."""
    assert encode(opcode, b"x") == bytes((first, 1)) + b"x"


def _payload(frame: bytes) -> bytes:
    size = frame[1]
    if size < 126:
        return frame[2:]
    if size == 126:
        return frame[4 : 4 + struct.unpack("!H", frame[2:4])[0]]
    return frame[10 : 10 + struct.unpack("!Q", frame[2:10])[0]]


def test_frames_follow_each_other_through_the_whole() -> None:
    """From offset to offset the payloads give what was appended, none above the limit."""
    store = Buffer(1 << 20)
    whole = b"".join(bytes([index]) * (index * 997) for index in range(1, 40))
    store.append(whole[:100_000])
    for index in range(100_000, len(whole), 3000):
        store.append(whole[index : index + 3000])
    frames = Frames(store)
    offset, joined = 0, b""
    while offset < store.end:
        frame, offset = frames.at(offset)
        payload = _payload(frame)
        assert 0 < len(payload) <= FRAME_BYTES
        joined += payload
        assert offset == len(joined)
    assert joined == whole


def test_one_object_for_one_offset() -> None:
    """Two who stand at the same offset get the same object, even if more was said between."""
    store = Buffer(1 << 20)
    store.append(b"first")
    frames = Frames(store)
    frame, after = frames.at(0)
    store.append(b"second")
    again, after_again = frames.at(0)
    assert again is frame
    assert after_again == after == 5
    assert frames.at(after) == (encode(BINARY, b"second"), 11)


def test_cache_is_bounded() -> None:
    """An old frame is encoded anew once others have taken its place."""
    store = Buffer(1 << 20)
    store.append(b"x" * 100)
    frames = Frames(store)
    first, _ = frames.at(0)
    for offset in range(1, CACHED_FRAMES):
        frames.at(offset)
    assert frames.at(0)[0] is first
    frames.at(CACHED_FRAMES)
    again, _ = frames.at(0)
    assert again == first
    assert again is not first


def test_forget_drops_the_cache() -> None:
    """After `forget` a frame takes in what was said since."""
    store = Buffer(1 << 20)
    store.append(b"one")
    frames = Frames(store)
    assert frames.at(0) == (encode(BINARY, b"one"), 3)
    store.append(b"two")
    frames.forget()
    assert frames.at(0) == (encode(BINARY, b"onetwo"), 6)


def test_what_is_gone_is_an_error() -> None:
    """An offset that fell off the store has no frame."""
    store = Buffer(10)
    store.append(b"x" * 20)
    with pytest.raises(LookupError):
        Frames(store).at(9)
