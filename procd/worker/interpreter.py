"""A Python interpreter that keeps its state, and serves requests over a socket.

A script for the user's own Python, CPython 3.8 or later. What is written to descriptors 1 and 2 is
output. Source: Process API contract, section 11.
"""

from __future__ import annotations

import sys
import types
from os import _exit as exit_at_once
from os import close
from os.path import dirname

CONTROL_FD = 3


def main() -> None:
    package = types.ModuleType("_procd")  # our other modules, under a name that users don't have
    package.__path__ = [dirname(__file__)]  # noqa: PTH120 - pathlib takes longer than all of this
    sys.modules["_procd"] = package
    safe_path = getattr(sys.flags, "safe_path", False)  # since Python 3.11
    if not safe_path:
        del sys.path[0]  # our directory; the user's comes when we have imported our modules
    sys.argv = [""]
    from _procd.cells import Interpreter  # type: ignore[import-not-found]  # see above
    from _procd.channel import Channel  # type: ignore[import-not-found]
    from _procd.isolation import encode  # type: ignore[import-not-found]
    from _procd.output import Streams, move_up, say  # type: ignore[import-not-found]

    if not safe_path:
        sys.path.insert(0, "")
    for name in "fcntl", "resource", "select":  # the user's own modules can have these names
        sys.modules.pop(name, None)
    channel = Channel(move_up(CONTROL_FD))
    close(CONTROL_FD)
    start = channel.receive()
    channel.key = start["key"]
    streams = Streams()
    streams.restore()
    interpreter = Interpreter(channel, streams)
    for name in start["preload"]:
        try:
            __import__(name)
        except Exception as exc:  # noqa: BLE001 - the user's code will find that out
            sys.stderr.write(f"procd: cannot preload {name}: {exc}\n")
    channel.send(encode({"op": "done", "id": 0, "error": None}))
    try:
        interpreter.serve()
    except BaseException as exc:  # noqa: BLE001 - whatever the user's code has broken
        say(f"procd: this interpreter is broken: {type(exc).__name__}: {exc}")
        exit_at_once(70)  # sysexits.h: EX_SOFTWARE; though other threads run


if __name__ == "__main__":
    main()
