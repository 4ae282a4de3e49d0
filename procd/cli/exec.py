"""procd exec: one command, run on the server as if it ran here, in a session of its own."""

import binascii
import math
import os
import re
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from procd.cli.display import Progress
from procd.cli.failure import EXIT_EXEC, EXIT_TIMEOUT, Failure, Refused, Unreachable
from procd.cli.options import cwd_option, env_option, environment, pass_client
from procd.cli.output_stream import LOST_S, RETRY_S, LogStream, Reconnect
from procd.cli.signals import ENDING, Signals
from procd.cli.stdio import READ_BYTES, STDIN, in_foreground, write_all
from procd.cli.transport import REPLY_S, SESSION, Client, Connection, quoted
from procd.cli.websocket import WAIT_S, wait

# How long one request waits for the end of the command.
END_WAIT_S: Final = 60
# A request without an answer is sent again after this.
SILENT_S: Final = END_WAIT_S + REPLY_S
# A command that goes on after an interrupt is ended after this.
OBEY_S: Final = 2.0
# How often a background job checks whether it has come to the foreground: nothing tells it.
FOREGROUND_S: Final = 0.5
# How long the server may take to end the session: usually, and after a second interrupt.
DELETE_S: Final = 30.0
HASTY_DELETE_S: Final = 0.5
GONE: Final = (404, 410)
# Refusals of input and signals by a command that has ended, or whose input has.
ENDED: Final = (400, 409, *GONE)

# Bytes of an argument that aren't UTF-8, as Python represents them (PEP 383).
NOT_TEXT: Final = re.compile("[\udc80-\udcff]")
# Characters that mean something within a format of printf, or within quotes.
SPECIAL: Final = re.compile("[\udc80-\udcff'%\\\\]")
# What starts a program; and what starts one whose name env(1) would take for something else.
ENV: Final = ("/usr/bin/env", "--")
SH: Final = ("/bin/sh", "-c", 'exec "$0" "$@"')
ODD_NAME: Final = re.compile(r"[=\s]|\A-\Z")


class ExecCommand(click.Command):
    """Exits with EXIT_EXEC for every failure that isn't the command's."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as exc:
            exc.show()
            sys.exit(EXIT_EXEC)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as exc:
            exc.code = EXIT_EXEC if exc.code is None else exc.code
            raise


@click.command("exec", cls=ExecCommand, context_settings={"allow_interspersed_args": False})
@cwd_option
@env_option
@click.option(
    "--timeout",
    "-t",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End the command after this time, and exit with 124.",
)
@click.option("--no-stdin", "-n", is_flag=True, help="Give the command no input.")
@click.option(
    "--shell",
    "-s",
    "shell",
    is_flag=True,
    help="CMD is a script for the server's shell, with pipes, patterns and variables.",
)
@click.argument("command", nargs=-1, required=True, metavar="[--] CMD [ARGS]...")
@pass_client
def command(
    client: Client,
    *,
    cwd: str,
    envs: tuple[str, ...],
    timeout_s: float | None,
    no_stdin: bool,
    shell: bool,
    command: tuple[str, ...],
) -> None:
    """Run a command on the server as if it ran here.

    Its output arrives as it is written, standard output and standard error apart; standard input is
    passed on, byte for byte; its exit code becomes this one's. No shell reads the arguments, unless
    --shell is given. A lost connection is resumed where it broke off.

    Ctrl-C sends SIGINT to everything that the command has started, and ends what is left after two
    seconds. A second Ctrl-C ends everything at once, without waiting; so do SIGTERM, SIGHUP and
    SIGQUIT. What the command has started in the background ends with it.

    \b
    Exit codes of its own:
      124  the time of --timeout is over
      125  the command could not be run, or its end or some of its output is not known
      130  Ctrl-C

    \b
    Examples:
      procd exec -- ls -l /tmp
      procd exec --cwd /src --env CI=1 -- make test
      tar c . | procd exec -- tar x -C /srv
      procd exec --shell 'dmesg | tail -n 3'
    """
    script = " ".join(command) if shell else script_of(command)
    if NOT_TEXT.search(script):
        raise Failure("the script is not UTF-8", "have the shell's printf make such bytes")
    execution = Execution(client, timeout_s=timeout_s, reads_stdin=not no_stdin)
    sys.exit(execution.run(script, cwd=cwd, envs=environment(envs)))


def script_of(arguments: Sequence[str]) -> str:
    """Return a line for any shell that runs exactly these arguments.

    Another program starts the command, else the shell would prefer a builtin of that name. The
    shell's own message about the command's end, such as "Killed", is discarded. A subshell restores
    the command's standard error, because dash and ash would restore it for themselves. The colon
    keeps dash from optimising the subshell away.

    Source: env(1): a name with `=` is an assignment, and `-` an option.
    """
    starter = SH if ODD_NAME.search(arguments[0]) else ENV
    words = " ".join(map(_quoted_word, (*starter, *arguments)))
    return f"{{ :; (exec {words} 2>&3 3>&-); }} 3>&2 2>/dev/null"


def _quoted_word(word: str) -> str:
    """Quote a word for any shell; one printf makes its bytes that aren't UTF-8, unlike JSON."""
    if NOT_TEXT.search(word) is None:
        return "'" + word.replace("'", "'\\''") + "'"
    body = word.rstrip("\n")  # a substitution drops newlines at its end
    form = SPECIAL.sub(lambda found: "%%" if found[0] == "%" else _octal(found[0]), body)
    if form.startswith("-"):
        form = _octal("-") + form[1:]
    return f"\"$(printf '{form}')\"'{word[len(body) :]}'"


def _octal(character: str) -> str:
    return f"\\{ord(character) & 0xFF:03o}"


class Execution:
    """A command that runs.

    Over lost connections every request is sent again until it is answered: all can be repeated,
    and input has a key by which the server recognizes a repetition.
    """

    def __init__(self, client: Client, *, timeout_s: float | None, reads_stdin: bool) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._id = f"exec-{os.urandom(6).hex()}"
        self._session = f"{SESSION}/{self._id}"
        self._exists = False  # the session
        self._command = ""
        self._log = LogStream(client, "")
        self._lost_bytes = 0
        # Requests that wait for their reply, by name.
        self._requests: dict[str, Connection] = {}
        self._reads_stdin = reads_stdin
        # The input to send next; while there is some, no more is read.
        self._input: dict[str, Any] | None = None if reads_stdin else _with_key({"eof": True})
        self._interrupts = False
        self._over = False  # whether the command has ended, or is to be ended
        self._end_at = math.inf  # when to end the command
        self._exit_code: int | None = None
        self._output_bytes = 0  # known once the command has ended
        self._own_exit_code: int | None = None  # in place of the command's
        self._progress = Progress(f"looking for {client.target.url}")
        self._reconnect = Reconnect(LOST_S)

    def run(self, script: str, *, cwd: str, envs: Mapping[str, str]) -> int:
        """Run the command and return the exit code; SystemExit if a second signal ended all."""
        delete_s = DELETE_S
        with Signals(ENDING, raising=True) as signals:
            try:
                with Progress("starting the command"):
                    self._start(script, cwd, envs)
                signals.raising = False
                self._loop(signals)
            except SystemExit as exc:
                self._own_exit_code = int(str(exc.code))
                if self._command:  # it is the second signal
                    delete_s = HASTY_DELETE_S
                raise
            finally:
                signals.raising = True
                self._progress.end()
                self._drop_requests(math.inf)
                if self._exists:
                    self._delete(delete_s)
            self._drain()
        return self._result()

    def _start(self, script: str, cwd: str, envs: Mapping[str, str]) -> None:
        session = {"sessionId": self._id, "cwd": cwd, "envs": envs}
        self._client.call("POST", SESSION, session)
        self._exists = True
        request = {"command": script, "runAsync": True, "suppressInputEcho": True}
        reply = self._client.call("POST", f"{self._session}/exec", request, returns=dict)
        self._command = f"{self._session}/command/{quoted(reply['cmdId'])}"
        self._log = LogStream(self._client, self._command)
        if self._timeout_s is not None:
            self._end_at = time.monotonic() + self._timeout_s

    def _loop(self, signals: Signals) -> None:
        while not self._over:
            try:
                self._connect()
                ready = self._wait(signals)
                for number in signals.take():
                    self._interrupt(number)
                    signals.raising = True  # the next one ends everything at once
                self._receive_output()
                self._receive_replies(ready)
            except Unreachable:
                self._drop_requests(math.inf)  # other connections may be lost silently
                if self._reconnect.failed() or self._own_exit_code is not None:
                    raise
                if self._log.websocket is None:  # else output may come
                    self._progress.begin()
                continue
            except Refused as exc:
                if exc.status not in GONE:
                    raise
                self._exists = False
                return
            if STDIN in ready and self._wants_input:
                self._read_input()
            self._drop_requests(time.monotonic() - SILENT_S)
            if self._exit_code is not None:
                self._over |= self._log.complete or self._log.offset >= self._output_bytes
            if time.monotonic() >= self._end_at:
                self._end(EXIT_TIMEOUT)

    def _drain(self) -> None:
        """Print what the command's processes wrote when they were ended."""
        try:
            while self._log.websocket is not None:
                wait(self._log.websocket, ())
                self._receive_output()
        except Unreachable:
            return  # the session, and its log, may already be gone

    def _end(self, exit_code: int) -> None:
        """End the command by leaving the loop. The first exit code counts."""
        self._own_exit_code = self._own_exit_code or exit_code
        self._over = True

    def _result(self) -> int:
        if self._lost_bytes:
            message = f"{self._lost_bytes} bytes of the output are lost"
            if self._exit_code is not None:
                message += f"; the command's exit code is {self._exit_code}"
            raise Failure(message, code=self._own_exit_code)
        if self._own_exit_code is not None:
            return self._own_exit_code
        if self._exit_code is None:
            raise Failure("the command's session is gone, and its exit code with it")
        if self._log.offset < self._output_bytes:
            raise Failure("the rest of the output is lost")
        return self._exit_code

    @property
    def _wants_input(self) -> bool:
        return self._reads_stdin and self._input is None and in_foreground()

    def _wait(self, signals: Signals) -> set[int]:
        now = time.monotonic()
        timeout_s = min(WAIT_S, max(0, self._end_at - now))
        if self._reconnect.retry_at > now:
            timeout_s = min(timeout_s, self._reconnect.retry_at - now)
        others = [signals.fileno(), *(each.fileno() for each in self._requests.values())]
        if self._wants_input:
            others.append(STDIN)
        elif self._reads_stdin and self._input is None:
            timeout_s = min(timeout_s, FOREGROUND_S)
        return wait(self._log.websocket, others, timeout_s)

    def _connect(self) -> None:
        if time.monotonic() < self._reconnect.retry_at:
            return
        if self._log.websocket is None and not self._log.complete:
            self._log.connect()
        if self._exit_code is None:
            self._request("wait", "GET", f"{self._command}?wait={END_WAIT_S}", None)
        if self._interrupts:
            self._request("interrupt", "POST", f"{self._command}/signal", {"signal": "SIGINT"})
        if self._input is not None:
            self._request("input", "POST", f"{self._command}/input", self._input)
        self._progress.end()

    def _request(self, name: str, method: str, path: str, body: dict[str, Any] | None) -> None:
        if name not in self._requests:
            self._requests[name] = self._client.start(method, path, body)

    def _receive_output(self) -> None:
        try:
            for chunk in self._log.receive():
                self._lost_bytes += chunk.gap_bytes
                write_all(chunk.stream, chunk.data)
        except BrokenPipeError:
            # Nobody reads the output: the command ends as if it were in the pipe itself.
            self._log.close()
            self._end(128 + signal.SIGPIPE)

    def _drop_requests(self, sent_before: float) -> None:
        # `_connect` sends them again.
        for name, connection in list(self._requests.items()):
            if connection.sent_at < sent_before:
                del self._requests[name]
                connection.close()

    def _receive_replies(self, ready: set[int]) -> None:
        for name, connection in list(self._requests.items()):
            if connection.fileno() not in ready:
                continue
            del self._requests[name]
            reply: dict[str, Any] = {}
            try:
                reply = self._client.finish(connection) or {}
            except Refused as exc:
                if name == "wait" or exc.status not in ENDED:
                    raise
                self._stop_input()
            if name == "input":
                self._input = None
            elif name == "interrupt":
                self._interrupts = False
            elif "exitCode" in reply:
                self._exit_code = reply["exitCode"]
                self._output_bytes = reply["outputBytes"]
                self._stop_input()
                self._end_at = math.inf

    def _stop_input(self) -> None:
        self._reads_stdin, self._input = False, None

    def _read_input(self) -> None:
        try:
            data = os.read(STDIN, READ_BYTES)
        except OSError:
            data = b""  # as if it were empty
        self._reads_stdin = bool(data)
        coded = binascii.b2a_base64(data, newline=False).decode()
        self._input = _with_key({"dataBase64": coded} if data else {"eof": True})

    def _interrupt(self, number: int) -> None:
        """Pass SIGINT on, and end a command that goes on nevertheless; others end it at once."""
        self._stop_input()
        if number != signal.SIGINT:
            self._end(128 + number)
            return
        self._own_exit_code = self._own_exit_code or 128 + number
        self._interrupts = True
        self._end_at = time.monotonic() + OBEY_S

    def _delete(self, within_s: float) -> None:
        code = self._own_exit_code or self._exit_code
        try:
            with Progress("ending the command"):
                self._request_deletion(within_s)
            return
        except SystemExit as exc:
            message, code = "interrupted", int(str(exc.code))
        except Failure as exc:
            if isinstance(exc, Refused) and exc.status in GONE:
                return
            message = exc.message
        hint = f"`procd kill {self._id}` ends what may be left of the command"
        raise Failure(message, hint, code)

    def _request_deletion(self, within_s: float) -> None:
        was_lost = self._command and self._log.websocket is None and not self._log.complete
        until = time.monotonic() + within_s
        while True:
            try:
                self._client.call("DELETE", self._session, within_s=within_s)
                return
            except Unreachable:
                if was_lost or time.monotonic() + RETRY_S >= until:
                    raise
            select.select([], [], [], RETRY_S)


def _with_key(body: dict[str, Any]) -> dict[str, Any]:
    return body | {"idempotencyKey": os.urandom(8).hex()}
