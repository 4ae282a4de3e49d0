"""One namespace, and the cells that run in it."""

from __future__ import annotations

import builtins
import sys
import types
from _ast import PyCF_ALLOW_TOP_LEVEL_AWAIT  # which the first compile() would wait for
from _signal import (  # type: ignore[import-not-found]  # without the wrappers of `signal`
    SIGINT,
    getsignal,
    valid_signals,
)
from _signal import signal as set_handler
from _thread import allocate_lock
from os import _exit as exit_at_once
from os import chdir, environ, getcwd, getpid, register_at_fork
from resource import RLIM_INFINITY, RLIMIT_RTTIME, getrlimit, setrlimit

from . import pyplot_hook
from .isolation import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there
from .isolation import clean, encode, import_standard
from .tracebacks import CELL, MAX_NAME_CHARS, Sources, name_of, undescribed

# Functions are imported by name: a module's attribute may be replaced by the user's code.

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .channel import Channel
    from .output import Streams

CO_COROUTINE = 0x80  # of `inspect`, which takes 2 MiB
# A client that waits for a new context sends the first cell within this time, seconds.
QUIET_S = 0.25
SIGNALS = sorted(valid_signals())
# How a client that displays results is told of a SystemExit.
EXIT = "application/vnd.procd.exit+json"
MAX_VARIABLES = 1000
MAX_REPR_CHARS = 160


class Interpreter:
    """Serves procd's requests, one after another.

    The user's code runs in `_attempt`, and may raise anything. Any other exception ends the
    process, and procd starts another.
    """

    def __init__(self, channel: Channel, streams: Streams) -> None:
        self._channel = channel
        self._streams = streams
        self._handlers = SignalHandlers()
        self._sources = Sources()
        self._pid = getpid()
        self._interruptible = False  # while the user's code runs
        self._interrupted = False  # while it did not
        self._cells = 0
        self._loop: Any = None  # of asyncio, from the first cell that awaits
        self._flags = PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._last: object = object()  # the value of `_` that we have set
        self._module = types.ModuleType("__main__")
        sys.modules["__main__"] = self._module
        builtins.input = _no_input
        self._displaying = False  # changed under the lock
        self._display_lock = allocate_lock()
        self._displays = 0
        self._forget_figures = pyplot_hook.install(self._shown)
        # A line that has not ended is written by the parent alone.
        register_at_fork(before=streams.flush, after_in_child=channel.close)

    def serve(self) -> None:
        """Serve requests for ever."""
        self._handlers.guard()  # those of preloaded modules
        while True:
            if self._sources.traceback is None and self._channel.is_quiet(QUIET_S):
                self._attempt(self._sources.load)
            message = self._channel.receive()
            operation = message["op"]
            reply: dict[str, Any]
            if operation == "run":
                self._begin(message["id"])
                reply = {"error": self._run(message)}
            elif operation == "variables":
                self._begin(message["id"])
                error, variables = self._call(self._variables)
                reply = {"error": error, "variables": variables if error is None else None}
            elif operation == "chdir":
                reply = {"error": _chdir(message["cwd"])}
            else:
                continue  # the confirmation of a display that was interrupted
            self._streams.flush()
            self._channel.send(encode({"op": "done", "id": message["id"], **reply}))

    def _begin(self, number: int) -> None:
        """Undo what earlier code did to streams and SIGINT, and tell procd that the code begins."""
        self._streams.restore()
        self._handlers.replace(SIGINT, self._on_interrupt)
        self._interrupted = False  # an earlier interrupt was for earlier code
        self._channel.send(encode({"op": "begun", "id": number}))

    def _on_interrupt(self, number: int, frame: types.FrameType | None) -> None:
        self._interrupted = not self._interruptible
        if self._interruptible:
            raise KeyboardInterrupt

    def _attempt(self, work: Callable[[], Any]) -> tuple[BaseException | None, Any]:
        """Run the user's code. Returns what it raises, and what it returns."""
        try:
            try:
                self._handlers.release()
                self._interruptible = True
                if self._interrupted:
                    self._interrupted = False
                    raise KeyboardInterrupt
                return None, work()
            finally:
                self._guard()
        except BaseException as exc:  # noqa: BLE001 - whatever the code raises is its result
            self._guard()  # if a signal handler has raised in the first call
            return exc, None

    def _guard(self) -> None:
        self._interruptible = False
        self._handlers.guard()

    def _call(self, work: Callable[[], Any]) -> tuple[dict[str, str] | None, Any]:
        """Run the user's code. Returns the `error` of the reply, and what the code returns."""
        exc, value = self._attempt(work)
        if exc is None:
            return None, value
        try:
            return self._describe(exc)
        finally:
            # Its frames refer to this one: without a cycle, what is in them goes at once.
            del exc

    def _describe(self, exc: BaseException) -> tuple[dict[str, str] | None, int]:
        """Return the `error` of the reply for an exception; for a SystemExit none, but a status."""
        if isinstance(exc, SystemExit):
            found = self._attempt(lambda: _exit_status(exc))[1]
            status = found if type(found) is int else 1
            bundle = f'{{"{EXIT}":{status},"text/plain":"exit({status})"}}'
            self._attempt(lambda: self._emit(bundle))
            return None, status
        # A __str__ of the user's runs there, which may take long and be interrupted.
        error = self._attempt(lambda: self._sources.describe(exc))[1]
        return error or undescribed(exc), 1

    def _run(self, message: dict[str, Any]) -> dict[str, str] | None:
        if (tag := message.get("tag")) is not None:  # procd may not mark what the cell starts
            hard = getrlimit(RLIMIT_RTTIME)[1]
            if hard == RLIM_INFINITY or hard >= tag:
                setrlimit(RLIMIT_RTTIME, (tag, hard))
        self._displaying = message["display"]
        before = {name: environ.get(name) for name in message["envs"]}
        error, status = self._call(lambda: self._execute(message["code"], message["envs"]))
        if getpid() != self._pid:  # a forked child has come to the end of the cell
            if error is not None:
                self._attempt(lambda: sys.stderr.write(error["traceback"]))
            self._streams.flush()
            exit_at_once(status or 0)
        later_error, _ = self._call(self._finish)
        with self._display_lock:
            self._displaying = False
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
        return error or later_error

    def _execute(self, code: str, envs: dict[str, str]) -> None:
        for name, value in envs.items():
            environ[name] = value
        self._forget_figures()
        names = self._module.__dict__
        names["__builtins__"] = builtins  # eval() would insert our copy
        if names.get("_") is not self._last:  # the user's code has set or deleted it
            self._last = object()
        self._cells += 1
        filename = CELL % self._cells
        self._sources.remember(code, filename)
        if not self._displaying:
            self._evaluate(self._compile(code, filename, "exec"))
            return
        builtins.display = self._display  # type: ignore[attr-defined]  # as in Jupyter
        body, last = _displays().split(code, filename)
        programs = [self._compile(body, filename, "exec")]
        if last is not None:
            programs.append(self._compile(last, filename, "eval"))
        shown = self._evaluate(*programs)
        if shown is not None:
            self._display(shown)
            # Unless it is the user's own, or the one that gettext installs.
            if names.get("_", self._last) is self._last and "_" not in vars(builtins):
                names["_"] = self._last = shown

    def _finish(self) -> None:
        try:
            if self._displaying:
                vars(builtins).pop("display", None)
                _displays().show_figures()
            for name in ("stdout", "stderr"):  # the code may have replaced them
                try:
                    getattr(sys, name).flush()
                except Exception:  # noqa: BLE001, S112 - of the user's making
                    continue
        finally:
            self._streams.restore()  # streams of the code's own write their last text now

    def _compile(self, source: Any, filename: str, mode: str) -> types.CodeType:
        program: types.CodeType = compile(source, filename, mode, self._flags, dont_inherit=True)
        # What a cell imports from __future__ holds for later ones, as in Python's own REPL.
        self._flags |= program.co_flags & annotations.compiler_flag
        return program

    def _evaluate(self, *programs: types.CodeType) -> Any:
        """Run the parts of a cell, in one task if one of them awaits. Returns the last's value."""
        names = self._module.__dict__
        if not any(program.co_flags & CO_COROUTINE for program in programs):
            return [eval(program, names) for program in programs][-1]  # noqa: S307 - what it is for
        return self._wait_for(_await_all(programs, names))

    def _wait_for(self, coroutine: Any) -> Any:
        """Run a coroutine in the namespace's event loop, whose tasks go on from cell to cell."""
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        task = loop.create_task(coroutine)
        task.add_done_callback(lambda _: loop.stop())
        try:
            while not task.done():
                loop.run_forever()
            return task.result()
        except BaseException:
            task.cancel()  # after an interrupt
            while not task.done():
                loop.run_forever()
            if not task.cancelled():
                task.exception()  # asyncio complains of one that nobody has asked for
            raise

    def _display(self, *values: object) -> None:
        for value in values:
            self._emit(_displays().bundle(value))

    def _shown(self, document: dict[str, Any]) -> None:
        self._emit(_displays().figure(document["value"]))

    def _emit(self, bundle: str) -> None:
        """Display a bundle, and wait for the confirmation: later output comes after it."""
        if getpid() != self._pid:
            return
        self._streams.flush()  # earlier output comes before it
        with self._display_lock:
            if not self._displaying:
                return
            self._displays += 1
            number = self._displays
            self._channel.send(f'{{"op":"result","id":{number},"data":{bundle}}}')
            while self._channel.receive()["id"] != number:
                continue  # of a display that was interrupted

    def _variables(self) -> list[dict[str, str]]:
        short = import_standard("reprlib").Repr()
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
            except KeyboardInterrupt:  # it takes too long
                raise
            except BaseException as exc:  # noqa: BLE001 - a repr of the user's
                text = f"<repr failed: {name_of(type(exc))}>"
            found.append(
                {
                    "name": _short(name, MAX_NAME_CHARS),
                    "type": _short(name_of(type(value)), MAX_NAME_CHARS),
                    "repr": _short(text, MAX_REPR_CHARS),
                }
            )
        return found


def _chdir(cwd: str) -> dict[str, str] | None:
    try:
        chdir(cwd)
    except OSError as exc:
        reason = f"working directory cannot be entered: {cwd}: {exc.strerror}"
        return {"name": "OSError", "value": reason, "traceback": ""}
    environ["PWD"] = cwd if cwd.startswith("/") else getcwd()  # noqa: PTH109 - no pathlib here
    return None


def _short(text: str, most: int) -> str:
    return clean(text[:most])[:most]


def _displays() -> Any:
    from . import displays  # loaded when a cell wants it

    return displays


async def _await_all(programs: tuple[types.CodeType, ...], names: dict[str, Any]) -> Any:
    value = None
    for program in programs:
        value = eval(program, names)  # noqa: S307 - as above
        if program.co_flags & CO_COROUTINE:
            value = await value
    return value


def _no_input(prompt: object = "") -> str:
    print(prompt, end="", flush=True)
    raise EOFError("input() has nobody to ask: the interpreter has no standard input")


def _exit_status(exc: SystemExit) -> int:
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exc.code & 0xFF
    sys.stderr.write(f"{exc.code}\n")
    return 1


class SignalHandlers:
    """Guarded while the user's code doesn't run: what they raise would be raised in our code.

    An exception is dropped meanwhile, but for SystemExit, which ends the process.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._guard = self._handle  # one object, to be recognised

    def guard(self) -> None:
        """Guard all handlers; a second time does nothing."""
        for number in SIGNALS:
            handler = getsignal(number)
            if callable(handler) and handler is not self._guard:
                self.replace(number, handler)

    def replace(self, number: int, handler: Any) -> None:
        """Set the handler that a signal has after `release`."""
        self._handlers[number] = handler
        set_handler(number, self._guard)

    def release(self) -> None:
        for number, handler in self._handlers.items():
            set_handler(number, handler)
        self._handlers.clear()

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        try:
            self._handlers[number](number, frame)
        except SystemExit as exc:
            exit_at_once(exc.code & 0xFF if type(exc.code) is int else exc.code is not None)
        except BaseException:  # noqa: BLE001 - whatever the user's handler raises
            return
