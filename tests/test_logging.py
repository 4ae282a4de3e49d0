"""Lines of procd's own log."""

import json
import logging
import os
import re
import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from procd.logging import REQUEST_ID, HumanFormatter, JsonFormatter, NonBlockingHandler, formatter


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    """A record as a logger makes it."""
    return logging.getLogger("procd.test").makeRecord(
        "procd.test", logging.WARNING, __file__, 1, message, args, None, extra=extra
    )


async def test_human() -> None:
    REQUEST_ID.set("r1")
    line = HumanFormatter().format(record("%d gone", 3, session="s1", pid=4))
    assert line == "WARNING procd.test: 3 gone request_id=r1 session=s1 pid=4"


async def test_human_quotes_ambiguous_values() -> None:
    line = HumanFormatter().format(record("x", a="1 b=2", c="\n", d="", e="ü"))
    assert line == r'WARNING procd.test: x a="1 b=2" c="\n" d="" e=ü'


async def test_json() -> None:
    REQUEST_ID.set("r1")
    made = record("%s gone\n", "all", session='s"1', pid=4)
    line = JsonFormatter().format(made)
    assert "\n" not in line
    told = json.loads(line)
    moment = datetime.fromisoformat(told.pop("time"))
    assert moment.tzinfo is not None
    assert abs(moment.timestamp() - made.created) < 0.01
    assert told == {
        "level": "warning", "logger": "procd.test", "message": "all gone\n", "request_id": "r1",
        "session": 's"1', "pid": 4,
    }  # fmt: skip


async def test_json_outside_of_requests() -> None:
    assert "request_id" not in json.loads(JsonFormatter().format(record("x")))


@pytest.mark.parametrize("name", ["human", "json"])
def test_tracebacks(name: str) -> None:
    made = record("failed")
    try:
        raise ValueError("why")
    except ValueError:
        made.exc_info = sys.exc_info()
    text = formatter(name).format(made)
    if name == "json":
        text = json.loads(text)["exception"]
    assert text.endswith("ValueError: why")


def sockets() -> tuple[int, int]:
    """As journald gives one to a service."""
    reading, writing = socket.socketpair()
    return reading.detach(), writing.detach()


@contextmanager
def handler_of(number: int) -> Iterator[NonBlockingHandler]:
    """A handler that writes there."""
    handler = NonBlockingHandler(number)
    handler.setFormatter(HumanFormatter())
    yield handler
    handler.close()


def unread(number: int) -> str:
    """All that comes until nothing does for a while; a terminal adds the carriage returns."""
    read = b""
    while select.select([number], [], [], 0.1)[0] and (data := os.read(number, 64 << 10)):
        read += data
    return read.decode().replace("\r", "")


ENDS = pytest.mark.parametrize(
    "ends", [os.pipe, sockets, os.openpty], ids=["pipe", "socket", "terminal"]
)


@ENDS
@pytest.mark.parametrize("size", [10, 1000, 10_000])
def test_nobody_reads(ends: Callable[[], tuple[int, int]], size: int) -> None:
    """Dropped records are counted, the others are complete."""
    reading, writing = ends()
    said, number = "", 0
    with handler_of(writing) as handler:
        for number in range((1 << 20) // size):
            handler.handle(record("%d %s", number, "x" * size))
        while not said.endswith(f" {number} heard\n"):
            number += 1
            handler.handle(record("%d heard", number))
            said += unread(reading)
    lost = re.findall(
        r"^WARNING procd\.logging: (\d+) log records were dropped: ", said, re.MULTILINE
    )
    come = re.findall(rf"^WARNING procd\.test: (\d+) (?:x{{{size}}}|heard)$", said, re.MULTILINE)
    assert lost
    assert len(come) + len(lost) == len(said.splitlines())
    assert [int(each) for each in come] == sorted({int(each) for each in come})
    assert sum(map(int, lost)) + len(come) == number + 1
    os.close(reading)
    os.close(writing)


@ENDS
def test_the_reader_has_gone(ends: Callable[[], tuple[int, int]]) -> None:
    reading, writing = ends()
    with handler_of(writing) as handler:
        os.close(reading)
        handler.handle(record("x"))
    with handler_of(writing) as handler:  # which finds nobody from the beginning
        handler.handle(record("x"))
    os.close(writing)


@ENDS
def test_the_shared_descriptor_stays_blocking(ends: Callable[[], tuple[int, int]]) -> None:
    reading, writing = ends()
    with handler_of(writing) as handler:
        handler.handle(record("x"))
        assert os.get_blocking(writing)
    os.close(reading)
    os.close(writing)


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """As with `procd serve 2> FILE`: all writers share the position."""
    path = tmp_path / "log"
    with path.open("wb", buffering=0) as file, handler_of(file.fileno()) as handler:
        file.write(b"before\n")
        handler.handle(record("x"))
        file.write(b"after\n")
    assert path.read_text() == "before\nWARNING procd.test: x\nafter\n"
