"""LogFile against plain bytes, and the budget that logs share."""

import errno
import gc
import os
import resource
import shutil
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procd.output.buffer import Run
from procd.output.logfile import BLOCK_BYTES, READ_BYTES, STEP_BYTES, LogFile
from procd.output.logstore import FEW, SHARE, LogStore
from procd.output.stream_index import HELD_BOUNDARIES, MOST_HELD
from tests.api.clients import descriptors_exhausted

ROOMY = 1 << 40


class Whole:
    """All that was ever appended, with the stream of each byte."""

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


def test_a_log_of_nothing(tmp_path: Path) -> None:
    """It has no file, and can be read all the same."""
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    assert file.read(0, 10) == b""
    file.finish()
    assert file.read(0, 10) == b""
    assert list(file.snapshot().runs()) == []
    assert not os.listdir(tmp_path)


def test_what_one_stream_says_piece_by_piece(tmp_path: Path) -> None:
    """It takes no more than what it says at once."""
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    for _ in range(3):
        file.append(b"abc", 2)
    assert (file.sole_stream, file.cost_bytes) == (2, 9 + 8)
    assert list(file.slices(0, 100)) == [Run(0, 2, b"abcabcabc")]
    file.finish()


@contextmanager
def log_file(max_log_bytes: int = ROOMY) -> Iterator[tuple[LogFile, LogStore]]:
    """A log in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        store = LogStore(max_log_bytes, ROOMY)
        file = store.create(Path(directory) / "1.log")
        try:
            yield file, store
        finally:
            file.remove()
            file.finish()


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
                assert file.start - start >= min(kept, size)
            elif start <= size <= file.end:
                assert file.read(size, argument) == whole.data[size : size + argument]
                most = min(argument, file.end - size)
                whole.check(list(file.slices(size, argument)), size, size + most)
            else:
                with pytest.raises(LookupError):
                    file.read(size, argument)
            assert file.end == len(whole.data)
            assert store.used_bytes == file.cost_bytes
            assert file.kept_bytes == file.end - file.start
        if finished:
            file.finish()
        whole.check(list(file.snapshot().runs()), file.start, file.end)
    assert store.used_bytes == 0


@pytest.mark.parametrize("changes", [HELD_BOUNDARIES, 2 * HELD_BOUNDARIES + 1, 6000])
def test_many_changes_of_stream(changes: int) -> None:
    whole = Whole()
    with log_file() as (file, _):
        for number in range(changes):
            data = b"%d" % number
            whole.append(data, 1 + number % 2)
            file.append(data, 1 + number % 2)
        whole.check(list(file.snapshot().runs()), 0, file.end)
        runs = list(file.snapshot().runs())
        assert len(runs) == changes
        for offset in (0, 1, 2000, file.end // 2, file.end - 1):
            whole.check(list(file.slices(offset, 100)), offset, min(file.end, offset + 100))


@pytest.mark.parametrize("reserve", [False, True])
def test_changes_of_stream_without_a_descriptor(tmp_path: Path, *, reserve: bool) -> None:
    """They are kept in memory until there is one, and read by the one in reserve."""
    store = LogStore(ROOMY, ROOMY)
    if reserve:
        store.keep_reserve()
    file = store.create(tmp_path / "1.log")
    whole = Whole()

    def append(count: int) -> None:
        for number in range(count):
            whole.append(b"ab", 1 + number % 2)
            file.append(b"ab", 1 + number % 2)

    append(HELD_BOUNDARIES)
    with descriptors_exhausted():
        append(4 * HELD_BOUNDARIES)
        whole.check(list(file.snapshot().runs()), 0, file.end)
        assert (tmp_path / "1.streams").exists() == reserve
    append(HELD_BOUNDARIES)
    assert (tmp_path / "1.streams").stat().st_size == 4 * HELD_BOUNDARIES * 8
    whole.check(list(file.snapshot().runs()), 0, file.end)
    file.finish()
    file.remove()
    store.close()


def test_more_changes_of_stream_than_memory_is_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a descriptor; then what was said before is lost."""
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    file.append(b"a", 1)
    with descriptors_exhausted():
        for number in range(MOST_HELD + 2):
            file.append(b"ab", 1 + number % 2)
    assert 0 < file.start < file.end
    assert caplog.text.count("output lost") == 1
    file.finish()
    file.remove()


def test_changes_of_stream_survive_removal_for_who_reads() -> None:
    whole = Whole()
    with log_file() as (file, _):
        for number in range(5000):
            whole.append(b"ab", 1 + number % 2)
            file.append(b"ab", 1 + number % 2)
        file.finish()
        file.remove(keep_readable=True)
        whole.check(list(file.snapshot().runs()), 0, file.end)
        file.finish()


@pytest.mark.parametrize("read", [False, True])
def test_nothing_is_left_of_what_is_removed(tmp_path: Path, *, read: bool) -> None:
    """Neither of its files, though it be read to its end, nor a place among those that may go."""
    store = LogStore(ROOMY, ROOMY)
    file = store.create(tmp_path / "1.log")
    for number in range(3 * HELD_BOUNDARIES):
        file.append(b"ab", 1 + number % 2)
    file.finish()
    assert len(os.listdir(tmp_path)) == 2
    file.remove(keep_readable=read)
    assert os.listdir(tmp_path) == []
    assert not store._finished
    if read:
        assert file.read(0, 4) == b"abab"
        file.finish()
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("goes", ["some", "all", "the file"])
def test_what_goes_before_it_is_read_is_no_end(goes: str) -> None:
    """Whoever has read some of it is told; what was read already may go."""
    with log_file() as (file, _):
        file.append(b"o" * STEP_BYTES + b"k" * 3 * STEP_BYTES, 1)
        file.append(b"e" * STEP_BYTES, 2)
        runs = file.snapshot().runs()
        for _ in range(STEP_BYTES // READ_BYTES):
            assert next(runs).data == b"o" * READ_BYTES
        file.drop(STEP_BYTES)
        assert next(runs).data == b"k" * READ_BYTES
        if goes == "the file":
            file.finish()
            file.remove()
        else:
            file.drop(STEP_BYTES if goes == "some" else file.kept_bytes)
        with pytest.raises(OSError, match="dropped"):
            list(runs)


def test_a_snapshot_stays_while_more_is_written() -> None:
    """As long as it is pinned, up to a quarter of the log's cap."""
    cap = 8 * STEP_BYTES
    with log_file(cap) as (file, _):
        file.append(b"o" * 5 * STEP_BYTES, 1)
        file.append(b"n" * 5 * STEP_BYTES, 1)
        with file.pin():
            kept = file.snapshot()
            whole = b"".join(run.data for run in kept.runs())
            for _ in range(2):  # the second time with its oldest bytes beyond the cap
                assert b"".join(run.data for run in kept.runs()) == whole
                file.append(b"x" * STEP_BYTES, 2)
            assert kept.kept_bytes == len(whole) == file.end - kept.start - 2 * STEP_BYTES
            file.append(b"x" * STEP_BYTES, 2)
            with pytest.raises(OSError, match="dropped"):
                list(kept.runs())
            assert file.kept_bytes > cap
        assert file.kept_bytes <= cap


def test_what_is_being_read_goes_last() -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = LogStore(ROOMY, 10 * STEP_BYTES)
        large, small, live = (store.create(Path(directory) / f"{number}.log") for number in "123")
        emptied = store.create(Path(directory) / "4.log")
        emptied.append(b"x")
        emptied.finish()
        emptied.drop(1)
        large.append(b"x" * 4 * STEP_BYTES)
        small.append(b"x" * 3 * STEP_BYTES)
        for file in (large, small):
            file.finish()
        with large.pin():
            live.append(b"x" * 4 * STEP_BYTES)
            assert (large.start, small.start > 0) == (0, True)
            live.append(b"x" * 4 * STEP_BYTES)
            assert (large.start > 0, live.start) == (True, 0)
        for file in (large, small, live, emptied):
            file.remove()
        live.finish()


@pytest.mark.parametrize("left", [0, 5, None])
@pytest.mark.parametrize("finished", [False, True])
def test_a_file_that_others_cut_or_delete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left: int | None, *, finished: bool
) -> None:
    """What is missing counts as dropped, which is told once; what follows is kept."""
    path = tmp_path / "1.log"
    file = LogStore(ROOMY, ROOMY).create(path)
    file.append(b"before", 1)
    runs = file.snapshot().runs()
    if finished:
        file.finish()
    if left is not None:
        os.truncate(path, left)
    else:
        path.unlink()
    if left is None and not finished:
        assert [run.data for run in runs] == [b"before"], "whoever holds a file still has it"
        file.append(b"after", 2)
        assert [run.data for run in file.snapshot().runs()] == [b"before", b"after"]
    elif finished:
        with pytest.raises(OSError, match="dropped"):
            list(runs)
        assert (file.start, file.end) == (6, 6)
        assert list(file.snapshot().runs()) == []
        with pytest.raises(LookupError):
            file.read(0, 1)
        assert caplog.text.count("output lost") == 1
    else:
        file.append(b"after", 2)  # and no zeros
        assert [(run.offset, run.stream, run.data) for run in file.snapshot().runs()] == [
            (6, 2, b"after")
        ]
        assert caplog.text.count("output lost") == 1
    file.finish()
    file.remove()


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    """Whoever has read some of it is told that this was not all."""
    path = tmp_path / "1.log"
    file = LogStore(ROOMY, ROOMY).create(path)
    file.append(b"x" * (3 * READ_BYTES), 1)
    file.finish()
    runs = file.snapshot().runs()
    assert next(runs).data == b"x" * READ_BYTES
    os.truncate(path, READ_BYTES)
    with pytest.raises(OSError, match="dropped"):
        list(runs)
    assert file.start == file.end
    file.remove()


@pytest.mark.parametrize("size", [0, 4001, None])
@pytest.mark.parametrize("finished", [False, True])
def test_changes_of_stream_that_others_cut_or_delete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int | None, *, finished: bool
) -> None:
    """Of which streams the oldest bytes were is known no more; the rest is left."""
    streams = tmp_path / "1.streams"
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    whole = Whole()

    def append(count: int) -> None:
        for number in range(count):
            whole.append(b"ab", 1 + number % 2)
            file.append(b"ab", 1 + number % 2)

    append(3 * HELD_BOUNDARIES)
    if finished:
        file.finish()
    if size is not None:
        os.truncate(streams, size)
    else:
        streams.unlink()
    if not finished:
        append(3 * HELD_BOUNDARIES)
    whole.check(list(file.snapshot().runs()), file.start, file.end)
    assert 0 < file.start <= 4 * HELD_BOUNDARIES
    assert caplog.text.count("output lost") == 1
    file.finish()
    file.remove(keep_readable=True)
    whole.check(list(file.snapshot().runs()), file.start, file.end)
    file.finish()


def test_changes_of_stream_that_others_write_over_before_its_removal(tmp_path: Path) -> None:
    """Nobody reads what they say."""
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    for number in range(4 * HELD_BOUNDARIES):
        file.append(b"ab", 1 + number % 2)
    streams = tmp_path / "1.streams"
    streams.write_bytes(bytes(streams.stat().st_size))
    file.remove(keep_readable=True)
    assert not file.kept_bytes


@pytest.mark.parametrize("kind", ["ones", "zeros", "random", "descending", "too high"])
def test_changes_of_stream_that_others_write_over(tmp_path: Path, kind: str) -> None:
    """Once that is found, they are as good as cut off."""
    streams = tmp_path / "1.streams"
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    whole = Whole()
    for number in range(4 * HELD_BOUNDARIES):
        whole.append(b"ab", 1 + number % 2)
        file.append(b"ab", 1 + number % 2)
    file.finish()
    size = streams.stat().st_size
    match kind:
        case "ones":
            forged = b"\xff" * size
        case "zeros":
            forged = bytes(size)
        case "random":
            forged = os.urandom(size)
        case "descending":
            forged = array("Q", (number << 2 | 1 for number in range(size // 8, 0, -1))).tobytes()
        case _:
            forged = array(
                "Q", ((1 << 30) + number << 2 | 1 for number in range(size // 8))
            ).tobytes()
    with streams.open("r+b") as opened:
        opened.write(forged)
    with pytest.raises(OSError, match="the file was written to"):
        list(file.snapshot().runs())
    whole.check(list(file.snapshot().runs()), file.start, file.end)
    assert 0 < file.start < file.end
    file.remove(keep_readable=True)
    whole.check(list(file.snapshot().runs()), file.start, file.end)
    file.finish()


def test_nothing_is_lost_with_the_directory_while_a_log_is_written(tmp_path: Path) -> None:
    directory = tmp_path / "session"
    whole = Whole()
    file = LogStore(ROOMY, ROOMY).create(directory / "1.log")
    for number in range(3 * HELD_BOUNDARIES):
        if number == 100:
            shutil.rmtree(directory)
        whole.append(b"ab", 1 + number % 2)
        file.append(b"ab", 1 + number % 2)
    file.finish()
    whole.check(list(file.snapshot().runs()), 0, file.end)
    file.remove()


def test_a_deleted_file_that_cannot_be_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its end is an end all the same."""
    path = tmp_path / "1.log"
    file = LogStore(ROOMY, ROOMY).create(path)
    file.append(b"a" * 1000, 1)
    path.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        file.finish()  # EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "output lost" in caplog.text
    assert list(file.snapshot().runs()) == []
    assert (file.start, file.end) == (1000, 1000)
    file.remove()


def test_a_log_that_loses_all_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However much its command writes to a full disk."""
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        for _ in range(3):
            file.append(b"lost", 1)  # EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.append(b"kept", 1)
    assert caplog.text.count("output lost") == 1
    assert [(run.offset, run.data) for run in file.snapshot().runs()] == [(12, b"kept")]
    file.finish()
    file.remove()


def test_a_file_that_cannot_be_looked_at_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is finished, and when it is opened again."""
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    before = os.listdir("/proc/self/fd")
    file.append(b"said", 1)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr("os.fstat", broken)
        file.finish()
        assert os.listdir("/proc/self/fd") == before
        with pytest.raises(OSError, match="Input/output error"):
            file.read(0, 4)
        assert os.listdir("/proc/self/fd") == before
    assert file.read(0, 4) == b"said"
    file.remove()


def test_dropped_space_is_given_back_to_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    store = LogStore(ROOMY, ROOMY)
    file = store.create(path)
    file.append(b"all of it", 1)
    file.drop(1)
    assert path.stat().st_size == 0
    file.append(b"x" * (4 * STEP_BYTES), 1)
    file.append(b"y" * STEP_BYTES, 1)
    file.drop(3 * STEP_BYTES)
    assert path.stat().st_blocks * 512 == file.kept_bytes == 2 * STEP_BYTES
    file.finish()
    file.drop(STEP_BYTES)  # no descriptor is open any more
    assert path.stat().st_blocks * 512 == file.kept_bytes == STEP_BYTES
    assert file.read(file.start, 10) == b"y" * 10
    file.drop(1)
    assert file.kept_bytes == 0
    assert not path.exists()


def test_a_deleted_file_that_is_written_to_gives_up_no_more_than_it_has_to(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    file = LogStore(ROOMY, ROOMY).create(path)
    file.append(b"x" * (3 * STEP_BYTES), 1)
    path.unlink()
    file.drop(STEP_BYTES)
    assert (file.start, file.end) == (STEP_BYTES, 3 * STEP_BYTES)
    assert not path.exists()
    file.finish()
    file.remove()


@pytest.mark.parametrize("deleted", ["before", "amid", ""])
def test_changes_of_stream_go_with_what_is_dropped(tmp_path: Path, deleted: str) -> None:
    """Their space is given back; where somebody has deleted them, no more is lost than they say."""
    streams = tmp_path / "1.streams"
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    whole = Whole()
    for number in range(6 * HELD_BOUNDARIES):
        data = b"%01024d" % number
        whole.append(data, 1 + number % 2)
        file.append(data, 1 + number % 2)
    blocks = streams.stat().st_blocks
    assert blocks * 512 == streams.stat().st_size == 4 * HELD_BOUNDARIES * 8
    if deleted == "before":
        streams.unlink()
    else:
        file.drop(3 * STEP_BYTES)
        assert file.start == 3 * STEP_BYTES
        assert streams.stat().st_blocks == blocks // 4
        file.drop(STEP_BYTES)
        assert streams.stat().st_blocks == 0
        if deleted:
            streams.unlink()
    file.drop(STEP_BYTES)
    assert file.start == 5 * STEP_BYTES
    whole.check(list(file.snapshot().runs()), file.start, file.end)
    file.finish()
    file.remove()


def test_no_less_is_dropped_than_was_asked_for() -> None:
    """To the end of a block, since no part of one can be given back."""
    with log_file() as (file, _):
        file.append(b"x" * (5 * STEP_BYTES), 1)
        file.drop(STEP_BYTES + 5)
        assert file.start == STEP_BYTES + BLOCK_BYTES
        file.drop(file.kept_bytes - 1)
        assert file.kept_bytes == 0


@pytest.mark.parametrize("lost", ["its directory", "its changes of stream"])
def test_the_files_of_one_log_are_no_concern_of_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    """Somebody has put something in their place, and all of it has to go."""
    store = LogStore(ROOMY, 2 * STEP_BYTES)
    other = store.create(tmp_path / "other" / "1.log")
    for number in range(3 * HELD_BOUNDARIES):
        other.append(b"xy", 1 + number % 2)
    other.append(b"x" * (2 * STEP_BYTES - other.cost_bytes), 2)
    other.finish()
    if lost == "its directory":
        shutil.rmtree(tmp_path / "other")
        (tmp_path / "other").write_text("in the way")
    else:
        (tmp_path / "other" / "1.streams").unlink()
        (tmp_path / "other" / "1.streams").mkdir()
    file = store.create(tmp_path / "1.log")
    file.append(b"hello", 1)
    assert [run.data for run in file.snapshot().runs()] == [b"hello"]
    assert (other.start, list(other.snapshot().runs())) == (other.end, [])
    assert store.used_bytes == file.cost_bytes
    assert "a file is left" in caplog.text
    other.remove()
    file.finish()
    file.remove()
    assert store.used_bytes == 0


def test_a_log_goes_whatever_is_where_its_file_was(tmp_path: Path) -> None:
    store = LogStore(ROOMY, ROOMY)
    files = [store.create(tmp_path / "session" / f"{number}.log") for number in range(3)]
    for file in files:
        for number in range(3 * HELD_BOUNDARIES):
            file.append(b"xy", 1 + number % 2)
    files[0].finish()
    shutil.rmtree(tmp_path / "session")
    (tmp_path / "session").write_text("in the way")
    assert list(files[0].snapshot().runs()) == []
    files[0].remove()
    files[1].remove(keep_readable=True)
    files[1].finish()
    files[2].append(b"z" * STEP_BYTES)
    files[2].remove()
    assert store.used_bytes == 0


def test_cap_of_one_log() -> None:
    whole = Whole()
    with log_file(4 * STEP_BYTES) as (file, _):
        for _ in range(50):
            data = os.urandom(300_000)
            whole.append(data, 1)
            file.append(data, 1)
            assert file.kept_bytes <= 4 * STEP_BYTES
        assert file.kept_bytes >= 2 * STEP_BYTES
        whole.check(list(file.snapshot().runs()), file.start, file.end)


@pytest.mark.parametrize("size", [STEP_BYTES, STEP_BYTES + BLOCK_BYTES, 4 * STEP_BYTES])
@pytest.mark.parametrize("streams", [1, 2])
def test_nothing_is_lost_up_to_the_cap_and_little_beyond(size: int, streams: int) -> None:
    """Where the stream changes takes no output's room."""
    with log_file(size) as (file, _):
        for number in range(size // BLOCK_BYTES):
            file.append(b"x" * BLOCK_BYTES, 1 + number % streams)
        assert (file.start, file.kept_bytes) == (0, size)
        file.append(b"y", 1)
        assert size * 7 // 8 <= file.kept_bytes <= size
        assert file.read(file.end - 1, 1) == b"y"


def test_changes_of_stream_are_bounded() -> None:
    """By what the output may take itself."""
    with log_file(STEP_BYTES) as (file, _):
        for number in range(STEP_BYTES // 4):
            file.append(b"x", 1 + number % 2)
            assert file.cost_bytes <= 2 * STEP_BYTES
        assert file.start > 0


def test_largest_finished_log_goes_first(tmp_path: Path) -> None:
    store = LogStore(ROOMY, 8 * STEP_BYTES + 64)  # the changes of stream count, too
    small, large, running = (store.create(tmp_path / f"{n}.log") for n in range(3))
    small.append(b"s" * STEP_BYTES, 1)
    large.append(b"l" * (5 * STEP_BYTES), 1)
    small.finish()
    large.finish()
    running.append(b"r" * (2 * STEP_BYTES), 1)
    running.append(b"r" * STEP_BYTES, 1)
    assert (small.start, large.start, running.start) == (0, STEP_BYTES, 0)
    for _ in range(4):
        running.append(b"r" * STEP_BYTES, 1)
        assert store.used_bytes <= 8 * STEP_BYTES + 64
    assert small.start + large.start > 0
    assert running.start == 0, "finished logs go before those of running commands"
    for _ in range(2):
        running.append(b"r" * STEP_BYTES, 1)
    assert (small.kept_bytes, large.kept_bytes) == (0, 0)
    assert running.start >= STEP_BYTES
    assert store.used_bytes == running.cost_bytes <= 8 * STEP_BYTES + 64
    running.remove()
    running.finish()
    assert store.used_bytes == 0


def test_what_is_removed_gives_up_nothing_any_more(tmp_path: Path) -> None:
    """Those that are left do."""
    store = LogStore(ROOMY, 4 * STEP_BYTES)
    large, small, running = (store.create(tmp_path / f"{n}.log") for n in range(3))
    large.append(b"l" * (2 * STEP_BYTES), 1)
    small.append(b"s" * STEP_BYTES, 1)
    large.finish()
    small.finish()
    large.remove()
    running.append(b"r" * (3 * STEP_BYTES), 1)
    running.finish()
    assert small.start > 0
    assert running.start == 0


def test_few_stay_of_those_that_are_removed(tmp_path: Path) -> None:
    """What a session remembers is bounded; what it forgets is not to come on top of that."""
    store = LogStore(ROOMY, ROOMY)
    before = known_logs()
    for number in range(800):
        log = store.create(tmp_path / f"{number}.log")
        log.append(b"x", 1)
        log.finish()
        if number >= 400:
            log.remove()
    assert known_logs() - before <= 400 + 400 * SHARE + FEW + 1


def known_logs() -> int:
    """How many of them there are, wherever."""
    return sum(isinstance(each, LogFile) for each in gc.get_objects())


def test_a_reserve_is_kept_where_there_is_nothing_to_open(tmp_path: Path) -> None:
    store = LogStore(ROOMY, ROOMY)
    store.keep_reserve()
    with descriptors_exhausted():
        with pytest.raises(FileNotFoundError):
            store.open(tmp_path / "absent", os.O_RDONLY)
        assert store._reserve is not None
    before = len(os.listdir("/proc/self/fd"))
    store.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def pour_calls(logs: int) -> int:
    """How many functions are called to pour into a log, for which some of so many have to go."""
    calls = 0

    def count(frame: object, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call"

    with tempfile.TemporaryDirectory() as directory:
        store = LogStore(ROOMY, logs * 2008)  # the change of stream counts, too
        files = [store.create(Path(directory) / f"{number}.log") for number in range(logs + 1)]
        for file in files[:-1]:
            file.append(b"x" * 2000, 1)
            file.finish()
        sys.setprofile(count)
        try:
            for _ in range(100):
                files[-1].append(b"x" * 1000, 1)
        finally:
            sys.setprofile(None)
        assert files[-1].kept_bytes == 100_000
        assert sum(not file.kept_bytes for file in files) in (50, 51)
        for file in files:
            file.remove()
        files[-1].finish()
        assert store.used_bytes == 0
    return calls


def test_what_has_to_go_is_found_as_fast_among_many() -> None:
    assert pour_calls(2000) < 2 * pour_calls(100)


def test_modes_are_private(tmp_path: Path) -> None:
    """Those of what is made anew, too, where somebody has removed all."""
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "state" / "session" / "1.log")
    for number in range(3 * HELD_BOUNDARIES):
        file.append(b"secret", 1 + number % 2)
    file.finish()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"state": 0o700, "session": 0o700, "1.log": 0o600, "1.streams": 0o600}


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("x" * 100)])
def test_what_others_put_in_the_place_of_a_finished_log(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    """However large it looks, it is nothing of what was said."""
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    file.append(b"hello", 1)
    file.finish()
    (tmp_path / "1.log").unlink()
    put(tmp_path / "1.log")
    assert list(file.snapshot().runs()) == []
    assert (file.start, file.end) == (5, 5)
    file.remove()


@pytest.mark.parametrize("name", ["1.log", "1.streams"])
@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_others_put_in_the_place_of_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, put: Callable[[Path], None]
) -> None:
    """It is neither waited for nor followed nor written to; what was to be there is lost.

    Where the stream changes is not, as long as memory has room for it.
    """
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    put(tmp_path / name)
    for number in range(2 * HELD_BOUNDARIES + 1):
        file.append(b"xy", 1 + number % 2)
    assert file.end == 2 * (2 * HELD_BOUNDARIES + 1)
    lost = name == "1.log"
    assert (file.start > 0) == lost
    assert b"".join(run.data for run in file.snapshot().runs()) == b"xy" * (file.kept_bytes // 2)
    assert ("output lost" in caplog.text) == lost
    file.finish()
    file.remove()


def test_file_size_limit_costs_output_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = LogStore(ROOMY, ROOMY).create(tmp_path / "1.log")
    file.append(b"a" * 1000, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        file.append(b"b" * 5000, 2)  # EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (file.start, file.end) == (6000, 6000)
    assert "output lost" in caplog.text
    file.append(b"c", 2)
    assert [(run.offset, run.stream, run.data) for run in file.snapshot().runs()] == [
        (6000, 2, b"c")
    ]
    file.finish()
