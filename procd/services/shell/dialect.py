"""How a session's shell is started and spoken to, each in its own dialect."""

import os
import resource
import shlex
from dataclasses import dataclass
from typing import Final

from procd.process import tags
from procd.process.shell import NAMES_ITSELF, kind_of, naming

# What a sourced script of zsh's returns that it left by an error of the shell's own, and nothing
# else: a status that is the same by itself is said otherwise. Source: zsh 5.9, bin_dot.
ZSH_FAILED: Final = 126
ZSH_END: Final = b'\n\n{ \\builtin return "$(($? == 126 ? 256 + $? : $?))" && \\builtin :; }\n'
ASH: Final = ("ash", "dash", "busybox")


@dataclass(frozen=True, slots=True, kw_only=True)
class FedShell:
    """A shell that reads lines from a pipe.

    Attributes:
        path: of the shell itself.
        argv: what it is started as.
        on_stdin: whether the pipe is to be its standard input; else it opens it by path.
        first: a line for it to read before all others, or none.
    """

    path: str
    argv: tuple[str, ...]
    on_stdin: bool = False
    first: str = ""


def fed(shell: str, path: str) -> FedShell:
    """How a shell is started that reads lines from a pipe.

    It opens the pipe by path, and keeps it from its children, as it does with any script. Standard
    input is for what it runs: for a trap, once a script's redirections are undone. (And bash 5.2
    fails where a sourced script duplicates what it reads.) `$0` is the shell's path all the same.
    Where it can't be, the pipe is to be standard input: in BusyBox, which loops where a subshell
    fails in what is sourced from what is sourced, and in others. The arguments say nothing new, but
    tell the shell from one that `exec` puts in its place (`is_running`).

    Source: bash 5.2, duplicate_buffered_stream; BusyBox 1.37, ash.c, unwindfiles; POSIX.1-2024, sh.
    """
    kind = kind_of(os.path.realpath(shell))
    if kind == "dash":
        argv = (shell, "-c", f". {shlex.quote(path)}", shell)  # it sources line by line
        return FedShell(path=shell, argv=argv)
    if kind in NAMES_ITSELF:
        return FedShell(path=shell, argv=(shell, path), first=f"{naming(shell, kind)}\n")
    return FedShell(path=shell, argv=(shell, "-s", "--"), on_stdin=True)


def is_running(pid: int, argv: tuple[str, ...]) -> bool | None:
    """Whether a process still is what it was started as; None if there is no way to look.

    No more is read than tells: where a process has its arguments is its own choice, and how many.

    Source: proc_pid_cmdline(5); prctl(2), PR_SET_MM.
    """
    expected = b"".join(os.fsencode(word) + b"\0" for word in argv)
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as arguments:  # noqa: PTH123 - a str
            return arguments.read(len(expected) + 1) == expected
    except (FileNotFoundError, ProcessLookupError):
        return False
    except (OSError, MemoryError):  # no descriptor is left, or no memory
        return None


def builtin_word(shell: str) -> str:
    """What stands before a builtin's name to mean that one, whatever functions and aliases say.

    `command` besides keeps an error of a special builtin from ending the shell, where one would.

    Source: bash(1), zshbuiltins(1); POSIX.1-2024, "command".
    """
    return "\\builtin" if kind_of(shell) in ("bash", "zsh") else "\\command"


def untraced(line: str) -> str:
    """A line that isn't seen where `set -x` is on."""
    return f"{{ {line}\n}} 2>/dev/null"


def with_status(shell: str, status: int | str) -> str:
    """Lines after which `$?` is `status`; not last in its list, it ends no `set -e` shell.

    There is no subshell in them: it would run the user's `zshexit`, and where no process can be
    started have another status, or end the shell. A short here-document is in a pipe; not so in
    zsh.

    Source: bash 5.2, redir.c; dash and BusyBox, redir.c and ash.c, openhere.
    """
    word = builtin_word(shell)
    leave = f"{word} return {status}"
    if kind_of(shell) == "zsh":
        return f"() {{ {leave}; }} && {word} :"
    return f"{word} . /proc/self/fd/0 <<E && {word} :\n{leave} && {word} :\nE"


def sourcing(shell: str, script: str, streams: str) -> str:
    """A line that sources a script with `streams` redirected.

    The script's status, which may be that of a command that `set -e` exempts, doesn't end the
    shell: it isn't last in its list. What fails within the script does, in bash with `builtin .`,
    in dash and BusyBox with `command .`. In zsh it would not: there the script has an end of its
    own (`sourced`). Nor would it in other shells, which are left to end: that harms less than to go
    on after a failure.

    In BusyBox a subshell that fails in a special builtin returns from the `command` in which it was
    forked. It isn't the process that `$$` names, and ends here.

    In zsh, what interrupts the script (`leaving`) ends here.

    zsh traces what a builtin does where its standard error was before it was redirected. bash
    undoes the redirections of a builtin before an EXIT trap, and no others: there are none around
    it, and where bash traces, it says what it sources.

    Source: POSIX.1-2024, "set", -e; bash 5.2, execute_cmd.c; dash, eval.c; BusyBox 1.37, ash.c;
    zsh 5.9, exec.c, xtrerr.
    """
    word = builtin_word(shell)
    source = f"{word} . {shlex.quote(script)}"
    if kind_of(shell) == "zsh":
        reset = "{ TRY_BLOCK_INTERRUPT=0; } 2>/dev/null"
        return f"{{ {{ {source}; }} {streams}; }} always {{ {reset}; }}"
    if kind_of(shell) == "bash":
        return f"{source} {streams} && {word} :"
    if kind_of(os.path.realpath(shell)) not in ("sh", *ASH):
        return untraced(f"{source} {streams}")
    leave = f"{word} test -e /proc/self/task/$$ || {word} exit $?; {with_status(shell, '$?')}"
    return untraced(f'{source} {streams} || {word} eval "{leave}\n" && {word} :')


def sourced(shell: str, script: bytes) -> bytes:
    """A script as it is sourced: in zsh with an end that `set -e` exempts, and of the same status.

    A compound command whose status comes from the left of `&&` exempts what it is last in, the
    sourcing included. A here-document without an end would take it in, so where there might be one
    the status of the script counts.

    Source: zsh 5.9, exec.c, this_noerrexit.
    """
    return script if kind_of(shell) != "zsh" or b"<<" in script else script + ZSH_END


# What sets the soft limit RLIMIT_RTTIME, without a process. Source: bash(1) of 5.1 and later,
# zshbuiltins(1), ulimit.
SETS_RTTIME: Final = {"bash": "ulimit -SR", "zsh": f"ulimit -SN {resource.RLIMIT_RTTIME}"}


def retag_in_shell(shell: str, tag: int) -> str:
    """A line by which a shell takes another tag; by itself where it can."""
    by_program = tags.retag_in_shell(tag)
    setting = SETS_RTTIME.get(kind_of(shell))
    if setting is None:
        return by_program
    return f"{builtin_word(shell)} {setting} {tag} || {by_program or f':{chr(10)}'}"


def failure_of(shell: str, script: str) -> int | None:
    """The status that says of a script that the shell itself failed in it, if one does.

    `$?` is 1 then, where no script is sourced. Only a script with an end tells it from its own 126,
    and only if there can't be a `return` before.
    """
    tells = kind_of(shell) == "zsh" and "<<" not in script and "return" not in script
    return ZSH_FAILED if tells else None


def leaving(shell: str, status: int) -> str:
    """What a trap on SIGURG does that has the shell leave a script, and nothing outside of one.

    `return` leaves the innermost function or file alone, and the shell would go on behind the call.
    So the shell sends itself the signal again, in what `return` is given: before that, the trap
    would run within itself. It is due when that is left, before another command. In backquotes:
    bash fails to parse a `$(` where such a trap comes within another. In zsh, which hears no signal
    in its own trap, the script is interrupted as by SIGINT, which `sourcing` takes back.

    Outside of a script all but bash would take a `return` for the end of their input; bash says
    that it can't, a failure that must not end a `set -e` shell. zsh knows whether it is in a
    script. dash and BusyBox have put four streams aside then, of the sourcing and of the group
    around it, and between scripts never more than two. dash does so at the numbers from 11 on, for
    10 is its input, and BusyBox from 10 on. There such a trap may come within another: none puts a
    stream aside itself, unless it is traced, lest a third be taken for one within a script. And as
    one that comes behind `test` leaves a status of its own, that is asked twice.

    bash remembers a signal that came as `wait` had ended, and would break off the next one: a
    `wait` for what is no child of it takes that.

    Args:
        status: what functions and files are left with; in zsh it is any.

    Source: bash 5.2, trap.c, wait.def; dash and BusyBox, dotrap, savefd; zshparam(1),
    TRY_BLOCK_INTERRUPT, ZSH_EVAL_CONTEXT; zshoptions(1), POSIX_BUILTINS.
    """
    word = builtin_word(shell)
    kind = kind_of(os.path.realpath(shell))
    again = f'"`{word} kill -URG $$`{status}"'
    if kind == "bash":
        # The pipe that it reads is the first source, the script the second.
        line = (
            f"{word} wait $$ || {word} :; case ${{#BASH_SOURCE[@]}} in "
            f"([012]) {word} return {status};; (*) {word} return {again};; esac || {word} :"
        )
    elif kind == "zsh":
        # Not with `test`: it may be in one, and that is not reentrant. Where what interrupts `.`
        # ends the shell, as after `emulate sh`, `return` has to do.
        line = (
            'case "$ZSH_EVAL_CONTEXT ${options[posixbuiltins]}" in '
            f"(*:file*on) {word} return {status};; "
            f"(*:file*) {{ {word} :; }} always {{ TRY_BLOCK_INTERRUPT=1; }};; esac"
        )
    elif kind in ASH:
        last = 14 if kind == "dash" else 13
        is_within = f'{word} test -e "/proc/$$/fd/{last}"'
        leave = untraced(f"\\return {again}")
        line = f"{is_within} && {is_within} && {leave}"
        return f"case $- in (*x*) {untraced(line)};; (*) {line};; esac"
    else:
        line = f"return {status}"
    return untraced(line)
