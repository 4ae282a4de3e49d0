"""Tokens and their scopes, the files that keep them, and one-time tickets.

A line of a token file has a name, a scope and a hash, as in `ci write sha256:9f86d081…`. Only the
SHA-256 of a secret is kept, on disk and in memory: its 256 random bits can't be guessed, so a slow,
salted hash would only slow each request down.

Source: OWASP Cryptographic Storage Cheat Sheet; RFC 6750.
"""

import hashlib
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from hmac import compare_digest
from pathlib import Path
from typing import Final

from procd.config import AuthConfig, ConfigError
from procd.config_file import open_file
from procd.errors import Exhausted

# Credentials in the query of a URL: contract, section 1, and POST /tickets.
KEY_PARAM: Final = "DAYTONA_SANDBOX_AUTH_KEY"
TICKET_PARAM: Final = "ticket"
IN_URL: Final = re.compile(rf"\b({KEY_PARAM}|{TICKET_PARAM})=[^&\s\"'<>]+", re.IGNORECASE)

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Of a token that `procd token` didn't make.
MIN_SECRET_LENGTH: Final = 16
# Longer ones are refused without hashing them.
MAX_SECRET_LENGTH: Final = 512
# Scanners for leaked secrets recognize a token by its prefix.
PREFIX: Final = "procd_"
RANDOM_BYTES: Final = 32
ALGORITHM: Final = "sha256:"
DIGEST: Final = re.compile(rf"{ALGORITHM}[0-9a-fA-F]{{64}}")
MAX_FILE_BYTES: Final = 1 << 20


class Scope(IntEnum):
    """What a token allows; each scope includes those before it."""

    READ = 1  # lists, logs, output of terminals
    WRITE = 2  # run, type, resize, end
    ADMIN = 3  # change settings for all


SCOPES: Final = {scope.name.lower(): scope for scope in Scope}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, without its secret; `digest` is the SHA-256 of that."""

    name: str
    scope: Scope
    digest: bytes


# The caller, if no token is required.
ANYONE: Final = Token(name="anyone", scope=Scope.ADMIN, digest=b"")


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest_of(secret: str) -> bytes:
    """The SHA-256 of a secret; a secret that was not valid UTF-8 is accepted."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def redacted(text: str) -> str:
    """Replace the credentials in the URLs of a text."""
    return IN_URL.sub(r"\1=[redacted]", text)


class Tokens:
    def __init__(self, tokens: Iterable[Token]) -> None:
        self.all = tuple(tokens)

    def __contains__(self, token: object) -> bool:
        return token in self.all

    def find(self, secret: str) -> Token | None:
        """The token of a secret; it compares with all in constant time, also after a match."""
        if not secret or len(secret) > MAX_SECRET_LENGTH:
            return None
        digest = digest_of(secret)
        found = None
        for token in self.all:
            if compare_digest(token.digest, digest):
                found = token
        return found


def read_tokens(path: Path) -> list[Token]:
    """The tokens of a file; raises ConfigError if it can't be used or a line is wrong."""
    tokens, problem = parse_tokens(path)
    if problem:
        raise ConfigError(problem)
    return tokens


def parse_tokens(path: Path, *, again: bool = False) -> tuple[list[Token], str]:
    """Parse a file; returns its tokens and the first problem, or "" if there is none.

    Raises ConfigError if it can't be read, or others than its owner could have written it. `again`
    is as in `open_file`.
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
    match line.split():
        case [name, scope, digest] if (
            NAME.fullmatch(name) and scope in SCOPES and DIGEST.fullmatch(digest)
        ):
            digest = digest.removeprefix(ALGORITHM)
            return Token(name=name, scope=SCOPES[scope], digest=bytes.fromhex(digest))
    return None


def add_token(
    path: Path,
    token: Token,
    *,
    most: int = sys.maxsize,
    first: Callable[[], None] | None = None,
) -> None:
    """Add a token; the file is replaced atomically, with mode 0600.

    `first` is called before that; its exception leaves the file as it was. Raises ConfigError: the
    name is taken, there are `most` tokens, it can't be written, or another process is writing it.
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
    content = b""
    if path.exists():
        tokens = read_tokens(path)
        if token.name in {other.name for other in tokens}:
            raise ConfigError(f"{path}: has a token named {token.name} already")
        if len(tokens) >= most:
            raise ConfigError(f"{path}: has {len(tokens)} tokens: auth.max_tokens is {most}")
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            content += b"\n"
    line = f"{token.name} {token.scope.name.lower()} {ALGORITHM}{token.digest.hex()}\n"
    return content + line.encode()


@dataclass(frozen=True, slots=True)
class _Ticket:
    token: Token
    route: str
    expires: float


class Tickets:
    """One-time tickets for clients that can't send a header; each is for one route.

    They are stored by hash, oldest first. Expired ones are removed when the next one is made.
    """

    def __init__(self, config: AuthConfig) -> None:
        self.config = config
        self._tickets: dict[bytes, _Ticket] = {}

    def make(self, token: Token, route: str) -> str:
        """Make a ticket for `route` with the scope of `token`; raises Exhausted."""
        now = time.monotonic()
        while self._tickets:
            digest, oldest = next(iter(self._tickets.items()))
            if oldest.expires > now:
                break
            del self._tickets[digest]
        if len(self._tickets) >= self.config.max_tickets:
            raise Exhausted(f"limit of {self.config.max_tickets} tickets is reached")
        secret = secrets.token_urlsafe(RANDOM_BYTES)
        self._tickets[digest_of(secret)] = _Ticket(token, route, now + self.config.ticket_s)
        return secret

    def redeem(self, secret: str, route: str) -> Token | None:
        """The token that a ticket was made with, or None. The ticket can't be used again.

        The look-up by hash leaks nothing by its time, as callers can't choose the hash.
        """
        if not secret or len(secret) > MAX_SECRET_LENGTH:
            return None
        ticket = self._tickets.pop(digest_of(secret), None)
        if ticket is None or ticket.route != route or ticket.expires <= time.monotonic():
            return None
        return ticket.token

    def drop_without(self, tokens: Tokens) -> None:
        self._tickets = {
            digest: ticket for digest, ticket in self._tickets.items() if ticket.token in tokens
        }
