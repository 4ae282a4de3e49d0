"""Runs a Python program as `python3 -` would, and reports the charts that it shows.

A script for the user's own interpreter, Python 3.8 or later. Its first two arguments are how many
bytes of charts procd accepts and the key of their lines, the others are the program's. The program
is the file at descriptor CODE_FD; charts go to ARTIFACTS_FD, apart from the program's output.

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
# As in isolation.py: builtins that the program replaces are not called by our code.
__builtins__ = dict(vars(builtins))  # type: ignore[assignment]


def _take_place() -> types.ModuleType:
    """Make the process look as `python3 -` looks to a program. Returns the program's module."""
    package = types.ModuleType("_procd")  # our other modules, under a name that users don't have
    package.__path__ = [dirname(__file__)]  # noqa: PTH120 - pathlib takes longer than all of this
    sys.modules["_procd"] = package
    safe_path = getattr(sys.flags, "safe_path", False)  # since Python 3.11
    if not safe_path:
        del sys.path[0]  # our directory; the program's comes when we have imported our modules
    room_bytes, key = int(sys.argv.pop(1)), sys.argv.pop(1)
    sys.argv[0] = "-"
    from _procd import pyplot_hook  # type: ignore[import-not-found]  # see above
    from _procd.artifacts import Artifacts  # type: ignore[import-not-found]

    if not safe_path:
        sys.path.insert(0, "")
    for name in "fcntl", "resource":  # the program's own modules of these names can be imported
        sys.modules.pop(name, None)
    pyplot_hook.install(Artifacts(ARTIFACTS_FD, room_bytes, key).emit)
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
    text = source.decode("utf-8-sig", "replace")
    lines = io.StringIO(f"{text}\n", newline=None).readlines()
    linecache.cache[FILENAME] = (len(text), None, lines, FILENAME)


def main() -> None:
    """Run the program; what it leaves behind, exit code included, is as it was without us."""
    module = _take_place()
    with open(CODE_FD, "rb") as file:
        source = file.read()  # bytes: with its byte order mark and the encoding it declares
    _remember(source)
    try:
        exec(compile(source, FILENAME, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what it is for
        return
    except SystemExit:
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever the program raises is shown as Python does
        raised = exc.with_traceback(exc.__traceback__ and exc.__traceback__.tb_next)  # not ours
    # After the `except`, so that it is no context of what the program's hook raises.
    _report(raised)
    sys.exit(130 if isinstance(raised, KeyboardInterrupt) else 1)


def _report(raised: BaseException) -> None:
    if sys.excepthook is sys.__excepthook__:
        lines = traceback.format_exception(type(raised), raised, raised.__traceback__)
        sys.stderr.write("".join(lines))
    else:
        sys.excepthook(type(raised), raised, raised.__traceback__)


if __name__ == "__main__":
    main()
