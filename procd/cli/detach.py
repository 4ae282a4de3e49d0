"""The keys that leave a terminal, which are not sent to it."""

from typing import Final

from procd.cli.failure import Failure

DEFAULT: Final = "ctrl-p,ctrl-q"
# How long the first of the keys waits for the next: as long as readline(3) waits for the rest of an
# ambiguous sequence (keyseq-timeout). A program for which it is a key of its own gets it then.
HOLD_S: Final = 0.5
CONTROLS: Final = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def parse(text: str) -> bytes:
    """The bytes of keys written like `ctrl-p,ctrl-q`; none for the empty text, for "never".

    Raises:
        Failure: a key is no single character and no `ctrl-` with one.
    """
    keys = bytearray()
    for name in text.split(",") if text else []:
        control = name.lower().removeprefix("ctrl-")
        if len(name) == 1 and name.isascii():
            keys += name.encode()
        elif control != name.lower() and len(control) == 1 and control in CONTROLS:
            keys.append(CONTROLS.index(control))
        else:
            raise Failure(
                f"--detach-keys {text}: {name or 'nothing'}: no such key",
                f"write letters, or ctrl- and a letter, with commas between: {DEFAULT}",
            )
    return bytes(keys)


class Detacher:
    """Finds the keys in what is typed. What may be the beginning of them is held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    def let_go(self) -> bytes:
        """What was held back, and is to be sent: it was no beginning."""
        held, self._held = self._held, b""
        return held

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What of `data` and of what was held back is to be sent, and whether the keys came."""
        if not self._keys:
            return data, False
        data = self._held + data
        found = data.find(self._keys)
        if found >= 0:
            self._held = b""
            return data[:found], True
        for size in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:size]):
                self._held = data[-size:]
                return data[:-size], False
        self._held = b""
        return data, False
