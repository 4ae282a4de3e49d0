"""Logs on disk against plain bytes, and the space that they share."""

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procd.output.budget import Budget
from procd.output.buffer import Run
from procd.output.logfile import MAX_CHANGES, STEP_BYTES, LogFile, LogStore

ROOMY = 1 << 40


def roomy() -> LogStore:
    return LogStore(ROOMY, ROOMY, Budget(ROOMY))


@contextmanager
def log_file(max_log_bytes: int = ROOMY) -> Iterator[tuple[LogFile, LogStore]]:
    with tempfile.TemporaryDirectory() as directory:
        store = LogStore(max_log_bytes, ROOMY, Budget(ROOMY))
        file = store.create(Path(directory) / "1.log")
        try:
            yield file, store
        finally:
            file.remove()


class Whole:
    """Everything that was appended, with the stream of each byte."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.streams = bytearray()

    def append(self, data: bytes, stream: int) -> None:
        self.data += data
        self.streams += bytes([stream]) * len(data)

    def check(self, runs: list[Run], start: int, end: int) -> None:
        """Check that `runs` are exactly the bytes from `start` to `end`, cut by stream."""
        position = start
        for run in runs:
            assert run.offset == position
            position += len(run.data)
            assert run.data == self.data[run.offset : position]
            assert self.streams[run.offset : position] == bytes([run.stream]) * len(run.data)
        assert position == end


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 700_000), st.sampled_from([1, 2])),
        st.tuples(st.just("append"), st.integers(1, 3), st.sampled_from([1, 2])),
        st.tuples(st.just("drop"), st.integers(1, 2_000_000), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 3_000_000), st.integers(1, 500_000)),
    ),
    max_size=14,
)


@given(OPERATIONS, st.booleans())
@settings(max_examples=40, deadline=None)
def test_against_plain_bytes(operations: list[tuple[str, int, int]], finished: bool) -> None:
    whole = Whole()
    with log_file() as (file, store):
        for operation, size, argument in operations:
            start = file.start
            if operation == "append":
                data = os.urandom(1000) * (size // 1000) + os.urandom(size % 1000)
                whole.append(data, argument)
                file.append(data, argument)
                assert file.start == start
            elif operation == "drop":
                kept = file.kept_bytes
                file.drop(size)
                assert file.start - start == min(kept, size)
            elif start <= size <= file.end:
                most = min(argument, file.end - size)
                whole.check(list(file.slices(size, argument)), size, size + most)
            else:
                with pytest.raises(LookupError):
                    file.read(size, argument)
            assert file.end == len(whole.data)
            assert store.used_bytes == file.kept_bytes
            assert store.memory.used_bytes == file.index.size
        if finished:
            file.finish()
        whole.check(list(file.snapshot().runs()), file.start, file.end)
    assert store.used_bytes == store.memory.used_bytes == 0


def test_more_changes_of_stream_than_are_kept() -> None:
    """The oldest go with their bytes; the rest is exact."""
    whole = Whole()
    with log_file() as (file, store):
        for number in range(3 * MAX_CHANGES):
            data = b"%d" % number
            whole.append(data, 1 + number % 2)
            file.append(data, 1 + number % 2)
        assert file.start > 0
        assert MAX_CHANGES // 2 * 8 <= file.index.size <= MAX_CHANGES * 8
        assert store.memory.used_bytes == file.index.size
        whole.check(list(file.snapshot().runs()), file.start, file.end)


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_something_else_in_the_place_of_a_file(tmp_path: Path, put: object) -> None:
    """It is neither waited for nor followed nor written to; the output is lost."""
    assert callable(put)
    file = roomy().create(tmp_path / "1.log")
    put(tmp_path / "1.log")
    file.append(b"lost", 1)
    assert (file.start, file.end) == (4, 4)
    file.finish()
    file.remove()


def test_space_is_given_back_to_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    file = roomy().create(path)
    file.append(b"all of it", 1)
    file.drop(file.kept_bytes)
    assert path.stat().st_size == 0
    file.append(b"x" * (4 * STEP_BYTES), 1)
    file.append(b"y" * STEP_BYTES, 1)
    file.drop(3 * STEP_BYTES)
    assert path.stat().st_blocks * 512 == file.kept_bytes == 2 * STEP_BYTES
    file.finish()
    file.drop(STEP_BYTES)
    assert path.stat().st_blocks * 512 == file.kept_bytes == STEP_BYTES
    assert file.read(file.start, 10) == b"y" * 10
    file.drop(STEP_BYTES)
    assert not path.exists()


@pytest.mark.parametrize("limit", [0, 2000])
def test_output_that_cannot_be_written_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    """With all before it; that is logged once, and what follows is kept."""
    file = roomy().create(tmp_path / "1.log")
    file.append(b"a" * 1000, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        for _ in range(2):
            file.append(b"b" * 5000, 2)  # EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (file.start, file.end) == (11000, 11000)
    assert caplog.text.count("output lost") == 1
    file.append(b"c", 2)
    assert list(file.snapshot().runs()) == [Run(11000, 2, b"c")]
    file.remove()


@pytest.mark.parametrize("size", [STEP_BYTES, STEP_BYTES + 4096, 4 * STEP_BYTES])
def test_limit_of_one_log(size: int) -> None:
    """Nothing is lost up to the limit, and little beyond it."""
    with log_file(size) as (file, _):
        for number in range(size // 4096):
            file.append(b"x" * 4096, 1 + number % 2)
        assert (file.start, file.kept_bytes) == (0, size)
        for _ in range(1000):
            file.append(b"y" * 300, 1)
            assert size * 7 // 8 <= file.kept_bytes <= size
        assert file.read(file.end - 1, 1) == b"y"
