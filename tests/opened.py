"""The files that this process opens, by an audit hook."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_watches: list[list[str]] = []


@cache
def _install() -> None:
    """Add the hook; it can't be removed."""
    sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        for paths in _watches:
            paths.append(str(arguments[0]))


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """Collect the paths that are opened, each as often as it is."""
    _install()
    paths: list[str] = []
    _watches.append(paths)
    try:
        yield paths
    finally:
        _watches.remove(paths)
