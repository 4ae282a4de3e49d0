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
import os
import sys
import types
from _ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from _signal import (  # type: ignore[import-not-found]  # signal's own, without its wrappers
    SIG_BLOCK,
    SIG_UNBLOCK,
    SIGINT,
    pthread_sigmask,
    valid_signals,
)
from _signal import signal as set_handler
from _socket import socket  # without the 1 MiB that the module around it costs
from _thread import _count as count_threads
from _thread import allocate_lock, get_ident, start_new_thread
from fcntl import F_DUPFD_CLOEXEC, fcntl
from io import BufferedReader, BufferedWriter, FileIO, StringIO, TextIOWrapper
from json import dumps, loads
from os import _exit as exit_at_once
from os import (
    chdir,
    close,
    dup2,
    environ,
    fstat,
    getpid,
    register_at_fork,
    set_blocking,
)
from os.path import dirname
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from time import sleep  # noqa: TID251 - no event loop here
from traceback import TracebackException

# All of these by name, so that what the user's code does to modules isn't done to us.

TYPE_CHECKING = False  # nor what typing costs
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

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
# How often the output of code that runs is looked at, seconds: at first, and when it is silent.
TICK_S = 0.005
SLOW_TICK_S = 0.1
# So many writes between two looks make it worth gathering them.
MANY_WRITES = 200
STARTERS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn"}
HERE = dirname(__file__) + "/"  # noqa: PTH120 - pathlib costs as much as all the rest


class Channel:
    """The socket, far above the numbers that a program closes by the hundred."""

    def __init__(self) -> None:
        self._socket = socket(fileno=_far(CONTROL_FD))
        close(CONTROL_FD)
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


def _far(number: int) -> int:
    """A copy of a descriptor with a high number, which children don't inherit."""
    soft, _ = getrlimit(RLIMIT_NOFILE)
    if soft == RLIM_INFINITY or soft > 1000:
        soft = 1000
    return fcntl(number, F_DUPFD_CLOEXEC, max(soft - 16, 10))


class Streams:
    """Descriptors 0 to 2 and the text streams on them, put right before each cell."""

    def __init__(self) -> None:
        self._originals = {number: _far(number) for number in (0, 1, 2)}
        self._identities = {
            number: _identity(original) for number, original in self._originals.items()
        }
        self._opened: dict[int, TextIOWrapper] = {}

    @property
    def stdout(self) -> TextIOWrapper | None:
        """Ours on descriptor 1."""
        return self._opened.get(1)

    def restore(self) -> None:
        """Undo what earlier code did to them.

        Raises:
            OSError: the code has left too few descriptors.
        """
        for number, original in self._originals.items():
            try:
                intact = _identity(number) == self._identities[number]
            except OSError:
                intact = False
            if not intact:
                dup2(original, number)
            set_blocking(original, True)
        sys.stdin = sys.__stdin__ = self._stream(0)  # type: ignore[misc]  # not final at run time
        sys.stdout = sys.__stdout__ = self._stream(1)  # type: ignore[misc]  # as above
        sys.stderr = sys.__stderr__ = self._stream(2)  # type: ignore[misc]  # as above

    def _stream(self, number: int) -> TextIOWrapper:
        stream = self._opened.get(number)
        if stream is None or not _as_made(stream):
            raw = FileIO(number, "w" if number else "r", closefd=False)
            buffer = BufferedWriter(raw) if number else BufferedReader(raw)
            stream = TextIOWrapper(
                buffer, encoding="utf-8", errors="backslashreplace", line_buffering=number > 0
            )
            stream.mode = "w" if number else "r"  # type: ignore[misc]  # an attribute at run time
            self._opened[number] = stream
        return stream

    def flush(self) -> None:
        """Write out what is buffered."""
        for number in (1, 2):
            stream = self._opened.get(number)
            if stream is None:
                continue
            try:
                set_blocking(self._originals[number], True)
                stream.flush()
            except (OSError, ValueError):
                self._discard(number)

    def _discard(self, number: int) -> None:
        """Have a stream that can't be written to forget its text, lest the next cell say it."""
        stream = self._opened.pop(number)
        try:
            dup2(self._originals[0], number)
            stream.flush()
        except (OSError, ValueError):
            return  # it is closed, or there is no descriptor: the text goes with the stream


class Pacer:
    """Has each line written as it comes while lines come one by one, and many at once in a flood.

    A write for each line makes a loop that prints ten times as slow as it need be; but to gather
    lines always would keep those of code that falls silent, or lose those of code that crashes. So
    while code runs a thread of ours looks at standard output now and then: in a flood it has lines
    gathered, and what then waits is flushed when nothing was written since it last looked.

    It never comes in between: text that waits while the code's only thread prints is flushed by
    whoever takes it first, in order; code with several threads writes line by line.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._running = False
        self._resumes = False
        self._alive = False
        self._gathering = False
        self._hooked = False
        self._tick_s = TICK_S
        # While no code runs the thread waits for `_wake`; while it looks it has `_looking`.
        self._waiting = False
        self._wake = allocate_lock()
        self._wake.acquire()
        self._looking = allocate_lock()

    def go(self) -> None:
        """Code begins to run."""
        self._tick_s = TICK_S
        self._running = True
        if not self._alive:
            try:
                start_new_thread(self._work, ())
            except RuntimeError:
                return  # there is no room for a thread: each line is written as it comes
            self._alive = True
        elif self._waiting:
            self._waiting = False
            self._wake.release()

    def stop(self) -> None:
        """It has ended: nothing may wait any longer."""
        self._running = False
        with self._looking:
            self._gather(gathering=False)
            self._gathering = False
            self._streams.flush()

    def stop_for_fork(self) -> None:
        """A child begins with nothing that waits, and without the thread."""
        self._resumes = self._running
        self.stop()

    def go_after_fork(self) -> None:
        """In the parent."""
        if self._resumes:
            self.go()

    def forget(self) -> None:
        """In the child."""
        self._alive = self._waiting = False
        self._wake = allocate_lock()
        self._wake.acquire()
        self._looking = allocate_lock()

    def flush(self) -> None:
        """Write what waits, now."""
        if self._gathering:
            self._streams.flush()

    def _gather(self, *, gathering: bool) -> None:
        stream = self._streams.stdout
        if gathering != self._gathering and stream is not None:
            try:
                stream.reconfigure(line_buffering=not gathering)
            except (OSError, ValueError):
                return  # it can't be written to, which the code will hear of
            self._gathering = gathering

    def _work(self) -> None:
        pthread_sigmask(SIG_BLOCK, valid_signals())  # they are the main thread's
        seen = _writes()
        while True:
            if not self._running:
                self._waiting = True
                self._wake.acquire()
                seen = _writes()
            sleep(self._tick_s)
            with self._looking:
                if self._running:
                    now = _writes()
                    self._look(now - seen)
                    seen = now

    def _look(self, writes: int) -> None:
        if count_threads() > 1 or (self._gathering and not writes):
            self._gather(gathering=False)
        elif writes > MANY_WRITES and not self._gathering:
            self._gather(gathering=True)
            self._hook()
        if not writes:
            stream = self._streams.stdout
            if stream is not None:
                try:
                    stream.flush()
                except (OSError, ValueError):
                    return  # as above
        self._tick_s = TICK_S if writes else min(2 * self._tick_s, SLOW_TICK_S)

    def _hook(self) -> None:
        """From the first flood on, see to it that what a child prints comes after it."""
        if self._hooked:
            return
        self._hooked = True

        def starting(event: str, _: object) -> None:
            if event in STARTERS:
                self.flush()

        sys.addaudithook(starting)


def _writes() -> int:
    """How many times this process has called write(2): proc_pid_io(5)."""
    try:
        with FileIO("/proc/self/io") as file:
            return int(file.read().partition(b"syscw: ")[2].partition(b"\n")[0])
    except (OSError, ValueError):
        return 0  # each line is written as it comes, then


def _identity(number: int) -> tuple[int, int]:
    status = fstat(number)
    return status.st_dev, status.st_ino


def _as_made(stream: TextIOWrapper) -> bool:
    try:
        return not stream.closed and (stream.encoding, stream.line_buffering) == ("utf-8", True)
    except ValueError:  # its buffer was detached
        return False


class Interpreter:
    """One namespace, and the cells that run in it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._streams = Streams()
        self._pacer = Pacer(self._streams)
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
        register_at_fork(after_in_child=channel.close)
        register_at_fork(
            before=self._pacer.stop_for_fork,
            after_in_parent=self._pacer.go_after_fork,
            after_in_child=self._pacer.forget,
        )
        _hide_thread()
        os._exit = self._exit  # type: ignore[assignment]  # what was printed before it counts

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
        self._pacer.go()
        error, _ = self._guarded(lambda: self._execute(message["code"]))
        if getpid() != self._pid:  # a fork of the user's that has come to the end of the cell
            if error is not None:
                sys.stderr.write(error["traceback"])
            self._streams.flush()
            exit_at_once(error is not None)
        after, _ = self._guarded(self._finish)
        self._pacer.stop()
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

    def _exit(self, status: int) -> None:
        self._pacer.flush()
        exit_at_once(status)

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


def _hide_thread() -> None:
    """Keep Python from warning of a thread of ours whenever the user's code forks.

    That thread has let go of everything by then: see Pacer.
    """
    import warnings

    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)


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
    channel = Channel()
    start = channel.receive()
    channel.use(start["key"])
    interpreter = Interpreter(channel)
    for name in start["preload"]:
        try:
            __import__(name)
        except Exception as exc:  # noqa: BLE001 - it is for the user's code to find that out
            sys.stderr.write(f"procd: cannot preload {name}: {exc}\n")
    channel.send({"op": "done", "id": 0})
    interpreter.serve()


if __name__ == "__main__":
    main()
