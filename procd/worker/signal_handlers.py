"""Signal handlers of the user's code, which Python may call at any time."""

from __future__ import annotations

from _signal import (  # type: ignore[import-not-found]  # without the wrappers of `signal`
    getsignal,
    valid_signals,
)
from _signal import signal as set_handler
from os import _exit as exit_at_once

from .isolation import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from typing import Any

SIGNALS = sorted(valid_signals())


class SignalHandlers:
    """Guarded while the user's code doesn't run: what they raise would be raised in our code.

    They are called all the time. An exception is dropped meanwhile, but for SystemExit, which ends
    the process.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._guard = self._handle  # one object, to be recognised

    def guard(self) -> None:
        """Guard all handlers; a second time does nothing."""
        for number in SIGNALS:
            handler = getsignal(number)
            if callable(handler) and handler is not self._guard:
                self.replace(number, handler)

    def replace(self, number: int, handler: Any) -> None:
        """Set the handler that a signal has after `release`."""
        self._handlers[number] = handler
        set_handler(number, self._guard)

    def release(self) -> None:
        """Undo `guard`."""
        for number, handler in self._handlers.items():
            set_handler(number, handler)
        self._handlers.clear()

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        try:
            self._handlers[number](number, frame)
        except SystemExit as exc:
            exit_at_once(exc.code & 0xFF if type(exc.code) is int else exc.code is not None)
        except BaseException:  # noqa: BLE001 - whatever the user's handler raises
            return
