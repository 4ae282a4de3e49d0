"""execve: what is refused before a start is what the kernel refuses then, in the same words."""

import os
from collections.abc import Mapping

import pytest

from procd.errors import SpawnFailed
from procd.process.spawn import Spec, spawn
from procd.process.tags import TAG_BASE
from procd.process.spawn import MAX_PATH_BYTES, MAX_STRING_BYTES, check_startable

TAG = TAG_BASE + 78


def verdict(cwd: str, env: Mapping[str, str]) -> str:
    """What is said before the start; empty if nothing."""
    try:
        check_startable(cwd, env)
    except SpawnFailed as exc:
        return exc.message
    return ""


def outcome(cwd: str, env: Mapping[str, str]) -> str:
    """What is said at the start; empty if nothing."""
    spec = Spec(argv=("/bin/true",), cwd=cwd, env=env, stdio=(os.devnull,) * 3)
    try:
        pid = spawn(spec, TAG)
    except SpawnFailed as exc:
        return exc.message
    os.waitpid(pid, 0)
    return ""


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("character", ["x", "é", "😀"])
def test_one_string(character: str, more: int) -> None:
    """A character is as long as it is in UTF-8."""
    size = MAX_STRING_BYTES - len("A=\0") + more
    width = len(character.encode())
    env = {"A": character * (size // width) + "x" * (size % width)}
    assert verdict("/", env) == outcome("/", env)
    assert bool(verdict("/", env)) == (more > 0)


@pytest.mark.parametrize("number", [1, 2, *range(18, 24), *range(58, 66), 100])
def test_all_of_them(number: int) -> None:
    """The limit depends on that of the stack; not to the byte, as the program is part of it."""
    env = {f"V{each}": "x" * 100_000 for each in range(number)}
    assert verdict("/", env) == outcome("/", env)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_directory(more: int) -> None:
    """Its NUL is counted."""
    cwd = "/" * (MAX_PATH_BYTES - len("\0") + more)
    assert verdict(cwd, {}) == outcome(cwd, {})
    assert bool(verdict(cwd, {})) == (more > 0)
