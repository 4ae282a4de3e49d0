"""A stateful Python interpreter that is driven over a socket.

A script for the user's own interpreter, CPython 3.8 or later. Descriptors 1 and 2 are pipes that
procd reads, so whatever the process writes there is output; what the two have to tell each other
goes over a socket of its own, in messages that begin with a key which only they know: text that
the user's code writes into the socket is then nobody's message.

Source: Process API contract, section 11.
"""

from __future__ import annotations

import sys
import types
from os import _exit as exit_at_once
from os import close
from os.path import dirname

CONTROL_FD = 3
FAILED = 70  # sysexits.h: EX_SOFTWARE


def main() -> None:
    """Start, and serve until the end."""
    package = types.ModuleType("_procd")  # our neighbours, under a name of nobody's
    package.__path__ = [dirname(__file__)]  # noqa: PTH120 - pathlib costs as much as all the rest
    sys.modules["_procd"] = package
    safe_path = getattr(sys.flags, "safe_path", False)  # since Python 3.11
    if not safe_path:
        del sys.path[0]  # our directory; the user's comes when all that we import is Python's own
    sys.argv = [""]
    from _procd.cells import Interpreter  # type: ignore[import-not-found]  # see above
    from _procd.channel import Channel  # type: ignore[import-not-found]
    from _procd.encoding import encode  # type: ignore[import-not-found]
    from _procd.output import Streams, far, say  # type: ignore[import-not-found]

    if not safe_path:
        sys.path.insert(0, "")
    for name in "fcntl", "mmap", "resource":  # they don't stand before the user's own modules
        sys.modules.pop(name, None)
    channel = Channel(far(CONTROL_FD))
    close(CONTROL_FD)
    start = channel.receive()
    channel.use(start["key"])
    streams = Streams()
    streams.restore()
    interpreter = Interpreter(channel, streams)
    for name in start["preload"]:
        try:
            __import__(name)
        except Exception as exc:  # noqa: BLE001 - it is for the user's code to find that out
            sys.stderr.write(f"procd: cannot preload {name}: {exc}\n")
    channel.send(encode({"op": "done", "id": 0, "error": None}))
    try:
        interpreter.serve()
    except BaseException as exc:  # noqa: BLE001 - whatever the user's code has broken
        try:
            say(f"procd: this interpreter is broken: {type(exc).__name__}: {exc}")
        finally:
            exit_at_once(FAILED)  # whatever threads there are


if __name__ == "__main__":
    main()
