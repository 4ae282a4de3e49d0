"""One namespace, and the cells that run in it."""

from __future__ import annotations

import builtins
import sys
import types
from _ast import PyCF_ALLOW_TOP_LEVEL_AWAIT  # which the first compile() would wait for
from _signal import (  # type: ignore[import-not-found]  # signal's own, without its wrappers
    SIG_UNBLOCK,
    SIGINT,
    pthread_sigmask,
)
from _thread import allocate_lock, get_ident
from mmap import MAP_PRIVATE, mmap
from os import _exit as exit_at_once
from os import chdir, environ, getcwd, getpid, register_at_fork
from resource import RLIM_INFINITY, RLIMIT_RTTIME, getrlimit, setrlimit

from . import pyplot_hook
from .encoding import clean, encode
from .hooks import Hooks, exit_byte
from .own import BUILTINS as __builtins__  # type: ignore[no-redef]  # noqa: F401 - see there
from .tracebacks import CELL, MAX_NAME_CHARS, Sources, bare, name_of

# All of these by name, so that what the user's code does to modules isn't done to us.

TYPE_CHECKING = False  # nor what typing costs
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .awaiting import Awaiting
    from .channel import Channel
    from .output import Streams

CO_COROUTINE = 0x80  # inspect's, which costs 2 MiB to import
QUIET_S = 0.25  # in which a new context's first cell has come, if its client is waiting for it
# How a client that displays results is told of a SystemExit.
EXIT = "application/vnd.procd.exit+json"
MANY = 1000  # more than a handler raises in the last moment of a cell
MAX_VARIABLES = 1000
MAX_REPR_CHARS = 160
# Of memory, for what we have to do when the user's code has used up all there is; and what has to
# be left to that, so that it can let go of something.
RESERVES_BYTES = (16 << 20, 12 << 20, 8 << 20, 6 << 20, 4 << 20, 3 << 20, 2 << 20, 1 << 20)
SPARED_BYTES = 2 << 20


class Interpreter:
    """Does what procd asks for, one thing after another.

    What runs the user's code does so in `_attempt`, and may raise anything. Whatever else fails
    here ends the process, and procd starts another.
    """

    def __init__(self, channel: Channel, streams: Streams) -> None:
        self._channel = channel
        self._streams = streams
        self._hooks = Hooks()
        self._sources = Sources()
        self._pid = getpid()
        self._thread = get_ident()
        self._interruptible = False
        self._interrupted = False  # since the cell began, while it was not interruptible
        self._cells = 0
        self._reserve: mmap | None = None  # given back when the user's code is over, or fails
        self._awaiting: Awaiting | None = None  # since a cell has awaited
        self._flags = PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._last: object = object()  # what we have called `_`
        self._package = sys.modules["_procd"]
        self._modules = dict(sys.modules)
        self._module = types.ModuleType("__main__")
        builtins.input = _no_input
        # Whether displays are wanted; changed, and they are sent, under the lock.
        self._displaying = False
        self._display_lock = allocate_lock()
        self._displays = 0
        self._forget_figures = pyplot_hook.install(self._shown)
        # What waits for the end of its line is the parent's to say.
        register_at_fork(before=streams.flush, after_in_child=channel.close)
        register_at_fork(after_in_child=streams.unlock)

    def serve(self) -> None:
        """Do what procd asks for, for ever."""
        self._calm_down()  # what the preloaded modules have brought along
        while True:
            if not self._sources.prepared and self._channel.is_quiet(QUIET_S):
                self._attempt(self._sources.prepare)
            message = self._channel.receive()
            operation = message["op"]
            reply: dict[str, Any]
            if operation == "run":
                self._begin(message["id"])
                reply = {"error": self._run(message)}
            elif operation == "variables":
                self._begin(message["id"])
                error, variables = self._user(self._variables)
                reply = {"error": error, "variables": variables}
            elif operation == "place":
                reply = {"error": _place(message["cwd"])}
            else:
                continue  # news of a display whose cell was interrupted
            self._reserve = None
            self._streams.flush()
            self._channel.send(encode({"op": "done", "id": message["id"], **reply}))

    def _begin(self, number: int) -> None:
        """Undo what earlier code did, and tell procd that an interrupt is for this code now."""
        self._restore()
        self._interrupted = False  # which was for earlier code, or for none
        self._channel.send(encode({"op": "begun", "id": number}))
        self._reserve = _reserve()

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
        self._hooks.replace(SIGINT, self._on_interrupt)
        pthread_sigmask(SIG_UNBLOCK, {SIGINT})

    def _on_interrupt(self, number: int, frame: types.FrameType | None) -> None:
        self._interrupted = not self._interruptible
        if self._interruptible:
            raise KeyboardInterrupt

    def _attempt(self, work: Callable[[], Any]) -> tuple[BaseException | None, Any]:
        """What running the user's code raises, and what it returns."""
        try:
            try:
                self._hooks.put_back()
                self._interruptible = True
                if self._interrupted:
                    self._interrupted = False
                    raise KeyboardInterrupt
                return None, work()
            finally:
                self._calm_down()
        except BaseException as exc:  # noqa: BLE001 - whatever the code raises is its result
            self._reserve = None
            self._calm_down()
            return exc, None

    def _calm_down(self) -> None:
        """From here on nothing of the user's comes in between."""
        for _ in range(MANY):
            try:
                self._interruptible = False
                self._hooks.put_aside()
            except BaseException:  # noqa: BLE001, S112 - a handler of the user's, at the last moment
                continue
            else:
                return
        raise RuntimeError("hooks can't be put aside")

    def _user(self, work: Callable[[], Any]) -> tuple[dict[str, str] | None, Any]:
        """What went wrong with what runs the user's code, as clients are told; and its result."""
        exc, value = self._attempt(work)
        if exc is None:
            return None, value
        # Its frames have this one for a caller: while they hold each other, all that is in them
        # stays until the collector comes. To let go of it may run the user's code, too.
        held = [exc]
        del exc
        told = self._told(held[0])
        self._attempt(held.clear)
        return told

    def _told(self, exc: BaseException) -> tuple[dict[str, str] | None, Any]:
        """An exception as clients are told of it; of a SystemExit, the status."""
        # What this raises in its turn is given no name, for the same reason.
        if issubclass(type(exc), SystemExit):
            found = self._attempt(lambda: _status(exc))[1]
            status = found if type(found) is int else 1
            told = f'{{"{EXIT}":{status},"text/plain":"exit({status})"}}'
            self._attempt(lambda: self._emit(told))
            return None, status
        # A __str__ of the user's may take as long as it likes, too.
        error = self._attempt(lambda: self._sources.describe(exc))[1]
        return error or bare(exc), None

    def _run(self, message: dict[str, Any]) -> dict[str, str] | None:
        before: dict[str, str | None] = {}
        if (tag := message.get("tag")) is not None:  # procd may not mark what the cell starts
            hard = getrlimit(RLIMIT_RTTIME)[1]
            if hard == RLIM_INFINITY or hard >= tag:  # else nobody may
                setrlimit(RLIMIT_RTTIME, (tag, hard))
        self._displaying = message["display"]
        error, status = self._user(lambda: self._execute(message["code"], message["envs"], before))
        if getpid() != self._pid:  # a fork of the user's that has come to the end of the cell
            if error is not None:
                self._attempt(lambda: sys.stderr.write(error["traceback"]))
            self._streams.flush()
            exit_at_once(1 if error is not None else status or 0)
        after, _ = self._user(self._finish)
        with self._display_lock:
            self._displaying = False
        _reset(before)
        return error or after

    def _execute(self, code: str, envs: dict[str, str], before: dict[str, str | None]) -> int:
        """Run a cell; the exit status of a fork that comes to its end."""
        if envs:
            before.update((name, environ.get(name)) for name in envs)
            environ.update(envs)
        self._forget_figures()
        names = self._module.__dict__
        if names.get("_") is not self._last:  # it is the user's now, or nobody's
            self._last = object()
        self._cells += 1
        filename = CELL % self._cells
        self._sources.remember(code, filename)
        if not self._displaying:
            self._evaluate(self._compiled(code, filename, "exec"))
            return 0
        builtins.display = self._display  # type: ignore[attr-defined]  # as in Jupyter
        body, last = _displays().split(code, filename)
        programs = [self._compiled(body, filename, "exec")]
        if last is not None:
            programs.append(self._compiled(last, filename, "eval"))
        value = self._evaluate(*programs)
        if value is not None:
            self._display(value)
            # It isn't the user's own, nor what gettext installs.
            if names.get("_", self._last) is self._last and "_" not in vars(builtins):
                names["_"] = self._last = value
        return 0

    def _finish(self) -> None:
        """What is done after the code, whatever has become of it."""
        try:
            if self._displaying:
                vars(builtins).pop("display", None)
                _displays().show_figures()
            for name in ("stdout", "stderr"):  # what the code has put in place of ours
                try:
                    getattr(sys, name).flush()
                except Exception:  # noqa: BLE001, S112 - it has none, is closed or broken
                    continue
        finally:
            if self._streams.changed:  # they say their last words while it is still their turn
                self._streams.restore()

    def _compiled(self, source: Any, filename: str, mode: str) -> types.CodeType:
        program: types.CodeType = compile(source, filename, mode, self._flags, dont_inherit=True)
        # What a cell imports from __future__ holds for later ones, as in Python's own REPL.
        self._flags |= program.co_flags & annotations.compiler_flag
        return program

    def _evaluate(self, *programs: types.CodeType) -> Any:
        """Run the parts of a cell, all in one task if one of them awaits; the last one's value."""
        names = self._module.__dict__
        if not any(program.co_flags & CO_COROUTINE for program in programs):
            return [eval(program, names) for program in programs][-1]  # noqa: S307 - what it is for
        if self._awaiting is None:
            with self._hooks:  # an interrupt would leave half of asyncio
                from .awaiting import Awaiting

            self._awaiting = Awaiting()
        return self._awaiting.run(_awaited(programs, names))

    def _display(self, *values: object) -> None:
        for value in values:
            self._emit(_displays().bundle(value))

    def _shown(self, document: dict[str, Any]) -> None:
        self._emit(_displays().figure(document["value"]))

    def _emit(self, bundle: str) -> None:
        """Send what is to be displayed, and wait until it has its place among the output."""
        if getpid() != self._pid:
            return
        self._streams.flush()  # what was printed before comes before
        with self._display_lock:
            if not self._displaying:
                return
            self._displays += 1
            number = self._displays
            self._send_whole(f'{{"op":"result","id":{number},"data":{bundle}}}')
            while self._channel.receive()["id"] != number:
                continue  # of a display that was interrupted

    def _send_whole(self, message: str) -> None:
        """Send a message; an interrupt waits until it is out."""
        if get_ident() != self._thread:  # signals are the main thread's
            self._channel.send(message)
            return
        with self._hooks:
            self._channel.send(message)

    def _variables(self) -> list[dict[str, str]]:
        import reprlib

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


def _place(cwd: str) -> dict[str, str] | None:
    """Take up the directory of a context; what is wrong with it."""
    try:
        chdir(cwd)
    except OSError as exc:
        reason = f"working directory cannot be entered: {cwd}: {exc.strerror}"
        return {"name": "OSError", "value": reason, "traceback": ""}
    environ["PWD"] = cwd if cwd.startswith("/") else getcwd()  # noqa: PTH109 - no pathlib here
    return None


def _short(text: str, most: int) -> str:
    """Text that UTF-8 can carry, cut to so many characters."""
    return clean(text[:most])[:most]


def _reserve() -> mmap | None:
    """Memory to be given back later, as much as there is; it costs nothing until it is used."""
    for size in RESERVES_BYTES:
        try:
            mmap(-1, size + SPARED_BYTES, MAP_PRIVATE).close()
            return mmap(-1, size, MAP_PRIVATE)
        except (OSError, MemoryError):
            continue
    return None


def _displays() -> Any:
    """The module that makes bundles: loaded when somebody wants one."""
    from . import displays

    return displays


async def _awaited(programs: tuple[types.CodeType, ...], names: dict[str, Any]) -> Any:
    value = None
    for program in programs:
        value = eval(program, names)  # noqa: S307 - as above
        if program.co_flags & CO_COROUTINE:
            value = await value
    return value


def _no_input(prompt: object = "") -> str:
    print(prompt, end="", flush=True)
    raise EOFError("input() has nobody to ask: the interpreter has no standard input")


def _status(exc: Any) -> int:
    """What a process would exit with."""
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exit_byte(exc.code)
    sys.stderr.write(f"{exc.code}\n")
    return 1


def _reset(before: dict[str, str | None]) -> None:
    """Give variables the values that they had."""
    try:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
    except Exception:  # noqa: BLE001 - whatever the user's code has made of os.environ
        return
