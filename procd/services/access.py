"""Scopes, named tokens and one-time tickets.

Only the SHA-256 of a token is kept, on disk and in memory. `new_secret` makes 256 random bits,
which can't be guessed, so a slow, salted hash as for passwords would only slow each request down.

Source: OWASP Cryptographic Storage Cheat Sheet; RFC 6750.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import IntEnum
from hmac import compare_digest
from typing import Final

from procd.config import AuthConfig
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


class Scope(IntEnum):
    """What a token allows; each scope includes those before it."""

    READ = 1  # lists, logs, output of terminals
    WRITE = 2  # run, type, resize, end
    ADMIN = 3  # change settings for all


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, without its secret.

    Attributes:
        digest: SHA-256 of the secret.
    """

    name: str
    scope: Scope
    digest: bytes


# The caller, if no token is required.
ANYONE: Final = Token(name="anyone", scope=Scope.ADMIN, digest=b"")


def new_secret() -> str:
    """A new random secret."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest_of(secret: str) -> bytes:
    """The SHA-256 of a secret; a secret that was not valid UTF-8 is accepted."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def redacted(text: str) -> str:
    """Replace the credentials in the URLs of a text."""
    return IN_URL.sub(r"\1=[redacted]", text)


class Tokens:
    """The tokens in force."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def among(self, tokens: Set[Token]) -> "Tokens":
        """Those of these tokens that are in `tokens`."""
        return Tokens(token for token in self._tokens if token in tokens)

    def find(self, secret: str) -> Token | None:
        """The token of a secret, or None.

        It compares with all tokens in constant time, also after a match.
        """
        if not secret or len(secret) > MAX_SECRET_LENGTH:
            return None
        digest = digest_of(secret)
        found = None
        for token in self._tokens:
            if compare_digest(token.digest, digest):
                found = token
        return found


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

    def __len__(self) -> int:
        return len(self._tickets)

    def make(self, token: Token, route: str) -> str:
        """Make a ticket that allows `route` with the scope of `token`.

        Raises:
            Exhausted: there are `auth.max_tickets` unused ones.
        """
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
        """Drop the tickets whose token is not in `tokens`."""
        self._tickets = {
            digest: ticket for digest, ticket in self._tickets.items() if ticket.token in tokens
        }
