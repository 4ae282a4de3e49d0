"""procd's own log: formats, and a handler that never blocks."""

import contextlib
import json
import logging
import os
import re
import select
import stat
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

# The id of the request that the current task serves, or was started by; "" if there is none.
REQUEST_ID: Final[ContextVar[str]] = ContextVar("REQUEST_ID", default="")

# The attributes of every record; all others come from `extra`.
STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
PLAIN: Final = re.compile(r"[^\s\"=\\]+", re.ASCII)


def facts(record: logging.LogRecord) -> dict[str, object]:
    """The id of the request and the `extra` of a record."""
    request_id = REQUEST_ID.get()
    found: dict[str, object] = {"request_id": request_id} if request_id else {}
    return found | {name: value for name, value in vars(record).items() if name not in STANDARD}


class HumanFormatter(logging.Formatter):
    """`LEVEL logger: message key=value`, without the time, which journald adds."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {name}={_word(value)}" for name, value in facts(record).items())
        return super().formatMessage(record) + pairs


def _word(value: object) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339), level, logger, message, `facts`, exception."""

    def format(self, record: logging.LogRecord) -> str:
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
    return JsonFormatter() if name == "json" else HumanFormatter()


class NonBlockingHandler(logging.Handler):
    """Writes records to a descriptor, and drops them while it is full.

    A warning before the next record tells the number of dropped ones.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = _own(number)
        self._room = select.poll()
        self._room.register(self._number, select.POLLOUT)
        self._rest = b""  # of a partly written record
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.flush()
            if self._rest:
                self._dropped += 1
                return
            whole = self._rest = self._lines(record)
            self.flush()
            if len(self._rest) < len(whole):
                self._dropped = 0
            else:
                self._rest = b""
                self._dropped += 1
        except Exception:  # noqa: BLE001 - as in every handler
            self.handleError(record)

    def _lines(self, record: logging.LogRecord) -> bytes:
        text = self.format(record) + "\n"
        if self._dropped:
            message = "%d log records were dropped: nobody read them"
            loss = logging.LogRecord(
                __name__, logging.WARNING, __file__, 0, message, (self._dropped,), None
            )
            text = f"{self.format(loss)}\n{text}"
        return text.encode(errors="backslashreplace")

    def flush(self) -> None:
        """Write as much of the rest as fits.

        A writable pipe or socket has room for PIPE_BUF bytes, so that the write doesn't block even
        if the descriptor is blocking. Source: pipe(7), "PIPE_BUF".
        """
        with contextlib.suppress(OSError):  # full, or closed by its reader
            while self._rest and self._room.poll(0):
                written = os.write(self._number, self._rest[: select.PIPE_BUF])
                self._rest = self._rest[written:]

    def close(self) -> None:
        os.close(self._number)
        self._number = -1
        super().close()


def _own(number: int) -> int:
    """A descriptor of the same file, non-blocking if possible.

    The file is opened again, as other processes share the flags of the open one.
    """
    if not stat.S_ISREG(os.fstat(number).st_mode):  # which never blocks
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            return os.open(f"/proc/self/fd/{number}", flags)
    return os.dup(number)
