"""Log: everything that a process writes, and the cursors of its readers.

One store serves any number of readers, and a late reader finds all that is still kept. The fastest
cursor sets the pace: when it lags by `high_bytes` the sources are paused, and resumed at a quarter
of that. So a single slow reader slows the process down, as a terminal does, and loses nothing. A
slow reader beside a fast one slows nothing down; when the store has dropped what it should read
next, its cursor is `lost`. Without cursors the sources are never paused.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Source(Protocol):
    """What the bytes of a log come from."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Store(Protocol):
    """Keeps the bytes of a log; the fastest cursor may lag by `safe_lag_bytes` and lose none."""

    end: int

    @property
    def start(self) -> int: ...

    @property
    def safe_lag_bytes(self) -> int: ...

    def append(self, data: bytes, stream: int = 0) -> None: ...


S_co = TypeVar("S_co", bound=Store, covariant=True)


class Log(Generic[S_co]):
    """An append-only sequence of bytes with an end.

    When the fastest cursor lags by `high_bytes`, or less if the store keeps little, the sources are
    paused; 0: never. `on_idle` is called when the last cursor is detached, and `tap` with
    everything that is appended.
    """

    __slots__ = ("_cursors", "_high_bytes", "_sources", "on_idle", "paused",
                 "sealed", "store", "tap")  # fmt: skip

    def __init__(self, store: S_co, high_bytes: int) -> None:
        self.store = store
        self.sealed = False
        self.paused = False
        self.on_idle: Callable[[], None] | None = None
        self.tap: Callable[[bytes], None] | None = None
        self._high_bytes = high_bytes
        self._cursors: tuple[Cursor, ...] = ()  # replaced, as it may change while it is iterated
        self._sources: list[Source] = []

    @property
    def readers(self) -> int:
        return len(self._cursors)

    @property
    def unread_bytes(self) -> int:
        """How far the slowest cursor lags."""
        return self.store.end - min(
            (cursor.offset for cursor in self._cursors), default=self.store.end
        )

    def feed_from(self, source: Source) -> None:
        self._sources.append(source)

    def append(self, data: bytes, stream: int = 0) -> None:
        self.store.append(data, stream)
        if self.tap is not None:
            self.tap(data)
        if self._cursors:
            self._wake()
            self.pace()

    def seal(self) -> None:
        """End the log: nothing follows. A second call does nothing."""
        if self.sealed:
            return
        self.sealed = True
        if self.paused:
            self._resume()
        self._sources.clear()
        if self._cursors:
            self._wake()

    def _wake(self) -> None:
        for cursor in self._cursors:
            cursor.wake()

    def attach(self, offset: int, wake: Callable[[], None]) -> "Cursor":
        """Add a cursor at `offset`; `wake` is called at each append and at the end.

        Await nothing between choosing `offset` and this call, or bytes may be missed.
        """
        cursor = Cursor(self, offset, wake)
        self._cursors = (*self._cursors, cursor)
        self.pace()
        return cursor

    def detach(self, cursor: "Cursor") -> None:
        if cursor in self._cursors:
            self._cursors = tuple([each for each in self._cursors if each is not cursor])
            self.pace()
            if self.on_idle is not None and not self._cursors:
                self.on_idle()

    def pace(self) -> None:
        """Pause or resume the sources by the lag of the fastest cursor."""
        if not self._cursors:
            lag = 0
        elif len(self._cursors) == 1:
            lag = self.store.end - self._cursors[0].offset
        else:
            lag = self.store.end - max([cursor.offset for cursor in self._cursors])
        if not lag and not self.paused:
            return
        high_bytes = min(self._high_bytes, self.store.safe_lag_bytes)
        if self.paused:
            if lag <= high_bytes // 4:
                self._resume()
        elif high_bytes and lag >= high_bytes:
            self.paused = True
            for source in self._sources:
                source.pause()

    def _resume(self) -> None:
        self.paused = False
        for source in self._sources:
            source.resume()


class Cursor:
    __slots__ = ("log", "offset", "wake")

    def __init__(self, log: Log[Store], offset: int, wake: Callable[[], None]) -> None:
        self.log = log
        self.offset = offset
        self.wake = wake

    @property
    def lost(self) -> bool:
        """Whether bytes were dropped before they were read."""
        return self.offset < self.log.store.start

    @property
    def at_end(self) -> bool:
        """Whether all was read and nothing follows."""
        return self.log.sealed and self.offset == self.log.store.end

    def advance(self, offset: int) -> None:
        self.offset = offset
        if self.log.paused:
            self.log.pace()

    def close(self) -> None:
        """Detach from the log; `wake` isn't called again."""
        self.log.detach(self)
        self.wake = _ignore  # break the reference cycle with the reader


def _ignore() -> None:
    pass
