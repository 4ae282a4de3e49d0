"""Signals, to wait for in a poll loop or to end with."""

import signal
import socket
from collections.abc import Iterable
from types import FrameType
from typing import Final

# What asks a program with a terminal to end.
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Signals:
    """Receives signals in place of their default action; those that were ignored stay so: nohup(1).

    While `raising`, a signal of ENDING raises SystemExit(128 + number) and sets it to False. Else
    `take` returns the signals; a second one of ENDING before that raises nevertheless, because the
    loop is stuck. Source: the documentation of signal.set_wakeup_fd.
    """

    def __init__(self, numbers: Iterable[int], *, raising: bool = False) -> None:
        self._numbers = tuple(numbers)
        self.raising = raising
        self._received: list[int] = []
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        self._woken, self._waker = socket.socketpair()
        self._woken.settimeout(0)
        self._waker.settimeout(0)
        self._fd_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself gave
        signal.set_wakeup_fd(self._fd_before)
        self._woken.close()
        self._waker.close()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        stuck = any(received in ENDING for received in self._received)
        if number in ENDING and (self.raising or stuck):
            self.raising = False
            self._received.clear()
            raise SystemExit(128 + number)
        self._received.append(number)

    def fileno(self) -> int:
        return self._woken.fileno()

    def take(self) -> list[int]:
        try:
            while self._woken.recv(4096):
                continue
        except BlockingIOError:
            pass
        received, self._received = self._received, []
        return received
