"""A stateful Python interpreter that is driven over a socket.

A script for the user's own interpreter, Python 3.8 or later. Descriptors 1 and 2 are pipes that
procd reads, so whatever the process writes there is output; what the two have to tell each other
goes over a socket of its own, in messages that begin with a key which only they know: text that
the user's code writes into the socket is then nobody's message.

Source: Process API contract, section 11.
"""

from __future__ import annotations

import builtins
import fcntl
import io
import json
import linecache
import os
import resource
import signal
import sys
import traceback
import types
from _ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from _socket import socket  # without the 1 MiB that the module around it costs

TYPE_CHECKING = False  # nor what typing costs
if TYPE_CHECKING:
    import asyncio
    from typing import Any

CONTROL_FD = 3
CHUNK_BYTES = 32 << 10
CO_COROUTINE = 0x80  # inspect's, which costs 2 MiB to import
CELL = "<stdin-%d>"
MAX_CELLS = 1000
MAX_NAME_CHARS = 256
MAX_VALUE_CHARS = 64 << 10
MAX_TRACEBACK_CHARS = 256 << 10
MAX_VARIABLES = 1000
MAX_REPR_CHARS = 160
HERE = __file__


class Channel:
    """The socket, far above the numbers that a program closes by the hundred."""

    def __init__(self) -> None:
        self._socket = socket(fileno=_far(CONTROL_FD))
        os.close(CONTROL_FD)
        self._key = b""

    def receive(self) -> dict[str, Any]:
        """The next message; procd's end is ours."""
        parts = []
        while True:
            part = self._patiently(self._socket.recv, CHUNK_BYTES + 1)
            if not part:
                os._exit(0)
            parts.append(part[1:])
            if part[:1] == b".":
                message: dict[str, Any] = json.loads(b"".join(parts))
                return message

    def send(self, message: dict[str, Any]) -> None:
        """Send a message."""
        data = json.dumps(message).encode()
        for start in range(0, len(data), CHUNK_BYTES):
            more = b"+" if start + CHUNK_BYTES < len(data) else b"."
            chunk = data[start : start + CHUNK_BYTES]
            self._patiently(self._socket.send, self._key + more + chunk)

    def use(self, key: str) -> None:
        """Begin every message with `key`."""
        self._key = bytes.fromhex(key)

    def _patiently(self, call: Any, argument: Any) -> Any:
        try:
            return call(argument)
        except BlockingIOError:  # somebody has made all descriptors non-blocking
            self._socket.setblocking(True)  # noqa: FBT003 - the signature is socket's
            return call(argument)

    def close(self) -> None:
        """Leave it to the parent."""
        self._socket.close()


def _far(number: int) -> int:
    """A copy of a descriptor with a high number, which children don't inherit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft > 1000:
        soft = 1000
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, max(soft - 16, 10))


class Streams:
    """Descriptors 0 to 2 and the text streams on them, put right before each cell."""

    def __init__(self) -> None:
        self._originals = {number: _far(number) for number in (0, 1, 2)}
        self._identities = {
            number: _identity(original) for number, original in self._originals.items()
        }
        self._opened: dict[int, io.TextIOWrapper] = {}

    def restore(self) -> None:
        """Undo what earlier code did to them."""
        for number, original in self._originals.items():
            try:
                intact = _identity(number) == self._identities[number]
            except OSError:
                intact = False
            if not intact:
                os.dup2(original, number)
        sys.stdin = sys.__stdin__ = self._stream(0)  # type: ignore[misc]  # not final at run time
        sys.stdout = sys.__stdout__ = self._stream(1)  # type: ignore[misc]  # as above
        sys.stderr = sys.__stderr__ = self._stream(2)  # type: ignore[misc]  # as above

    def _stream(self, number: int) -> io.TextIOWrapper:
        stream = self._opened.get(number)
        if stream is None or stream.closed:
            raw = io.FileIO(number, "w" if number else "r", closefd=False)
            buffer = io.BufferedWriter(raw) if number else io.BufferedReader(raw)
            stream = io.TextIOWrapper(
                buffer, encoding="utf-8", errors="backslashreplace", line_buffering=number > 0
            )
            stream.mode = "w" if number else "r"  # type: ignore[misc]  # an attribute at run time
            self._opened[number] = stream
        return stream

    def flush(self) -> None:
        """Write out what is buffered, here and in what the code has put in their place."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # noqa: BLE001, S112 - a stream of the user's, in any state
                continue
        for number in (1, 2):
            try:
                self._opened[number].flush()
            except (OSError, ValueError):
                # Nobody can have that text any more: it goes to /dev/null, not to the next cell.
                os.dup2(self._originals[0], number)
                self._opened.pop(number).flush()


def _identity(number: int) -> tuple[int, int]:
    status = os.fstat(number)
    return status.st_dev, status.st_ino


class Interpreter:
    """One namespace, and the cells that run in it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._streams = Streams()
        self._pid = os.getpid()
        self._running = False
        self._cells = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._module = types.ModuleType("__main__")
        self._module.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = self._module
        self._streams.restore()
        builtins.input = _no_input
        self._displaying = False
        from _procd import pyplot_hook  # type: ignore[import-not-found]  # see main()

        pyplot_hook.install(self._shown)
        os.register_at_fork(after_in_child=channel.close)

    def serve(self) -> None:
        """Do what procd asks for, for ever."""
        signal.signal(signal.SIGINT, self._interrupted)
        while True:
            message = self._channel.receive()
            operation = message["op"]
            if operation == "run":
                reply = self._run(message)
            elif operation == "variables":
                reply = {"variables": self._variables()}
            else:
                reply = {"error": _place(message)}
            self._channel.send({"op": "done", "id": message["id"], **reply})

    def _interrupted(self, number: int, frame: types.FrameType | None) -> None:
        if self._running:
            raise KeyboardInterrupt

    def _run(self, message: dict[str, Any]) -> dict[str, Any]:
        envs = message["envs"]
        before = {name: os.environ.get(name) for name in envs}
        error = None
        try:
            try:
                self._streams.restore()
                signal.signal(signal.SIGINT, self._interrupted)
                os.environ.update(envs)
                self._displaying = message["display"]
                self._running = True
                self._execute(message["code"])
            finally:
                self._running = False
        except SystemExit as exc:
            if exc.code is not None and not isinstance(exc.code, int):
                print(exc.code, file=sys.stderr)
        except BaseException as exc:  # noqa: BLE001 - whatever the code raises is its result
            error = describe(exc)
        if os.getpid() != self._pid:  # a fork of the user's that has come to the end of the cell
            if error is not None:
                print(error["traceback"], file=sys.stderr, end="")
            self._streams.flush()
            os._exit(error is not None)
        if self._displaying:
            _displays().show_figures()
        self._displaying = False
        self._streams.flush()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        return {"error": error}

    def _execute(self, code: str) -> None:
        self._cells += 1
        filename = CELL % self._cells
        lines = code.splitlines(keepends=True)
        linecache.cache[filename] = (len(code), None, lines, filename)
        linecache.cache.pop(CELL % (self._cells - MAX_CELLS), None)
        if not self._displaying:
            self._evaluate(code, filename, "exec")
            return
        builtins.display = self._display  # type: ignore[attr-defined]  # as in Jupyter
        try:
            body, last = _displays().split(code, filename)
            self._evaluate(body, filename, "exec")
            if last is not None:
                value = self._evaluate(last, filename, "eval")
                if value is not None:
                    self._display(value)
        finally:
            del builtins.display  # type: ignore[attr-defined]  # as above

    def _evaluate(self, source: Any, filename: str, mode: str) -> Any:
        program = compile(source, filename, mode, PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if not program.co_flags & CO_COROUTINE:
            return eval(program, self._module.__dict__)  # noqa: S307 - what it is for
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        task = loop.create_task(eval(program, self._module.__dict__))  # noqa: S307 - as above
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            if not task.done():
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))
            raise

    def _display(self, *values: object) -> None:
        for value in values:
            self._emit(_displays().bundle(value))

    def _shown(self, document: dict[str, Any]) -> None:
        self._emit(_displays().figure(document["value"]))

    def _emit(self, data: dict[str, Any]) -> None:
        if self._displaying and os.getpid() == self._pid:
            self._streams.flush()  # what was printed before comes before
            self._channel.send({"op": "result", "data": data})

    def _variables(self) -> list[dict[str, str]]:
        import reprlib

        short = reprlib.Repr()
        short.maxstring = short.maxother = short.maxlong = MAX_REPR_CHARS
        found: list[dict[str, str]] = []
        for name, value in list(self._module.__dict__.items()):
            if name.startswith("_"):
                continue
            if len(found) == MAX_VARIABLES:
                break
            try:
                text = short.repr(value)
            except Exception as exc:  # noqa: BLE001 - a repr of the user's
                text = f"<repr failed: {type(exc).__name__}>"
            found.append(
                {"name": name, "type": type(value).__name__, "repr": text[:MAX_REPR_CHARS]}
            )
        return found


def _displays() -> Any:
    """The module that makes bundles: loaded when somebody wants one."""
    from _procd import displays

    return displays


def _no_input(prompt: object = "") -> str:
    raise EOFError("input() has nobody to ask: the interpreter has no standard input")


def _place(message: dict[str, Any]) -> str | None:
    """Take up the directory and the environment of a context; what is wrong with them."""
    try:
        os.chdir(message["cwd"])
    except OSError as exc:
        return f"working directory cannot be entered: {message['cwd']}: {exc.strerror}"
    if message["env"] != dict(os.environ):
        os.environ.clear()
        os.environ.update(message["env"])
    os.environ["PWD"] = message["cwd"]
    return None


def describe(exc: BaseException) -> dict[str, str]:
    """An exception as the `error` frame shows it."""
    name = type(exc).__name__
    if isinstance(exc, SyntaxError) and _is_cell(exc.filename or ""):
        exc.filename = "<stdin>"
    try:
        value = str(exc)
    except Exception:  # noqa: BLE001 - a __str__ of the user's
        value = "<exception str() failed>"
    try:
        text = _traceback(exc)
    except Exception:  # noqa: BLE001 - an exception that can't be shown is still one
        text = f"{name}: {value}\n"
    return {
        "name": _cut(name, MAX_NAME_CHARS),
        "value": _cut(value, MAX_VALUE_CHARS),
        "traceback": _cut(text, MAX_TRACEBACK_CHARS),
    }


def _traceback(exc: BaseException) -> str:
    trace = exc.__traceback__
    first = trace
    while first is not None and not _is_cell(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    shown = traceback.TracebackException(type(exc), exc, first or trace)
    pending, seen = [shown], set()
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if frame.filename != HERE]
        for frame in one.stack:
            if _is_cell(frame.filename):
                frame.filename = "<stdin>"  # its line was looked up already
        if _is_cell(getattr(one, "filename", None) or ""):
            one.filename = "<stdin>"  # of a SyntaxError that is a cause
        pending += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        pending += getattr(one, "exceptions", None) or []
    if not shown.stack and shown.__cause__ is None and shown.__context__ is None:
        return "".join(shown.format_exception_only())
    return "".join(shown.format())


def _is_cell(filename: str) -> bool:
    return filename.startswith("<stdin-")


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters dropped ...]\n{text[-half:]}"


def main() -> None:
    """Start, and serve until the end."""
    package = types.ModuleType("_procd")  # our neighbours, under a name of nobody's
    package.__path__ = [sys.path[0]]
    sys.modules["_procd"] = package
    sys.path[0] = ""
    sys.argv = [""]
    channel = Channel()
    start = channel.receive()
    channel.use(start["key"])
    interpreter = Interpreter(channel)
    for name in start["preload"]:
        try:
            __import__(name)
        except Exception as exc:  # noqa: BLE001 - it is for the user's code to find that out
            print(f"procd: cannot preload {name}: {exc}", file=sys.stderr)
    channel.send({"op": "done", "id": 0})
    interpreter.serve()


if __name__ == "__main__":
    main()
