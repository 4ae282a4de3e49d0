"""Logs on disk against plain bytes, and the space that they share."""

import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procd.output.budget import Budget
from procd.output.buffer import Run
from procd.output.logfile import MAX_CHANGES, READ_BYTES, STEP_BYTES, LogFile, LogStore

ROOMY = 1 << 40


def roomy() -> LogStore:
    """A store without limits."""
    return LogStore(ROOMY, ROOMY, Budget(ROOMY))


@contextmanager
def log_file(max_log_bytes: int = ROOMY) -> Iterator[tuple[LogFile, LogStore]]:
    """A log in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        store = LogStore(max_log_bytes, ROOMY, Budget(ROOMY))
        file = store.create(Path(directory) / "1.log")
        try:
            yield file, store
        finally:
            file.remove()


def open_descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


class Whole:
    """Everything that was appended, with the stream of each byte."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.streams = bytearray()

    def append(self, data: bytes, stream: int) -> None:
        """Add `data`."""
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
            assert store.memory.used_bytes == file.index_bytes
        if finished:
            file.finish()
        whole.check(list(file.snapshot().runs()), file.start, file.end)
    assert store.used_bytes == store.memory.used_bytes == 0


def test_without_output_there_is_no_file(tmp_path: Path) -> None:
    file = roomy().create(tmp_path / "1.log")
    assert file.read(0, 10) == b""
    file.finish()
    assert file.read(0, 10) == b""
    assert list(file.snapshot().runs()) == []
    assert not os.listdir(tmp_path)


def test_more_changes_of_stream_than_are_kept() -> None:
    """The oldest go with their bytes; the rest is exact."""
    whole = Whole()
    with log_file() as (file, store):
        for number in range(3 * MAX_CHANGES):
            data = b"%d" % number
            whole.append(data, 1 + number % 2)
            file.append(data, 1 + number % 2)
        assert file.start > 0
        assert MAX_CHANGES // 2 * 8 <= file.index_bytes <= MAX_CHANGES * 8
        assert store.memory.used_bytes == file.index_bytes
        whole.check(list(file.snapshot().runs()), file.start, file.end)


@pytest.mark.parametrize("held", [False, True])
def test_no_descriptor_is_kept_but_while_it_is_held(tmp_path: Path, held: bool) -> None:
    """A log that is held can be read though its file is removed."""
    before = open_descriptors()
    file = roomy().create(tmp_path / "1.log")
    with file.hold() if held else nullcontext():
        file.append(b"said", 1)
        file.finish()
        assert open_descriptors() == before + held
        assert file.read(0, 4) == b"said"
        file.remove()
        assert os.listdir(tmp_path) == []
        assert file.kept_bytes == (4 if held else 0)
        assert [run.data for run in file.snapshot().runs()] == ([b"said"] if held else [])
    assert open_descriptors() == before
    assert file.kept_bytes == 0


@pytest.mark.parametrize("goes", ["some", "all", "file"])
def test_output_that_is_dropped_before_it_is_read(goes: str) -> None:
    """A reader is told that this was not all; what it has read already may go."""
    with log_file() as (file, _):
        file.append(b"o" * STEP_BYTES + b"k" * 3 * STEP_BYTES, 1)
        file.append(b"e" * STEP_BYTES, 2)
        runs = file.snapshot().runs()
        for _ in range(STEP_BYTES // READ_BYTES):
            assert next(runs).data == b"o" * READ_BYTES
        file.drop(STEP_BYTES)
        assert next(runs).data == b"k" * READ_BYTES
        if goes == "file":
            file.remove()
        else:
            file.drop(STEP_BYTES if goes == "some" else file.kept_bytes)
        with pytest.raises(OSError, match="dropped"):
            list(runs)


@pytest.mark.parametrize("left", [0, 3, None])
def test_a_finished_file_that_others_cut_or_delete(tmp_path: Path, left: int | None) -> None:
    """That is an error for its readers, and no concern of other logs."""
    path = tmp_path / "1.log"
    store = LogStore(ROOMY, 2 * STEP_BYTES, Budget(ROOMY))
    file = store.create(path)
    file.append(b"x" * STEP_BYTES, 1)
    file.finish()
    if left is None:
        path.unlink()
    else:
        os.truncate(path, left)
    with pytest.raises(OSError, match="No such file" if left is None else "shortened"):
        list(file.snapshot().runs())
    other = store.create(tmp_path / "2.log")
    other.append(b"y" * 2 * STEP_BYTES)
    assert other.kept_bytes == store.used_bytes == 2 * STEP_BYTES
    other.remove()
    file.remove()
    assert store.used_bytes == 0


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


def test_a_directory_that_others_delete(tmp_path: Path) -> None:
    """A log that has a file keeps it; another makes its own anew, as private as before."""
    directory = tmp_path / "state" / "session"
    store = roomy()
    file, other = (store.create(directory / f"{number}.log") for number in "12")
    file.append(b"before")
    shutil.rmtree(tmp_path / "state")
    file.append(b" and after")
    other.append(b"new")
    assert file.read(0, 100) == b"before and after"
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"state": 0o700, "session": 0o700, "2.log": 0o600}
    file.remove()
    other.remove()


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


def test_a_full_disk_takes_the_output_of_finished_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = roomy()
    old, new = store.create(tmp_path / "1.log"), store.create(tmp_path / "2.log")
    old.append(b"old")
    old.finish()
    write = os.pwrite

    def full(number: int, data: bytes, position: int) -> int:
        if old.kept_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(number, data, position)

    monkeypatch.setattr("os.pwrite", full)
    new.append(b"new")
    assert (old.kept_bytes, new.read(0, 10)) == (0, b"new")
    new.remove()


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


def test_limit_of_all_logs(tmp_path: Path) -> None:
    """The largest finished one goes first; those of running commands go last."""
    store = LogStore(ROOMY, 8 * STEP_BYTES, Budget(ROOMY))
    small, large, gone, running = (store.create(tmp_path / f"{n}.log") for n in range(4))
    for file, steps in ((small, 1), (large, 4), (gone, 3)):
        file.append(b"x" * steps * STEP_BYTES)
        file.finish()
        if file is gone:
            file.remove()
    for number in range(1, 11):
        running.append(b"r" * STEP_BYTES, 1)
        assert store.used_bytes <= 8 * STEP_BYTES
        if number == 4:
            assert (small.start, large.start) == (0, STEP_BYTES)
        assert running.start == max(0, number - 8) * STEP_BYTES
    assert (small.kept_bytes, large.kept_bytes) == (0, 0)
    running.remove()
    assert store.used_bytes == 0
