"""The sources of tokens, and whether callers need one."""

import ipaddress
import logging
import re
from pathlib import Path
from typing import Final

from procd.config import Config, ConfigError
from procd.services.tokens import (
    MAX_SECRET_LENGTH,
    MIN_SECRET_LENGTH,
    Scope,
    Tickets,
    Token,
    Tokens,
    digest_of,
    parse_tokens,
)

log = logging.getLogger(__name__)

# Source: systemd.exec(5), LoadCredential=.
CREDENTIAL: Final = "procd-tokens"
VARIABLE: Final = "PROCD_AUTH_TOKEN"
OF_VARIABLE: Final = "environment"  # the name of its token
# Characters that a header can't contain. Source: RFC 9110, section 5.5.
UNSENDABLE: Final = re.compile(r"[\x00-\x08\n-\x1f\x7f]")
# An origin as browsers send it. Source: RFC 6454, section 6.2.
ORIGIN: Final = re.compile(
    r"(?!http:.*:80\Z|https:.*:443\Z)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]+)?"
)


def is_address(host: str) -> bool:
    """Whether the name of a Host header is an address; one of IPv6 is in brackets."""
    try:
        if host.startswith("[") and host.endswith("]"):
            ipaddress.IPv6Address(host[1:-1])
        else:
            ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens at `host`; "" is no TCP."""
    if host.lower() in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """The tokens and tickets in force; `secret` is the token from the environment, if there is one.

    `required`, whether callers need a token, is decided once. Raises ConfigError if a source of
    tokens can't be used, or if other machines could call without one though `auth.mode` isn't none.
    """

    def __init__(
        self, config: Config, secret: str | None = None, credentials_dir: str = ""
    ) -> None:
        self._config = config.auth
        self._own: list[Token] = []
        if secret is not None:
            secret = secret.strip()
            if not MIN_SECRET_LENGTH <= len(secret) <= MAX_SECRET_LENGTH:
                raise ConfigError(
                    f"{VARIABLE}: must have {MIN_SECRET_LENGTH} to {MAX_SECRET_LENGTH} characters"
                )
            if UNSENDABLE.search(secret):
                raise ConfigError(f"{VARIABLE}: must have no control characters in it")
            self._own.append(Token(name=OF_VARIABLE, scope=Scope.ADMIN, digest=digest_of(secret)))
        self._files: list[tuple[str, Path]] = []  # the setting, the file
        credential = Path(credentials_dir, CREDENTIAL)
        self._has_credential = bool(credentials_dir) and _is_passed(credential)
        if self._has_credential:
            self._files.append((f"credential {CREDENTIAL}", credential))
        if config.auth.token_file:
            self._files.append(("auth.token_file", Path(config.auth.token_file)))
        tokens, problem = self._load(again=False)
        if problem:
            raise ConfigError(problem)
        self.tokens = Tokens(tokens)
        self.tickets = Tickets(config.auth)
        self.required = self._decide(config.server.host)
        self._check_origins(config)

    def _load(self, *, again: bool) -> tuple[list[Token], str]:
        """Read all tokens; returns them and the first problem, or "" if there is none."""
        tokens = self._own.copy()
        problems: list[str] = []
        names = {token.name for token in tokens}
        for setting, file in self._files:
            try:
                found, problem = parse_tokens(file, again=again)
            except ConfigError as exc:
                raise ConfigError(f"{setting}: {exc}") from exc
            if problem:
                problems.append(f"{setting}: {problem}")
            for token in found:
                if token.name in names:
                    problems.append(f"{setting}: {file}: a second token named {token.name}")
                names.add(token.name)
            tokens += found
        if len(tokens) > self._config.max_tokens:
            problems.append(f"auth.max_tokens: there are {len(tokens)} tokens")
        return tokens, next(iter(problems), "")

    def _decide(self, host: str) -> bool:
        mode = self._config.mode
        has_source = bool(self._own or self._files)
        if mode == "none":
            if has_source:
                raise ConfigError(
                    "auth.mode: none, but tokens are given: take out one or the other"
                )
            return False
        if has_source and not self.tokens.all:
            setting, file = self._files[0]
            raise ConfigError(f"{setting}: {file}: no token in it: make one with `procd token`")
        if not has_source and mode == "token":
            raise _no_token("auth.mode: token")
        if not has_source and not is_loopback(host):
            raise _no_token(f"server.host: {host} is not loopback")
        return has_source

    def check_place(self, host: str) -> None:
        """Raise ConfigError if a passed socket would let other machines call without a token."""
        if not self.required and self._config.mode != "none" and not is_loopback(host):
            raise _no_token(f"the socket that was passed on listens on {host}")

    def _check_origins(self, config: Config) -> None:
        for name, origins in (
            ("cors.allowed_origins", config.cors.allowed_origins),
            ("auth.allowed_origins", config.auth.allowed_origins),
        ):
            if "*" in origins and config.auth.mode != "none":
                raise ConfigError(f"{name}: * would let every web page call: name the origins")
            for origin in origins:
                if origin != "*" and not ORIGIN.fullmatch(origin):
                    raise ConfigError(
                        f"{name}: must be SCHEME://HOST[:PORT] as browsers send it, in lower case,"
                        f" without a path or the scheme's own port: {origin}"
                    )

    def reload(self) -> str:
        """Read the tokens again; returns the problem, or "".

        With a problem in a file, removed tokens lose their force, and no new one gets it. If a
        file can't be read, nothing changes. Without any token, all callers are refused.
        """
        try:
            tokens, problem = self._load(again=True)
        except ConfigError as exc:
            log.error("tokens are not read again, those of before stay: %s", exc)
            return str(exc)
        if problem:
            log.error("no new token comes into force: %s", problem)
        kept = [token for token in tokens if token in self.tokens] if problem else tokens
        self.tokens = Tokens(kept)
        self.tickets.drop_without(self.tokens)
        log.info("tokens read again: %d in force", len(kept))
        if self._has_credential:
            log.warning(
                "the credential %s is the copy that was made at the start: what was removed from"
                " its source since stays in force until a restart",
                CREDENTIAL,
            )
        return problem


def _is_passed(credential: Path) -> bool:
    """systemd names the directory even if it couldn't mount it, as in some containers."""
    try:
        return credential in credential.parent.iterdir()
    except OSError as exc:
        raise ConfigError(f"CREDENTIALS_DIRECTORY: {exc.strerror}: {credential.parent}") from exc


def _no_token(why: str) -> ConfigError:
    return ConfigError(
        f"{why}, and there is no token: make one with `procd token` and set auth.token_file, or set"
        f' {VARIABLE}; behind a proxy that decides who may call, set auth.mode = "none"'
    )
