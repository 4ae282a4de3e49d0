"""What the user's code has the interpreter call at any time: signal handlers, tracers, monitors."""

from __future__ import annotations

import sys
from _signal import (  # type: ignore[import-not-found]  # signal's own, without its wrappers
    getsignal,
    valid_signals,
)
from _signal import signal as set_handler
from os import _exit as exit_at_once
from sys import getprofile, gettrace, maxsize, setprofile, settrace

from .own import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from typing import Any

SIGNALS = sorted(valid_signals())
monitoring: Any = getattr(sys, "monitoring", None)  # since Python 3.12
TOOLS = range(6 if monitoring is not None else 0)
if TOOLS:
    get_events, get_tool = monitoring.get_events, monitoring.get_tool
    set_events = monitoring.set_events


def exit_byte(code: int) -> int:
    """What is left of an exit code: of what is no C long, as CPython has it, nothing but ones."""
    return code & 0xFF if -maxsize - 1 <= code <= maxsize else 0xFF


class Hooks:
    """Put aside while no code of the user's runs: what they raise would be raised in ours.

    Signals are heard all the time. What a handler raises meanwhile is nobody's, but for SystemExit,
    which is meant for the process.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._trace: Any = None
        self._profile: Any = None
        self._events: dict[int, int] = {}  # by tool
        self._guard = self._handle  # one object, to be known again
        self._holding = False
        self._held: BaseException | None = None

    def put_aside(self) -> None:
        """Have no hook raise anything from now on; a second time does no harm."""
        for tool in TOOLS:
            if get_tool(tool) is not None and (events := get_events(tool)):
                self._events[tool] = events
                set_events(tool, 0)
        if gettrace() is not None:
            self._trace = gettrace()
            settrace(None)
        if getprofile() is not None:
            self._profile = getprofile()
            setprofile(None)
        for number in SIGNALS:
            handler = getsignal(number)
            if callable(handler) and handler is not self._guard:
                self._handlers[number] = handler
                set_handler(number, self._guard)

    def replace(self, number: int, handler: Any) -> None:
        """While they are put aside, have another handler for a signal when they go on."""
        self._handlers[number] = handler
        set_handler(number, self._guard)

    def put_back(self) -> None:
        """Let them go on."""
        for number, handler in self._handlers.items():
            set_handler(number, handler)
        self._handlers.clear()
        profile, self._profile = self._profile, None
        trace, self._trace = self._trace, None
        if profile is not None:
            setprofile(profile)
        if trace is not None:
            settrace(trace)
        while self._events:
            set_events(*self._events.popitem())

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        try:
            self._handlers[number](number, frame)
        except SystemExit as exc:
            if not self._holding:
                exit_at_once(exit_byte(exc.code) if type(exc.code) is int else exc.code is not None)
            self._held = exc
        except BaseException as exc:  # noqa: BLE001 - whatever the user's handler raises
            self._held = exc

    def __enter__(self) -> None:
        """Put them aside for a moment in the midst of the user's code."""
        self._held = None
        self._holding = True
        self.put_aside()

    def __exit__(self, *_: object) -> None:
        """Let them go on; what a handler has raised meanwhile is raised now."""
        try:
            self.put_back()
        finally:
            self._holding = False
        held, self._held = self._held, None
        if held is not None:
            raise held
