"""The commands in README and the pages beside it are run, and print what stands below them.

They are in blocks marked `console`. `…` stands for anything within a line, together with the word
that it ends; alone, it stands for any number of lines.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

import pytest

from tests.cli.screen import Screen
from tests.daemon.daemon import PATH, Daemon, environment, eventually
from tests.docs.pages import PAGES, README, ROOT, blocks

SHELL_PROMPT: Final = "you@sandbox:~$ "
PROMPTS: Final = (SHELL_PROMPT, ">>> ")
# Printed after each command.
DONE: Final = "--done--\n"
COMMANDS: Final = {page: blocks(page, "console") for page in PAGES}


@pytest.fixture(autouse=True)
def settled() -> None:
    """In place of the check of this process: what is tested runs in others."""


@pytest.fixture(autouse=True)
def no_blocking() -> None:
    """In place of the check of this loop: as above."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home, whose shell has the prompt of the pages."""
    (tmp_path / ".bash_profile").write_text(f"PS1='{SHELL_PROMPT.replace('~', chr(92) + 'w')}'\n")
    (tmp_path / ".inputrc").write_text("set enable-bracketed-paste off\n")
    return tmp_path


@pytest.fixture
def daemon(home: Path) -> Iterator[Daemon]:
    settings = {"HOME": str(home), "PATH": PATH, "PROCD_PROCESS_SHELL": "/bin/bash"}
    with Daemon.start(env=settings, cwd=str(home)) as daemon:
        yield daemon


@pytest.fixture
def env(daemon: Daemon, home: Path) -> dict[str, str]:
    """What a reader has who follows a page."""
    own = {"HOME": str(home), "PATH": PATH, "PROCD_URL": daemon.url, "LC_ALL": "C.UTF-8"}
    places = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_STATE_HOME"), "")
    return environment(**places, **own, TERM="xterm-256color", PYTHONPATH=str(ROOT))


class Reader:
    """Somebody who types the commands of a page into one shell."""

    def __init__(self, env: dict[str, str], directory: Path) -> None:
        self._shell = subprocess.Popen(
            ["/bin/bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=directory,
            text=True,
        )

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def run(self, command: str) -> str:
        """What a command prints, with one newline at its end if it prints anything."""
        stdin = self._pipe(self._shell.stdin)
        stdin.write(f"{{ {command}\n}} </dev/null\necho; echo {DONE}")
        stdin.flush()
        printed = ""
        for line in self._pipe(self._shell.stdout):
            if line == DONE:
                break
            printed += line
        text = printed.replace("\r\n", "\n").rstrip("\n")
        return text and text + "\n"

    def close(self) -> None:
        self._pipe(self._shell.stdin).close()
        self._shell.wait()
        self._pipe(self._shell.stdout).close()


def pattern(expected: str) -> "re.Pattern[str]":
    """What a command has to print."""
    lines = (
        "(?:.*\n)*?" if line == "…" else re.sub(r"\w*…", ".*?", re.escape(line)) + "\n"
        for line in expected.splitlines()
    )
    return re.compile("".join(lines))


def steps(block: str) -> Iterator[tuple[str, str]]:
    """The commands of a block, each with what stands below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def use(command: str, dialogue: str, env: dict[str, str]) -> None:
    """Run an interactive command, type what stands behind its prompts, and see what it answers."""
    screen = Screen(["/bin/bash", "-c", command], env)
    try:
        for line in dialogue.splitlines():
            prompt = next((each for each in PROMPTS if line.startswith(each)), "")
            if prompt:
                screen.until(re.escape(prompt).encode())
                screen.type(line.removeprefix(prompt).encode() + b"\r")
            screen.until(re.escape(line.removeprefix(prompt)).encode())
        assert screen.wait() == 0
    finally:
        screen.close()


def here(block: str, daemon: Daemon) -> str:
    """A block for this daemon, and for a busy machine: the SDK has too little patience."""
    block = re.sub(r"(localhost|127\.0\.0\.1):2280", f"127.0.0.1:{daemon.port}", block)
    return block.replace("$ python ", "$ python -m tests.compat.patience ")


def check(reader: Reader, command: str, expected: str) -> None:
    """Run a command and see what it prints."""
    wanted = pattern(expected)
    printed = [reader.run(command)]

    def prints() -> bool:
        if not wanted.fullmatch(printed[-1]):
            printed.append(reader.run(command))
        return bool(wanted.fullmatch(printed[-1]))

    # What was started in the background may not have printed yet. To read again does no harm.
    if re.match(r"curl (?!.* -[dX] )|procd (ps|sessions)$", command):
        eventually(prints)
    assert wanted.fullmatch(printed[-1]), f"{command}\n{printed[-1]}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if COMMANDS[page]], ids=lambda page: page.name
)
def test_commands_print_what_the_page_says(
    page: Path, daemon: Daemon, env: dict[str, str], home: Path
) -> None:
    if page == README and find_spec("daytona") is None:
        pytest.skip("daytona is not installed")
    for program in blocks(page, "python"):
        name = program.splitlines()[0].removeprefix("# ")
        (home / name).write_text(program)
    reader = Reader(env, home)
    try:
        for block in COMMANDS[page]:
            for command, expected in steps(here(block, daemon)):
                if expected.startswith(PROMPTS):
                    use(command, expected, env)
                else:
                    check(reader, command, expected)
    finally:
        reader.close()
