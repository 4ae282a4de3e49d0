"""A stateful Python interpreter that is driven over a socket.

A script for the user's own interpreter, Python 3.8 or later. Descriptors 1 and 2 are pipes that
procd reads, so whatever the process writes there is output; what the two have to tell each other
goes over a socket of its own, in messages that begin with a key which only they know: text that
the user's code writes into the socket is then nobody's message.

Source: Process API contract, section 11.
"""

from __future__ import annotations

import builtins
import linecache
import sys
import types
from _ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from _signal import (  # type: ignore[import-not-found]  # signal's own, without its wrappers
    SIG_UNBLOCK,
    SIGINT,
    pthread_sigmask,
)
from _signal import signal as set_handler
from _socket import socket  # without the 1 MiB that the module around it costs
from _thread import allocate_lock, get_ident
from io import StringIO
from json import dumps, loads
from os import _exit as exit_at_once
from os import (
    chdir,
    close,
    environ,
    getpid,
    register_at_fork,
)
from os.path import dirname
from traceback import TracebackException

# All of these by name, so that what the user's code does to modules isn't done to us.

TYPE_CHECKING = False  # nor what typing costs
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from procd.worker.output import Streams

CONTROL_FD = 3
CHUNK_BYTES = 32 << 10
CO_COROUTINE = 0x80  # inspect's, which costs 2 MiB to import
CELL = "<stdin-%d>"
MAX_CELLS = 1000
MAX_SOURCE_CHARS = 32 << 20
MAX_NAME_CHARS = 256
MAX_VALUE_CHARS = 64 << 10
MAX_TRACEBACK_CHARS = 256 << 10
MAX_VARIABLES = 1000
MAX_REPR_CHARS = 160
HERE = dirname(__file__) + "/"  # noqa: PTH120 - pathlib costs as much as all the rest


class Channel:
    """The socket, far above the numbers that a program closes by the hundred."""

    def __init__(self, number: int) -> None:
        self._socket = socket(fileno=number)
        self._key = b""

    def receive(self) -> dict[str, Any]:
        """The next message; procd's end is ours."""
        parts = []
        while True:
            part = self._patiently(self._socket.recv, CHUNK_BYTES + 1)
            if not part:
                exit_at_once(0)
            parts.append(part[1:])
            if part[:1] == b".":
                message: dict[str, Any] = loads(b"".join(parts))
                return message

    def send(self, message: dict[str, Any]) -> None:
        """Send a message."""
        data = dumps(message).encode()
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


class Interpreter:
    """One namespace, and the cells that run in it."""

    def __init__(self, channel: Channel, streams: Streams) -> None:
        self._channel = channel
        self._streams = streams
        self._pid = getpid()
        self._thread = get_ident()
        # Whether an interrupt concerns the user's code, and whether it has to wait until a message
        # is out.
        self._interruptible = False
        self._shielded = False
        self._interrupted = False
        self._cells = 0
        self._sources: list[tuple[str, int]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._package = sys.modules["_procd"]
        self._modules = dict(sys.modules)
        self._module = types.ModuleType("__main__")
        self._streams.restore()
        builtins.input = _no_input
        # Whether displays are wanted; changed, and they are sent, under the lock.
        self._displaying = False
        self._display_lock = allocate_lock()
        self._displays = 0
        from _procd import pyplot_hook  # type: ignore[import-not-found]  # see main()

        self._forget_figures = pyplot_hook.install(self._shown)
        # What waits for the end of its line is the parent's to say.
        register_at_fork(before=streams.flush, after_in_child=channel.close)

    def serve(self) -> None:
        """Do what procd asks for, for ever."""
        self._restore()
        while True:
            message = self._channel.receive()
            operation = message["op"]
            if operation == "run":
                reply = self._run(message)
            elif operation == "variables":
                error, variables = self._guarded(self._variables)
                reply = {"error": error, "variables": variables}
            elif operation == "place":
                reply = {"error": _place(message)}
            else:
                continue  # news of a display whose cell was interrupted
            self._streams.flush()
            self._channel.send({"op": "done", "id": message["id"], **reply})

    def _restore(self) -> None:
        """Undo what earlier code did to what all code needs."""
        self._streams.restore()
        if sys.modules.get("sys") is not sys:  # somebody has cleared it
            sys.modules.update(self._modules)
        names = self._module.__dict__
        names["__builtins__"] = builtins
        names["__name__"] = "__main__"
        sys.modules["__main__"] = self._module
        sys.modules["_procd"] = self._package
        set_handler(SIGINT, self._on_interrupt)
        pthread_sigmask(SIG_UNBLOCK, {SIGINT})

    def _on_interrupt(self, number: int, frame: types.FrameType | None) -> None:
        if self._shielded:
            self._interrupted = True
        elif self._interruptible:
            raise KeyboardInterrupt

    def _guarded(self, work: Callable[[], Any]) -> tuple[dict[str, str] | None, Any]:
        """What went wrong with what runs the user's code, and its result."""
        try:
            try:
                self._interruptible = True
                return None, work()
            except SystemExit as exc:
                if exc.code is not None and not isinstance(exc.code, int):
                    sys.stderr.write(f"{exc.code}\n")
                return None, None
            except BaseException as exc:  # noqa: BLE001 - whatever the code raises is its result
                return describe(exc), None
            finally:
                self._interruptible = False
        except BaseException as exc:  # noqa: BLE001 - an interrupt a moment later, or no stderr
            self._interruptible = False
            return describe(exc), None

    def _run(self, message: dict[str, Any]) -> dict[str, Any]:
        envs = message["envs"]
        before = {name: environ.get(name) for name in envs}
        environ.update(envs)
        self._displaying = message["display"]
        error, _ = self._guarded(lambda: self._execute(message["code"]))
        if getpid() != self._pid:  # a fork of the user's that has come to the end of the cell
            if error is not None:
                sys.stderr.write(error["traceback"])
            self._streams.flush()
            exit_at_once(error is not None)
        after, _ = self._guarded(self._finish)
        with self._display_lock:
            self._displaying = False
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
        return {"error": error or after}

    def _execute(self, code: str) -> None:
        self._restore()
        self._forget_figures()
        self._cells += 1
        filename = CELL % self._cells
        self._remember(code, filename)
        if not self._displaying:
            self._evaluate(code, filename, "exec")
            return
        builtins.display = self._display  # type: ignore[attr-defined]  # as in Jupyter
        body, last = _displays().split(code, filename)
        self._evaluate(body, filename, "exec")
        if last is not None:
            value = self._evaluate(last, filename, "eval")
            if value is not None:
                self._display(value)

    def _finish(self) -> None:
        """What is done after the code, whatever has become of it."""
        if self._displaying:
            vars(builtins).pop("display", None)
            _displays().show_figures()
        for name in ("stdout", "stderr"):  # what the code has put in place of ours
            stream = getattr(sys, name, None)
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()

    def _remember(self, code: str, filename: str) -> None:
        """Keep the lines of a cell for tracebacks."""
        lines = StringIO(code, newline=None).readlines()
        linecache.cache[filename] = (len(code), None, lines, filename)
        self._sources.append((filename, len(code)))
        while len(self._sources) > 1 and (
            len(self._sources) > MAX_CELLS
            or sum(size for _, size in self._sources) > MAX_SOURCE_CHARS
        ):
            linecache.cache.pop(self._sources.pop(0)[0], None)

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
        except BaseException:
            if not task.done():  # an interrupt
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))
            if not task.cancelled():
                task.exception()  # which is the one on its way, or of less interest: it was seen
            raise

    def _display(self, *values: object) -> None:
        for value in values:
            self._emit(_displays().bundle(value))

    def _shown(self, document: dict[str, Any]) -> None:
        self._emit(_displays().figure(document["value"]))

    def _emit(self, data: dict[str, Any]) -> None:
        """Send what is to be displayed, and wait until it has its place among the output."""
        if getpid() != self._pid:
            return
        self._streams.flush()  # what was printed before comes before
        with self._display_lock:
            if not self._displaying:
                return
            self._displays += 1
            number = self._displays
            self._send_whole({"op": "result", "id": number, "data": data})
            while self._channel.receive()["id"] != number:
                continue  # of a display that was interrupted

    def _send_whole(self, message: dict[str, Any]) -> None:
        """Send a message; an interrupt waits until it is out."""
        if get_ident() != self._thread:  # signals are the main thread's
            self._channel.send(message)
            return
        self._shielded = True
        try:
            self._channel.send(message)
        finally:
            self._shielded = False
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt

    def _variables(self) -> list[dict[str, str]]:
        import reprlib

        self._restore()
        short = reprlib.Repr()
        short.maxstring = short.maxother = short.maxlong = MAX_REPR_CHARS
        found: list[dict[str, str]] = []
        names: list[tuple[Any, Any]] = list(self._module.__dict__.items())
        for name, value in names:
            if not isinstance(name, str) or name.startswith("_"):
                continue
            if len(found) == MAX_VARIABLES:
                break
            try:
                text = short.repr(value)
            except BaseException as exc:  # noqa: BLE001 - a repr of the user's
                text = f"<repr failed: {type(exc).__name__}>"
            found.append(
                {
                    "name": _clean(name),
                    "type": _clean(type(value).__name__),
                    "repr": _clean(text)[:MAX_REPR_CHARS],
                }
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
        chdir(message["cwd"])
    except OSError as exc:
        return f"working directory cannot be entered: {message['cwd']}: {exc.strerror}"
    if message["env"] != dict(environ):
        environ.clear()
        environ.update(message["env"])
    environ["PWD"] = message["cwd"]
    return None


def describe(exc: BaseException) -> dict[str, str]:
    """An exception as the `error` frame shows it."""
    name = type(exc).__name__
    try:
        if isinstance(exc, SyntaxError) and _is_cell(exc.filename or ""):
            exc.filename = "<stdin>"
        value = str(exc)
    except BaseException:  # noqa: BLE001 - a __str__ of the user's
        value = "<exception str() failed>"
    try:
        text = _traceback(exc)
    except BaseException:  # noqa: BLE001 - an exception that can't be shown is still one
        text = f"{name}: {value}\n"
    return {
        "name": _clean(_cut(name, MAX_NAME_CHARS)),
        "value": _clean(_cut(value, MAX_VALUE_CHARS)),
        "traceback": _clean(_cut(text, MAX_TRACEBACK_CHARS)),
    }


def _traceback(exc: BaseException) -> str:
    first = exc.__traceback__
    while first is not None and not _is_cell(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    shown = TracebackException(type(exc), exc, first)
    pending, seen = [shown], set()
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(HERE)]
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


def _clean(text: str) -> str:
    """Text that UTF-8 can carry."""
    return text.encode("utf-8", "backslashreplace").decode()


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
    from _procd import output

    channel = Channel(output.far(CONTROL_FD))
    close(CONTROL_FD)
    start = channel.receive()
    channel.use(start["key"])
    streams = output.Streams()
    interpreter = Interpreter(channel, streams)
    for name in start["preload"]:
        try:
            __import__(name)
        except Exception as exc:  # noqa: BLE001 - it is for the user's code to find that out
            sys.stderr.write(f"procd: cannot preload {name}: {exc}\n")
    channel.send({"op": "done", "id": 0})
    interpreter.serve()


if __name__ == "__main__":
    main()
