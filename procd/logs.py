"""procd's own log: what a line looks like, and which request it belongs to."""

import json
import logging
import re
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

# The id of the request that is being served, or that started what goes on now; "" for none.
REQUEST_ID: Final[ContextVar[str]] = ContextVar("REQUEST_ID", default="")

# What every record has; the rest is what a caller gave as `extra`.
STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
PLAIN: Final = re.compile(r"[^\s\"=\\]+", re.ASCII)


def facts(record: logging.LogRecord) -> dict[str, object]:
    """What belongs to a line beside its message: the request's id, and the caller's `extra`."""
    request_id = REQUEST_ID.get()
    found: dict[str, object] = {"request_id": request_id} if request_id else {}
    return found | {name: value for name, value in vars(record).items() if name not in STANDARD}


class HumanFormatter(logging.Formatter):
    """`LEVEL logger: message key=value`, without a time: journald adds it."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without its traceback."""
        pairs = "".join(f" {name}={_word(value)}" for name, value in facts(record).items())
        return super().formatMessage(record) + pairs


def _word(value: object) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339), level, logger, message, the facts, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        } | facts(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def formatter(name: str) -> logging.Formatter:
    """The formatter of this name (`log.format`)."""
    return JsonFormatter() if name == "json" else HumanFormatter()
