"""Token files. Each line has a name, a scope and the hash of the secret.

    # who may what hash
    ci write sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Lines are removed by hand; at SIGHUP procd reads the file again.
"""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from procd.config import ConfigError
from procd.config_file import open_file
from procd.services.access import NAME, Scope, Token

ALGORITHM: Final = "sha256:"
DIGEST_BYTES: Final = 32
MAX_FILE_BYTES: Final = 1 << 20
SCOPES: Final = {scope.name.lower(): scope for scope in Scope}


def read(path: Path) -> list[Token]:
    """The tokens of a file.

    Raises:
        ConfigError: the file can't be used, or a line is wrong.
    """
    tokens, problem = parse(path)
    if problem:
        raise ConfigError(problem)
    return tokens


def parse(path: Path, *, again: bool = False) -> tuple[list[Token], str]:
    """Parse a file; returns its tokens and the first problem, or "" if there is none.

    Args:
        again: as `open_file`.

    Raises:
        ConfigError: it can't be read, or others than its owner could have written it.
    """
    try:
        with open_file(path, again=again) as file:
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigError(f"{path}: others than its owner can write it: chmod 600")
            if status.st_uid not in (0, os.geteuid()):
                raise ConfigError(f"{path}: belongs to neither root nor procd's user")
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: longer than {MAX_FILE_BYTES} bytes")
    tokens: list[Token] = []
    problem = ""
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        token = _parsed(line)
        if token is not None:
            tokens.append(token)
        elif not problem:
            problem = f"{path}: line {number}: must be NAME SCOPE sha256:HASH"
    return tokens, problem


def _parsed(line: str) -> Token | None:
    """The token of a line, or None if the line is wrong."""
    words = line.split()
    if len(words) != 3 or not NAME.fullmatch(words[0]):
        return None
    name, scope, digest_text = words
    if scope not in SCOPES or not digest_text.startswith(ALGORITHM):
        return None
    try:
        digest = bytes.fromhex(digest_text.removeprefix(ALGORITHM))
    except ValueError:
        return None
    if len(digest) != DIGEST_BYTES:
        return None
    return Token(name=name, scope=SCOPES[scope], digest=digest)


def add(
    path: Path,
    token: Token,
    *,
    most: int = sys.maxsize,
    first: Callable[[], None] | None = None,
) -> None:
    """Add a token; the file is replaced atomically, with mode 0600.

    Args:
        most: the largest number of tokens in the file.
        first: called before the file is replaced; its exception leaves the file as it was.

    Raises:
        ConfigError: the name is taken, the file is full, no token file or not writable, or another
            process is writing it.
    """
    path = path.resolve()  # keeps a symbolic link
    fresh = path.with_name(path.name + ".new")
    try:
        # The fixed name makes it a lock as well.
        number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as exc:
        raise ConfigError(f"{fresh}: exists: is it just being written? Else remove it") from exc
    except OSError as exc:
        raise ConfigError(f"{fresh}: {exc.strerror}") from exc
    try:
        with os.fdopen(number, "wb") as file:
            file.write(_with(path, token, most))
            if path.exists():
                status = path.stat()
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.flush()
            os.fsync(file.fileno())
        if first is not None:
            first()
        fresh.rename(path)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    finally:
        fresh.unlink(missing_ok=True)


def _with(path: Path, token: Token, most: int) -> bytes:
    """The content of the file, with a line for `token`."""
    content = b""
    if path.exists():
        tokens = read(path)
        if token.name in {other.name for other in tokens}:
            raise ConfigError(f"{path}: has a token named {token.name} already")
        if len(tokens) >= most:
            raise ConfigError(f"{path}: has {len(tokens)} tokens: auth.max_tokens is {most}")
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            content += b"\n"
    line = f"{token.name} {token.scope.name.lower()} {ALGORITHM}{token.digest.hex()}\n"
    return content + line.encode()
