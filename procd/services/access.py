"""Who may do what: scopes, named tokens, one-time tickets. No HTTP.

Only the SHA-256 of a token is kept, on disk as in memory. That is enough for what `new_secret`
makes: 256 random bits can't be guessed at any speed, so a slow, salted hash as for passwords would
add nothing but a cost to every request. It is also why a secret of one's own choice has to be long.

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
# Of a token that was not made by `procd token`: below this it could be guessed.
MIN_SECRET_LENGTH: Final = 16
# Nothing longer is a token; it isn't even hashed.
MAX_SECRET_LENGTH: Final = 512
# Scanners for leaked secrets know a token by how it begins.
PREFIX: Final = "procd_"
RANDOM_BYTES: Final = 32


class Scope(IntEnum):
    """What a token is good for; each includes those before it."""

    READ = 1  # look: lists, logs, a terminal's output
    WRITE = 2  # run, type, resize, end
    ADMIN = 3  # change what holds for everybody


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as the server knows it.

    Attributes:
        digest: SHA-256 of the secret.
    """

    name: str
    scope: Scope
    digest: bytes


# Stands for every caller where no token is asked for.
ANYONE: Final = Token(name="anyone", scope=Scope.ADMIN, digest=b"")


def new_secret() -> str:
    """A token's secret, never to be seen again but by its user."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest_of(secret: str) -> bytes:
    """The SHA-256 of a secret, whatever bytes a client made it of."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def redacted(text: str) -> str:
    """A text without the credentials of the URLs in it."""
    return IN_URL.sub(r"\1=[redacted]", text)


class Tokens:
    """The tokens that are good now."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def among(self, tokens: Set[Token]) -> "Tokens":
        """Those of these that are among others as well."""
        return Tokens(token for token in self._tokens if token in tokens)

    def find(self, secret: str) -> Token | None:
        """The token of this secret, or None; the time it takes tells nothing of any token.

        All are compared, also after a match.
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
    """One-time tickets for clients that can't send a header: each for one route and one use.

    They are kept by hash, oldest first, and go when used, when their time is over and the next one
    is made, or with their maker's token.
    """

    def __init__(self, config: AuthConfig) -> None:
        self.config = config
        self._tickets: dict[bytes, _Ticket] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def make(self, token: Token, route: str) -> str:
        """A ticket that is good for `route` with the scope of `token`.

        Raises:
            Exhausted: `auth.max_tickets` wait to be used.
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
        """The token that the ticket stands for, or None; either way it is used up.

        It is looked up by its hash, which a caller can't steer: the time that takes tells nothing.
        """
        if not secret or len(secret) > MAX_SECRET_LENGTH:
            return None
        ticket = self._tickets.pop(digest_of(secret), None)
        if ticket is None or ticket.route != route or ticket.expires <= time.monotonic():
            return None
        return ticket.token

    def drop_without(self, tokens: Tokens) -> None:
        """Drop those whose maker's token is gone."""
        self._tickets = {
            digest: ticket for digest, ticket in self._tickets.items() if ticket.token in tokens
        }
