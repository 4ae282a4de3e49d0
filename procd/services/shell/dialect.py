"""The lines that a session's shell reads, for each kind of shell.

For each command it sources the user's script with the command's pipes as its descriptors.
"""

import os
import resource
import shlex
import signal
from typing import Final, NamedTuple

from procd.process import tags
from procd.process.shell import kind_of, naming

# What zsh's `.` returns if it failed in the script itself, as by a syntax error. A status of 126
# that the script has by itself is returned as ZSH_OWN_126. Source: zsh 5.9, bin_dot.
ZSH_FAILED: Final = 126
ZSH_OWN_126: Final = 256 + 126
ZSH_END: Final = (
    f'\n\n{{ \\builtin return "$(($? == 126 ? {ZSH_OWN_126} : $?))" && \\builtin :; }}\n'.encode()
)
# Status of a command that was terminated: 128 + SIGTERM.
TERMINATED: Final = 143
# Makes bash and zsh leave a script. A shell without a trap for it ignores it, as most programs do.
LEAVE: Final = signal.SIGURG
# What sets the soft limit RLIMIT_RTTIME without a process. Source: bash(1) of 5.1 and later,
# zshbuiltins(1), ulimit.
SETS_RTTIME: Final = {"bash": "ulimit -SR", "zsh": f"ulimit -SN {resource.RLIMIT_RTTIME}"}


class Start(NamedTuple):
    """How a shell is started; if not `on_stdin`, it opens the pipe by path."""

    argv: tuple[str, ...]
    on_stdin: bool = False
    first_lines: str = ""


class Dialect:
    """The lines for one kind of shell.

    `kind` is its name, whatever the link is called by which it is started. If it can't leave a
    script before its end, it has to be ended.
    """

    def __init__(self, shell: str) -> None:
        self.shell = shell
        self.kind = kind_of(os.path.realpath(shell))
        self.can_leave = self.kind in ("bash", "zsh")
        # What makes the next word a builtin, whatever functions and aliases there are. `command`
        # also keeps a failing special builtin from ending the shell.
        # Source: bash(1), zshbuiltins(1); POSIX.1-2024, "command".
        self._builtin = "\\builtin" if self.can_leave else "\\command"

    def start(self, path: str) -> Start:
        """How the shell is started so that it reads lines from the pipe at `path`.

        bash, zsh and dash open the pipe by path, and keep it from their children as they do with
        any script; their standard input is /dev/null, for traps to read. (bash 5.2 also fails where
        a sourced script duplicates the descriptor that the shell reads.) BusyBox loops where a
        subshell fails in a sourced file that sources another, so there and in unknown shells the
        pipe is standard input. `$0` is the shell's path in each.

        Source: bash 5.2, duplicate_buffered_stream; BusyBox 1.37, ash.c, unwindfiles; sh(1p).
        """
        if self.kind == "dash":  # it sources line by line
            return Start((self.shell, "-c", f". {shlex.quote(path)}", self.shell))
        if self.can_leave:
            first_lines = f"{naming(self.shell, self.kind)}\n{self._leave_trap()}"
            return Start((self.shell, path), first_lines=first_lines)
        return Start((self.shell, "-s", "--"), on_stdin=True)

    def script(self, text: bytes) -> bytes:
        """A user's script as it is sourced.

        In zsh it gets a last line that `set -e` exempts and that has the same status: a compound
        command whose status comes from the left of `&&` exempts what it is the last command of, the
        sourcing included. A here-document without an end would swallow the line, so a script that
        may have one is left as it is. Source: zsh 5.9, exec.c, this_noerrexit.
        """
        return text if self.kind != "zsh" or b"<<" in text else text + ZSH_END

    def failure(self, script: str) -> int | None:
        """The status that means that the shell itself failed in the script, so that `$?` is 1.

        None if a script can have that status by itself: without ZSH_END, or with a `return`.
        """
        distinct = self.kind == "zsh" and "<<" not in script and "return" not in script
        return ZSH_FAILED if distinct else None

    def sourcing(self, script: str, streams: str) -> str:
        """A line that sources a script with `streams` redirected.

        The script's status, which may be that of a command that `set -e` exempts, must not end the
        shell; what fails within the script must. Both hold on the left of `&&` in bash (with
        `builtin .`), dash and BusyBox. In zsh the second doesn't, hence `script`. In other shells a
        failure of any kind may end the session.

        In BusyBox a subshell that fails in a special builtin comes out of the `command` in which it
        was forked; it isn't the process that `$$` names, and ends here. In zsh, an interruption of
        the script (`_leave_trap`) ends here.

        bash undoes the redirections of a builtin before an EXIT trap, but not those of a group
        around it: so there is none, and a trace of the line is taken out of the output. zsh traces
        a builtin where its standard error was before it was redirected.

        Source: POSIX.1-2024, "set", -e; bash 5.2, execute_cmd.c; dash, eval.c; BusyBox 1.37, ash.c;
        zsh 5.9, exec.c, xtrerr.
        """
        word = self._builtin
        source = f"{word} . {shlex.quote(script)}"
        if self.kind == "zsh":
            reset = "{ TRY_BLOCK_INTERRUPT=0; } 2>/dev/null"
            return f"{{ {{ {source}; }} {streams}; }} always {{ {reset}; }}\n"
        if self.kind == "bash":
            return f"{source} {streams} && {word} :\n"
        if self.kind not in ("sh", "ash", "dash", "busybox"):
            return untraced(f"{source} {streams}")
        leave = f"{word} test -e /proc/self/task/$$ || {word} exit $?; {self._status('$?')}"
        return untraced(f'{source} {streams} || {word} eval "{leave}\n" && {word} :')

    def prepare(self, status: int, retag: str) -> str:
        """A line that runs `retag` and sets `$?`; empty if there is nothing to do."""
        lines = retag + (self._status(status) if status else "")
        return untraced(lines) if lines else ""

    def _status(self, status: int | str) -> str:
        """Lines after which `$?` is `status`; not last in their list, they end no `set -e` shell.

        No subshell sets it: that would run the user's `zshexit`, and fail where no process can be
        started. A short here-document is held in a pipe; not so in zsh.

        Source: bash 5.2, redir.c; dash and BusyBox, redir.c and ash.c, openhere.
        """
        word = self._builtin
        leave = f"{word} return {status}"
        if self.kind == "zsh":
            return f"() {{ {leave}; }} && {word} :"
        return f"{word} . /proc/self/fd/0 <<E && {word} :\n{leave} && {word} :\nE"

    def report(self, number: int, path: str) -> str:
        # Quoted, `printf` is no alias either.
        return untraced(f"{self._builtin} 'printf' '{number} %s\\n' \"$?\" >{shlex.quote(path)}")

    def nothing(self) -> str:
        """A line that does nothing: a shell that waits for one runs a trap only after it."""
        return untraced(f"{self._builtin} :")

    def retag(self, tag: int) -> str:
        """A line by which the shell sets its tag; by itself where it can."""
        by_program = tags.retag_in_shell(tag)
        setting = SETS_RTTIME.get(self.kind)
        if setting is None:
            return by_program
        return f"{self._builtin} {setting} {tag} || {by_program or ':' + chr(10)}"

    def _leave_trap(self) -> str:
        """A line that sets a trap on SIGURG, by which bash or zsh leaves a script.

        It does nothing outside of a script: the shell would take a `return` there for the end of
        what it reads.

        bash: `return` leaves only the innermost function or sourced file, and what follows the call
        would run. So the shell sends itself the signal again in the argument of `return`: it is
        handled when that level has been left, before another command. (In backquotes: bash can't
        parse `$(` where such a trap comes within another.) The lines of the shell's own are the
        first source and the script the second. bash remembers a signal that came as `wait` had
        ended, and would break off the next `wait`: one for a process that is no child clears that.

        zsh handles no signal in its own trap. There the script is interrupted as by SIGINT, which
        `sourcing` takes back. Where an interrupted `.` ends the shell, as after `emulate sh`,
        `return` has to do. It isn't asked with `test`: the trap may come within one, and that is
        not reentrant. Source: bash 5.2, trap.c, wait.def; zshparam(1), TRY_BLOCK_INTERRUPT,
        ZSH_EVAL_CONTEXT; zshoptions(1), POSIX_BUILTINS.
        """
        word, status = self._builtin, TERMINATED
        if self.kind == "bash":
            again = f'"`{word} kill -URG $$`{status}"'
            action = (
                f"{word} wait $$ || {word} :; case ${{#BASH_SOURCE[@]}} in "
                f"([012]) {word} return {status};; (*) {word} return {again};; esac || {word} :"
            )
        else:
            action = (
                'case "$ZSH_EVAL_CONTEXT ${options[posixbuiltins]}" in '
                f"(*:file*on) {word} return {status};; "
                f"(*:file*) {{ {word} :; }} always {{ TRY_BLOCK_INTERRUPT=1; }};; esac"
            )
        return f"{word} trap {shlex.quote(untraced(action).rstrip())} URG\n"


def untraced(line: str) -> str:
    """A line that `set -x` doesn't show."""
    return f"{{ {line}\n}} 2>/dev/null\n"
