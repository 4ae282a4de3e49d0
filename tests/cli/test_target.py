"""The server that procd talks to, and the token that it sends."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from procd.cli.failure import Failure
from procd.cli.options import resolve
from procd.cli.transport import Target, parse
from tests.api.access import Secrets
from tests.cli.conftest import Cli
from tests.daemon.daemon import Daemon


@pytest.mark.parametrize(
    ("url", "authority", "prefix"),
    [
        ("http://localhost", "localhost", ""),
        ("http://127.0.0.1:2280/", "127.0.0.1:2280", ""),
        ("https://h.example/toolbox/sb1/", "h.example", "/toolbox/sb1"),
        ("https://h.example:80", "h.example:80", ""),
        ("http://[::1]:8", "[::1]:8", ""),
        ("http://bücher.example/a b/é%20", "xn--bcher-kva.example", "/a%20b/%C3%A9%20"),
        ("http://h/\udcff", "h", "/%FF"),
        ("unix:/run/procd.sock", "localhost", ""),
        ("unix:///run/procd.sock", "localhost", ""),
    ],
)
def test_parse(url: str, authority: str, prefix: str) -> None:
    target = parse(url, "secret")
    assert (target.authority, target.prefix) == (authority, prefix)
    assert target.tls == url.startswith("https")
    assert target.socket == ("/run/procd.sock" if url.startswith("unix") else "")
    assert "secret" not in repr(target)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:2280", "ftp://x", "http://", "http://h:x", "http://h:70000", "unix:rel/path",
        "unix://host/path", "http://u:p@h", "http://h?x=1", "", "http://[::1", "http://ä..b",
    ],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(Failure):
        parse(url)


@pytest.fixture
def write_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    for name in ("PROCD_URL", "PROCD_TOKEN", "PROCD_TOKEN_FILE", "PROCD_CLIENT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "procd" / "client.toml"
    path.parent.mkdir()

    def write(text: str, mode: int = 0o600) -> None:
        path.write_text(text)
        path.chmod(mode)

    return write


def test_what_wins(
    write_config: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def found(url: str | None = None, token_file: str | None = None) -> tuple[str, str]:
        target: Target = resolve(url, token_file)
        return target.url, target.token

    assert found() == ("http://127.0.0.1:2280", "")
    write_config('url = "http://file"\ntoken = "of-file"\n')
    assert found() == ("http://file", "of-file")
    # A token is for the server that it stands beside.
    assert found("http://other") == ("http://other", "")
    assert found("http://file") == ("http://file", "of-file")
    monkeypatch.setenv("PROCD_URL", "http://variable")
    assert found() == ("http://variable", "")
    (tmp_path / "a").write_text("of-variable's-file\n")
    (tmp_path / "b").write_text(" of-option \n")
    monkeypatch.setenv("PROCD_TOKEN_FILE", str(tmp_path / "a"))
    assert found() == ("http://variable", "of-variable's-file")
    monkeypatch.setenv("PROCD_TOKEN", "of-variable")
    assert found() == ("http://variable", "of-variable")
    assert found("http://option", str(tmp_path / "b")) == ("http://option", "of-option")


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ('token = "x"', 0o644, "others may read"),
        ('tokn = "x"', 0o600, "tokn: only url, token, token_file"),
        ("url = 1", 0o600, "url: only"),
        ("url = ", 0o600, "client.toml: "),
        ('token = "two words"', 0o600, "holds no token"),
        ('token_file = "/no/such/file"', 0o600, "No such file"),
        ('token_file = "a\\u0000b"', 0o600, r"token file 'a\\x00b': "),
    ],
)
def test_a_bad_config_file(
    write_config: Callable[..., None], text: str, mode: int, message: str
) -> None:
    write_config(text, mode)
    with pytest.raises(Failure, match=message):
        resolve(None, None)


@pytest.fixture
def guarded(cli: Cli, home: str, tmp_path: Path) -> Iterator[Secrets]:
    """Have a server on a Unix socket that asks for tokens."""
    secrets = Secrets(tmp_path / "tokens")
    settings = {"HOME": home, "PROCD_AUTH_TOKEN_FILE": str(secrets.path), "PROCD_TOKEN": "hidden"}
    cli.url = f"unix:{tmp_path}/s"
    with Daemon.start(env=settings | {"PROCD_SERVER_UNIX": f"{tmp_path}/s"}) as daemon:
        environ = Path(f"/proc/{daemon.pid}/environ").read_bytes()
        assert b"HOME=" in environ
        assert b"hidden" not in environ  # a token of a client is not for the server's processes
        yield secrets


def test_a_unix_socket_and_tokens(cli: Cli, guarded: Secrets, tmp_path: Path) -> None:
    result = cli("exec", "--", "sh", "-c", "cat; exit 4", stdin=b"in", PROCD_TOKEN=guarded.write)
    assert (result.returncode, result.stdout, result.stderr) == (4, b"in", b"")
    file = tmp_path / "token"
    file.write_text(guarded.read)
    assert cli("--token-file", str(file), "ps", "--json").returncode == 0
    result = cli("ps")
    assert result.returncode == 1
    assert result.stderr.startswith(
        b"procd: unauthorized: a valid token is required: give one with PROCD_TOKEN"
    )
    result = cli("exec", "--", "true", PROCD_TOKEN=guarded.read)
    assert result.returncode == 125
    assert result.stderr.startswith(b"procd: forbidden: scope 'write' is required")


def test_no_socket(cli: Cli, tmp_path: Path) -> None:
    result = cli("--url", f"unix:{tmp_path}/none", "ps")
    assert result.returncode == 1
    assert b"(No such file or directory): start it with `procd serve`" in result.stderr


def test_a_token_is_no_argument(cli: Cli) -> None:
    result = cli("--token", "x", "ps")
    assert result.returncode == 2
    assert b"--token-file" in result.stderr
