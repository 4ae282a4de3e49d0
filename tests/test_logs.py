"""Lines of procd's own log."""

import json
import logging
import sys
from datetime import datetime

import pytest

from procd.logs import REQUEST_ID, HumanFormatter, JsonFormatter, formatter


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    """A record as a logger makes it."""
    return logging.getLogger("procd.test").makeRecord(
        "procd.test", logging.WARNING, __file__, 1, message, args, None, extra=extra
    )


async def test_human() -> None:
    REQUEST_ID.set("r1")
    line = HumanFormatter().format(record("%d gone", 3, session="s1", pid=4))
    assert line == "WARNING procd.test: 3 gone request_id=r1 session=s1 pid=4"


async def test_human_quotes_what_would_be_misread() -> None:
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
