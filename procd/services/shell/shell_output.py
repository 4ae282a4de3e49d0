"""Words: what a session's shell says itself, beside what it runs."""

from typing import Final

from procd.output.buffer import Buffer
from procd.output.log import Log
from procd.output.logfile import LogFile

# It is kept, in case these are its last words (an EXIT trap). What it repeats of what it was told
# (`set -v`) is less than this.
LAST_WORDS_BYTES: Final = 16 << 10


class Words:
    """The words of one shell.

    Args:
        kept: where they are, of which nothing is lost at once.
    """

    __slots__ = ("_kept", "_traced")

    def __init__(self, kept: Buffer) -> None:
        self._kept = kept
        self._traced = b""

    @property
    def many(self) -> bool:
        """Whether there are too many to wait for the shell's end."""
        return self._kept.kept_bytes > LAST_WORDS_BYTES

    def begin(self, script: str) -> None:
        """Forget them: the shell is about to source `script`, and may trace that."""
        self._traced = f" . {script}".encode()
        self._kept.clear()

    def move_to(self, log: Log[LogFile]) -> None:
        """Move them into a command's log, less the lines that name what is sourced."""
        for run in self._kept.runs():
            lines = run.data.splitlines(keepends=True)
            words = b"".join(line for line in lines if self._traced not in line)
            if words:
                log.append(words, run.stream)
        self._kept.clear()

    def clear(self) -> None:
        """Forget them."""
        self._kept.clear()
