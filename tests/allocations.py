"""A moment without memory, at any allocation that Python makes for something.

Source: CPython's `_testcapi`, which not everybody's Python has.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
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


def short_in(number: int, act: Callable[[], object]) -> str:
    """As `short`: the name of the file that found none; empty if all did, or only C code knows."""
    testcapi: Any = pytest.importorskip("_testcapi")
    testcapi.set_nomemory(number, number + 1)
    try:
        act()
    except MemoryError as exc:
        testcapi.remove_mem_hooks()
        return Path(traceback.extract_tb(exc.__traceback__)[-1].filename).name
    except SystemError:  # an "error return without exception set"
        pass
    finally:
        testcapi.remove_mem_hooks()
    return ""
