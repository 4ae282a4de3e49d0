"""A moment without memory, as processes are looked for."""

import itertools
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# What a look asks the kernel by.
CALLS = ["os.open", "os.read", "os.pidfd_open", "resource.prlimit"]


def no_memory_for(monkeypatch: pytest.MonkeyPatch, call: str, failing: int = 0) -> Iterator[int]:
    """Have one call find no memory: its number, of those of a look, is `failing`.

    Returns:
        The numbers of those to come.
    """
    module, _, name = call.rpartition(".")
    function = getattr(sys.modules[module], name)
    numbers = itertools.count()

    def short(subject: Any, *others: Any, **more: Any) -> Any:
        if _of_a_look(call, subject) and next(numbers) == failing:
            raise MemoryError
        return function(subject, *others, **more)

    monkeypatch.setattr(call, short)
    return numbers


def _of_a_look(call: str, subject: Any) -> bool:
    if call == "os.read":
        subject = os.readlink(f"/proc/self/fd/{subject}")
    return not isinstance(subject, str) or subject.startswith("/proc/")
