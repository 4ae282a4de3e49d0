"""Where the server is and which token it is shown: from options, environment and a file."""

import os
import stat
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from procd.cli.failure import Failure

DEFAULT_URL: Final = "http://127.0.0.1:2280"
PORTS: Final = {"http": 80, "https": 443}
# What stands in a path as it is: RFC 3986, section 3.3.
PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~"
MAX_TOKEN_BYTES: Final = 4096
KEYS: Final = ("url", "token", "token_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One server.

    Attributes:
        url: as given, for messages.
        socket: path of a Unix socket; empty for TCP.
        prefix: what the paths of the API are below, as with a proxy; no slash at its end.
        token: the bearer token; empty for none. It is in no representation.
    """

    url: str
    host: str = ""
    port: int = 0
    tls: bool = False
    socket: str = ""
    prefix: str = ""
    token: str = field(default="", repr=False)

    @property
    def authority(self) -> str:
        """What the Host header says."""
        if self.socket:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            host if self.port == PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"
        )


def parse(url: str, token: str = "") -> Target:
    """The target that a URL names: http://…, https://… or unix:/path.

    Raises:
        Failure: it names none.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _no_url(url) from None
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise Failure(f"{url}: a socket is named as unix:/path, from the root")
        return Target(url=url, socket=unquote(parts.path), token=token)
    try:
        port = parts.port
        host = parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:
        raise _no_url(url) from None
    if parts.scheme not in PORTS or not host:
        raise _no_url(url)
    if parts.username is not None or parts.query or parts.fragment:
        raise Failure("the URL may hold no password, query or fragment", "see --token-file")
    return Target(
        url=url,
        host=host,
        port=PORTS[parts.scheme] if port is None else port,
        tls=parts.scheme == "https",
        prefix=quote(parts.path.rstrip("/"), safe=PATH_CHARACTERS, errors="surrogateescape"),
        token=token,
    )


def _no_url(url: str) -> Failure:
    return Failure(f"{url}: not a URL", f"write it like {DEFAULT_URL}, or unix:/path")


def config_path() -> str:
    """Where the client's own file is. Source: XDG Base Directory Specification."""
    given = os.environ.get("PROCD_CLIENT_CONFIG")
    if given is not None:
        return given
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - a str: pathlib costs milliseconds
    return f"{base}/procd/client.toml"


def resolve(url: str | None, token_file: str | None) -> Target:
    """The server to talk to: options come before environment, and that before the file.

    Raises:
        Failure: a file can't be read, or what one says makes no sense.
    """
    environ = os.environ
    settings: dict[str, str] = {}
    if url is None and not (url := environ.get("PROCD_URL")):
        settings = _settings()
        url = settings.setdefault("url", DEFAULT_URL)
    if token_file is not None:
        return parse(url, read_token(token_file))
    if token := environ.get("PROCD_TOKEN"):
        return parse(url, _token(token, "PROCD_TOKEN"))
    if token_file := environ.get("PROCD_TOKEN_FILE"):
        return parse(url, read_token(token_file))
    # A file's token is meant for the file's URL, and for no other server.
    settings = settings or _settings()
    if settings.get("url", DEFAULT_URL) != url:
        return parse(url)
    if token := settings.get("token"):
        return parse(url, _token(token, config_path()))
    if token_file := settings.get("token_file"):
        return parse(url, read_token(token_file))
    return parse(url)


def read_token(path: str) -> str:
    """The token in a file.

    Raises:
        Failure: it can't be read, or holds no token.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:  # noqa: PTH123, PTH111 - as above
            text = file.read(MAX_TOKEN_BYTES + 1).decode("ascii", "replace")
    except OSError as exc:
        raise Failure(f"token file {path}: {exc.strerror}") from exc
    except ValueError as exc:  # a NUL, which a file of settings can name
        raise Failure(f"token file {path!r}: {exc}") from exc
    return _token(text, path)


def _token(text: str, origin: str) -> str:
    token = text.strip()
    if not token or len(token) > MAX_TOKEN_BYTES or not token.isascii() or len(token.split()) != 1:
        raise Failure(f"{origin}: holds no token", "`procd token` makes one")
    return token


def _settings() -> dict[str, str]:
    path = config_path()
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            mode = os.fstat(file.fileno()).st_mode
            import tomllib  # only who has such a file needs it

            document: dict[str, Any] = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise Failure(f"{path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise Failure(f"{path}: {exc}") from exc
    for key, value in document.items():
        if key not in KEYS or not isinstance(value, str):
            raise Failure(f"{path}: {key}: only {', '.join(KEYS)} may be set, each to a string")
    if "token" in document and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Failure(f"{path}: others may read the token in it", f"chmod 600 {path}")
    return document
