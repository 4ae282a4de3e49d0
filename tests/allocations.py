"""A moment without memory, at any allocation that Python makes for something.

Source: CPython's `_testcapi`, which not everybody's Python has.
"""

from collections.abc import Callable
from typing import Any

import pytest

# More than what is tried here makes.
ALLOCATIONS = range(80)


def short(number: int, act: Callable[[], object]) -> bool:
    """Call `act`, which finds no memory for its `number`th allocation; whether it says so."""
    testcapi: Any = pytest.importorskip("_testcapi")
    testcapi.set_nomemory(number, number + 1)
    try:
        act()
    except MemoryError:
        return True
    finally:
        testcapi.remove_mem_hooks()
    return False
