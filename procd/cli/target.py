"""The server to talk to and the token for it: from options, the environment, and a file."""

import os
import stat
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from procd.cli.failure import Failure

DEFAULT_URL: Final = "http://127.0.0.1:2280"
PORTS: Final = {"http": 80, "https": 443}
# Characters that need no quoting in a path: RFC 3986, section 3.3.
PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~"
MAX_TOKEN_BYTES: Final = 4096
KEYS: Final = ("url", "token", "token_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server.

    Attributes:
        url: as the user gave it, for messages.
        socket: path of a Unix socket; empty for TCP.
        prefix: path in front of the API's paths, behind a proxy; without a slash at its end.
        token: bearer token; empty for none.
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
        """Value of the Host header."""
        if self.socket:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = PORTS["https" if self.tls else "http"]
        return host if self.port == default else f"{host}:{self.port}"


def parse(url: str, token: str = "") -> Target:
    """Parse a URL: http://…, https://… or unix:/path.

    Raises:
        Failure: it is no such URL.
    """
    no_url = Failure(f"{url}: not a URL", f"write it like {DEFAULT_URL}, or unix:/path")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:
        raise no_url from None
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise Failure(f"{url}: a socket is named as unix:/path, from the root")
        return Target(url=url, socket=unquote(parts.path), token=token)
    if parts.scheme not in PORTS or not host:
        raise no_url
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


def resolve(url: str | None, token_file: str | None) -> Target:
    """Find the server and its token: options win over the environment, and that over the file.

    Raises:
        Failure: a file can't be read, or a setting makes no sense.
    """
    environ = os.environ
    if url is None:
        url = environ.get("PROCD_URL") or None
    token, origin = None, "PROCD_TOKEN"
    if token_file is None:
        token, token_file = environ.get("PROCD_TOKEN"), environ.get("PROCD_TOKEN_FILE") or None
    has_token = bool(token) or token_file is not None
    settings = {} if url is not None and has_token else _read_settings()
    # The file's token is for the file's URL, and for no other server.
    file_url = settings.get("url", DEFAULT_URL)
    url = file_url if url is None else url
    if not has_token and url == file_url:
        token, token_file = settings.get("token"), settings.get("token_file")
        origin = config_path()
    if token:
        return parse(url, _checked(token, origin))
    return parse(url, "" if token_file is None else read_token(token_file))


def read_token(path: str) -> str:
    """Read a token from a file.

    Raises:
        Failure: the file can't be read, or holds no token.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:  # noqa: PTH123, PTH111 - pathlib is slow to import
            text = file.read(MAX_TOKEN_BYTES + 1).decode("ascii", "replace")
    except OSError as exc:
        raise Failure(f"token file {path}: {exc.strerror}") from exc
    except ValueError as exc:  # NUL
        raise Failure(f"token file {path!r}: {exc}") from exc
    return _checked(text, path)


def _checked(text: str, origin: str) -> str:
    token = text.strip()
    if not token or len(token) > MAX_TOKEN_BYTES or not token.isascii() or len(token.split()) != 1:
        raise Failure(f"{origin}: holds no token", "`procd token` makes one")
    return token


def config_path() -> str:
    """Return the path of the client's file. Source: XDG Base Directory Specification."""
    given = os.environ.get("PROCD_CLIENT_CONFIG")
    if given is not None:
        return given
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - as above
    return f"{base}/procd/client.toml"


def _read_settings() -> dict[str, str]:
    path = config_path()
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            mode = os.fstat(file.fileno()).st_mode
            import tomllib  # only needed if there is a file

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
