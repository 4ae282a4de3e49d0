"""Frames: RFC 6455 headers, and one object for all clients at the same offset."""

import pytest

from procd.output.buffer import Buffer
from procd.output.frames import BINARY, CACHED_FRAMES, FRAME_BYTES, PING, TEXT, Frames, encode


@pytest.mark.parametrize(
    ("opcode", "size", "header"),
    [
        (BINARY, 0, b"\x82\x00"),
        (TEXT, 125, b"\x81\x7d"),
        (PING, 126, b"\x89\x7e\x00\x7e"),
        (BINARY, 65535, b"\x82\x7e\xff\xff"),
        (BINARY, 65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_header(opcode: int, size: int, header: bytes) -> None:
    assert encode(opcode, b"p" * size) == header + b"p" * size


def test_frames_give_the_whole() -> None:
    buffer = Buffer(1 << 20)
    whole = b"".join(bytes([index]) * (index * 997) for index in range(1, 40))
    for index in range(0, len(whole), 100_000):
        buffer.append(whole[index : index + 100_000])
    frames = Frames(buffer)
    offset = 0
    while offset < buffer.end:
        frame, end = frames.at(offset)
        assert 0 < end - offset <= FRAME_BYTES
        assert frame == encode(BINARY, whole[offset:end])
        offset = end


def test_frame_is_encoded_once() -> None:
    """Until others have taken its place in the cache, or nobody needs it."""
    buffer = Buffer(1 << 20)
    buffer.append(b"first" * 10)
    frames = Frames(buffer)
    frame, end = frames.at(0)
    buffer.append(b"second")
    assert frames.at(0) == (frame, end)
    assert frames.at(0)[0] is frame
    assert frames.at(end)[0] == encode(BINARY, b"second")
    for offset in range(1, CACHED_FRAMES + 1):
        frames.at(offset)
    longer = encode(BINARY, b"first" * 10 + b"second")
    assert frames.at(0)[0] == longer
    buffer.append(b"third")
    frames.forget()
    assert frames.at(0)[0] == encode(BINARY, b"first" * 10 + b"secondthird")


def test_bytes_that_are_no_longer_kept() -> None:
    buffer = Buffer(10)
    buffer.append(b"x" * 20)
    with pytest.raises(LookupError):
        Frames(buffer).at(9)
