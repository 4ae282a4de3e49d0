"""What a child of ours opens by path, to have a descriptor of its own for a pipe or a file of ours.

A child of our own user finds it through procd's /proc, without a name anywhere that could be taken
away, and without a disk. Another user's child may not look there: for that one there are FIFOs and
files in a directory.

Source: proc_pid_fd(5); fifo(7); pipe(7).
"""

import logging
import os
from pathlib import Path
from typing import Final, NamedTuple

from procd.process.limits import Confinement
from procd.services.shell.open_watch import UNKNOWN, Sightings
from procd.unix.fd import OwnedFd, anonymous_file, pipe, write_all

log = logging.getLogger(__name__)

MODE: Final = 0o600
NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Paths(NamedTuple):
    """What a shell opens for one command."""

    script: str
    stdin: str
    stdout: str
    stderr: str


def name_of(number: int, pid: int | str = "self") -> str:
    """What the kernel calls what descriptor `number` of a process is; empty if there is none.

    No file system is asked, as by stat(2): one of a network might never answer. What is removed
    from one keeps its name here.

    Source: proc_pid_fd(5).
    """
    try:
        name = os.readlink(f"/proc/{pid}/fd/{number}")  # noqa: PTH115 - a str
    except OSError:
        return ""
    return name.removesuffix(" (deleted)")


class Opening:
    """A descriptor of ours, and the path by which a child opens the same.

    The path is good until `close`.
    """

    __slots__ = ("_name", "_sightings", "_watched", "fd")

    def __init__(self, fd: OwnedFd, name: str = "", sightings: Sightings | None = None) -> None:
        self.fd = fd
        self._name = name
        self._sightings = sightings
        self._watched = UNKNOWN if sightings is None else sightings.watch(fd)

    @property
    def path(self) -> str:
        """Where a child finds it."""
        return self._name or f"/proc/{os.getpid()}/fd/{self.fd.number}"

    @property
    def named(self) -> bool:
        """Whether it has a name of its own, as a FIFO, which waits for its other end, has."""
        return bool(self._name)

    def opened_by(self, pid: int, number: int) -> bool:
        """Whether descriptor `number` of a process is this one's pipe or file."""
        return name_of(number, pid) == name_of(self.fd.number)

    @property
    def opened(self) -> bool:
        """Whether anybody has opened it by now; also where it isn't watched, and none can know."""
        return self._sightings is None or self._sightings.seen(self._watched, self.fd)

    def close(self) -> None:
        """Close it, and remove its name if it has one and that can be done.

        Further calls do nothing.
        """
        if self._sightings is not None:
            self._sightings.forget(self._watched)
            self._sightings = None
        self.fd.close()  # unless whoever was given it has
        if self._name:
            name, self._name = self._name, ""
            try:
                Path(name).unlink(missing_ok=True)
            except OSError as exc:
                log.warning("a name is left: %s: %s", name, exc.strerror)


class Openings:
    """Makes them, for the children of one user.

    Args:
        directory: where names are made for another user's children; it must be theirs to pass.
        sightings: what tells whether a child has opened a file.
    """

    def __init__(
        self, confinement: Confinement, directory: Path, sightings: Sightings | None = None
    ) -> None:
        self._confinement = confinement
        self._sightings = sightings
        self._directory = directory if confinement.owner is not None else None

    def pipe(self, name: str) -> tuple[OwnedFd, Opening]:
        """A reading end for us, and a writing end that a child opens; `name` is for FIFOs.

        Raises:
            OSError: there is no descriptor left, or no room for a name.
        """
        if self._directory is None:
            reading, writing = pipe()
            return reading, Opening(writing)
        path = self._fifo(name)
        reading = _open(path, os.O_RDONLY)
        try:
            return reading, Opening(_open(path, os.O_WRONLY), path)
        except OSError:
            reading.close()
            raise

    def source(self, name: str) -> tuple[Opening, OwnedFd]:
        """A reading end that a child inherits or opens, and a writing end for us.

        Raises:
            OSError: as `pipe`.
        """
        if self._directory is None:
            reading, writing = pipe()
            return Opening(reading), writing
        path = self._fifo(name)
        opening = Opening(_open(path, os.O_RDONLY), path)
        os.set_blocking(opening.fd.number, True)  # an inherited one has the same flag
        try:
            return opening, _open(path, os.O_WRONLY)
        except OSError:
            opening.close()
            raise

    def channel(self, name: str) -> Opening:
        """Both ends of a pipe in one descriptor: a child that opens either never waits, and sees no
        end until it is closed.

        Raises:
            OSError: as `pipe`.
        """
        if self._directory is not None:
            path = self._fifo(name)
            return Opening(_open(path, os.O_RDWR), path)
        reading, writing = pipe()
        try:
            return Opening(_open(f"/proc/self/fd/{reading.number}", os.O_RDWR, follow=True))
        finally:
            reading.close()
            writing.close()

    def file(self, name: str, content: bytes) -> Opening:
        """A file with `content`, which is watched: see `Opening.opened`.

        Raises:
            OSError: as `pipe`, or there is no memory for it.
        """
        if self._directory is None:
            return Opening(anonymous_file(name, content), sightings=self._sightings)
        path = self._path(name)
        file = OwnedFd(os.open(path, NEW_FILE, MODE))
        try:
            self._confinement.give(file.number)
            write_all(file, content)
        except OSError:
            Opening(file, path).close()
            raise
        return Opening(file, path, self._sightings)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def _fifo(self, name: str) -> str:
        path = self._path(name)
        os.mkfifo(path, MODE)
        self._confinement.give(path)
        return path


def _open(path: str, flags: int, *, follow: bool = False) -> OwnedFd:
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    return OwnedFd(os.open(path, flags))
