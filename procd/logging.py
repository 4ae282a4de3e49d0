"""procd's own log: what a line looks like, and which request it belongs to."""

import asyncio
import contextlib
import json
import logging
import os
import re
import select
import stat
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

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


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a callback of the event loop has raised; the loop ends if this raises as well."""
    try:
        loop.default_exception_handler(context)
    except MemoryError:
        return  # the callback's own error will have been the same


class NeverWaiting(logging.Handler):
    """Writes records to a descriptor, whether or not anybody reads what it leads to.

    What doesn't fit, or there is no memory for, is dropped; the next record that fits comes with
    how many were.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = _own(number)
        self._room = select.poll()
        self._room.register(self._number, select.POLLOUT)
        self._rest = b""  # of what is half written
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the lines of a record, or drop it."""
        try:
            whole = self._lines(record)
            self.flush()
            if not self._rest:
                self._rest = whole
                self.flush()
                if len(self._rest) < len(whole):
                    self._dropped = 0
                    return
                self._rest = b""
        except MemoryError:
            pass  # to show a traceback, as below, takes more than the line did
        except Exception:  # noqa: BLE001 - as in every handler: whoever logs must not fail
            self.handleError(record)
            return
        self._dropped += 1

    def _lines(self, record: logging.LogRecord) -> bytes:
        text = self.format(record) + "\n"
        if self._dropped:
            text = f"{self.format(self._loss())}\n{text}"
        return text.encode(errors="backslashreplace")

    def _loss(self) -> logging.LogRecord:
        message = "%d log records were dropped: nobody read them, or there was no memory"
        return logging.LogRecord(
            __name__, logging.WARNING, __file__, 0, message, (self._dropped,), None
        )

    def flush(self) -> None:
        """Write what fits of what is left.

        In pieces for which there is room where there is any: a socket, and what is another user's,
        can't be made non-blocking. Source: pipe(7), "PIPE_BUF"; unix_writable() of Linux.
        """
        with contextlib.suppress(OSError):  # full after all, or nobody is there to read
            while self._rest and self._room.poll(0):
                written = os.write(self._number, self._rest[: select.PIPE_BUF])
                self._rest = self._rest[written:]

    def close(self) -> None:
        """Close its own descriptor."""
        os.close(self._number)
        self._number = -1
        super().close()


def _own(number: int) -> int:
    """A descriptor of what `number` leads to: non-blocking, if it can be.

    The flag belongs to the open file, which others share: where it is needed, it is opened anew.
    """
    if not stat.S_ISREG(os.fstat(number).st_mode):  # a file never blocks, and has its place
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            return os.open(f"/proc/self/fd/{number}", flags)
    return os.dup(number)
