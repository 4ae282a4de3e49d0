"""Runs a Python program as `python3 -` would, and reports the charts that it shows.

A script for the user's own interpreter, Python 3.8 or later. Its first argument is how many bytes
of charts procd takes, the rest are the program's. The program's text is the file at descriptor
CODE_FD; charts go to ARTIFACTS_FD, so that no text of the program's can pass for one.

Source: Process API contract, sections 7.2 and 7.4.
"""

from __future__ import annotations

import builtins
import io
import linecache
import sys
import traceback
import types
from importlib.machinery import BuiltinImporter
from os.path import dirname

CODE_FD = 3
ARTIFACTS_FD = 4
FILENAME = "<target_code>"
# As in own.py: ours, whatever the program makes of them.
__builtins__ = dict(vars(builtins))  # type: ignore[assignment]


def _take_place() -> types.ModuleType:
    """Make the process look as `python3 -` looks to a program; its module."""
    package = types.ModuleType("_procd")  # our neighbours, under a name of nobody's
    package.__path__ = [dirname(__file__)]  # noqa: PTH120 - pathlib takes longer than all of this
    sys.modules["_procd"] = package
    safe_path = getattr(sys.flags, "safe_path", False)  # since Python 3.11
    if not safe_path:
        del sys.path[0]  # our directory; the program's comes when what we import is Python's own
    room_bytes = int(sys.argv.pop(1))
    sys.argv[0] = "-"
    from _procd import pyplot_hook  # type: ignore[import-not-found]  # see above
    from _procd.artifacts import Artifacts  # type: ignore[import-not-found]

    if not safe_path:
        sys.path.insert(0, "")
    for name in "fcntl", "resource":  # they don't stand before the program's own of these names
        sys.modules.pop(name, None)
    pyplot_hook.install(Artifacts(ARTIFACTS_FD, room_bytes).emit)
    module = types.ModuleType("__main__")
    if sys.version_info < (3, 14):
        module.__dict__.update(__annotations__={})
    module.__dict__.update(
        __builtins__=builtins,  # the module; `exec` would take its dictionary
        __loader__=BuiltinImporter,
        __file__="<stdin>",
        __cached__=None,
    )
    sys.modules["__main__"] = module
    return module


def _remember(source: bytes) -> None:
    """Have tracebacks show the program's lines."""
    text = source.decode("utf-8-sig", "replace")
    lines = io.StringIO(f"{text}\n", newline=None).readlines()
    linecache.cache[FILENAME] = (len(text), None, lines, FILENAME)


def main() -> None:
    """Run the program; what it leaves behind, exit code included, is as it was without us."""
    module = _take_place()
    with open(CODE_FD, "rb") as file:
        source = file.read()  # bytes: with its byte order mark and what it says of its encoding
    _remember(source)
    try:
        exec(compile(source, FILENAME, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what it is for
        return
    except SystemExit:
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever the program raises is shown as Python does
        raised = _less_ours(exc)
    # Not while it is handled: it is no context of what the program's hook raises.
    _report(raised)
    sys.exit(130 if isinstance(raised, KeyboardInterrupt) else 1)


def _report(raised: BaseException) -> None:
    """Show an exception, or have the program's hook do so.

    Source: CPython's PyErr_PrintEx, for what becomes of a hook that fails.
    """
    if not hasattr(sys, "excepthook"):
        print("sys.excepthook is missing", file=sys.stderr)
    elif sys.excepthook is not sys.__excepthook__:
        try:
            sys.excepthook(type(raised), raised, raised.__traceback__)
            return
        except SystemExit:
            raise
        except BaseException as exc:  # noqa: BLE001 - whatever it raises is shown as well
            print("Error in sys.excepthook:", file=sys.stderr)
            _print(_less_ours(exc))
            print("\nOriginal exception was:", file=sys.stderr)
    _print(raised)


def _less_ours(exc: BaseException) -> BaseException:
    """An exception with the program's own frames alone; ours is the first."""
    assert exc.__traceback__ is not None
    return exc.with_traceback(exc.__traceback__.tb_next)


def _print(exc: BaseException) -> None:
    try:
        lines = traceback.format_exception(type(exc), exc, exc.__traceback__)
        sys.stderr.write("".join(lines))
    except Exception:  # noqa: BLE001 - the program has broken what that takes
        sys.__excepthook__(type(exc), exc, exc.__traceback__)  # which shows no lines of its source


if __name__ == "__main__":
    main()
