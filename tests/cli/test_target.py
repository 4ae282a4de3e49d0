"""Which server is talked to, and with which token."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from procd.app import create_app
from procd.cli.failure import Failure
from procd.cli.target import Target, parse, resolve
from procd.config_file import from_mapping
from procd.http.runner import Runner
from tests.api.access import Secrets
from tests.cli.conftest import PROCD, Cli
from tests.daemon.daemon import Daemon, environment


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
    target = parse(url)
    assert (target.authority, target.prefix) == (authority, prefix)
    assert target.tls == url.startswith("https")
    assert target.socket == ("/run/procd.sock" if url.startswith("unix") else "")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:2280", "ftp://x", "http://", "http://h:x", "http://h:70000", "unix:rel/path",
        "unix://host/path", "http://u:p@h", "http://h?x=1", "", "http://[::1", "http://ä..b",
    ],
)  # fmt: skip
def test_no_url(url: str) -> None:
    with pytest.raises(Failure):
        parse(url)


def test_token_is_in_no_representation() -> None:
    assert "secret" not in repr(parse("http://h", "secret"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Path]:
    """Write the client's file."""
    for name in ("PROCD_URL", "PROCD_TOKEN", "PROCD_TOKEN_FILE", "PROCD_CLIENT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "procd" / "client.toml"
    path.parent.mkdir()

    def write(text: str, mode: int = 0o600) -> Path:
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def facts(target: Target) -> tuple[str, str]:
    return target.url, target.token


def test_what_comes_before_what(
    place: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert facts(resolve(None, None)) == ("http://127.0.0.1:2280", "")
    place('url = "http://file"\ntoken = "of-file"\n')
    assert facts(resolve(None, None)) == ("http://file", "of-file")
    # A token is for the server that it stands beside.
    assert facts(resolve("http://other", None)) == ("http://other", "")
    assert facts(resolve("http://file", None)) == ("http://file", "of-file")
    monkeypatch.setenv("PROCD_URL", "http://variable")
    assert facts(resolve(None, None)) == ("http://variable", "")
    (tmp_path / "a").write_text("of-variable's-file\n")
    (tmp_path / "b").write_text(" of-option \n")
    monkeypatch.setenv("PROCD_TOKEN_FILE", str(tmp_path / "a"))
    assert facts(resolve(None, None)) == ("http://variable", "of-variable's-file")
    monkeypatch.setenv("PROCD_TOKEN", "of-variable")
    assert facts(resolve(None, None)) == ("http://variable", "of-variable")
    found = resolve("http://option", str(tmp_path / "b"))
    assert facts(found) == ("http://option", "of-option")


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
def test_bad_file(place: Callable[..., Path], text: str, mode: int, message: str) -> None:
    place(text, mode)
    with pytest.raises(Failure, match=message):
        resolve(None, None)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[tuple[str, Secrets]]:
    """A server on a Unix socket that asks for tokens."""
    secrets = Secrets(tmp_path / "tokens")
    config = from_mapping({"auth": {"token_file": str(secrets.path)}, "interpreter": {"warm": 0}})
    runner = Runner(create_app(config), config.server)
    await runner.setup()
    path = str(tmp_path / "s")
    await web.UnixSite(runner, path).start()
    yield f"unix:{path}", secrets
    await runner.cleanup()


async def run(*arguments: str, stdin: bytes = b"", **settings: str) -> tuple[int, str, str]:
    """Run procd beside the server of this loop."""
    process = await asyncio.create_subprocess_exec(
        *PROCD, *arguments, stdin=-1, stdout=-1, stderr=-1, env=environment(**settings)
    )
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_unix_socket_and_token(guarded: tuple[str, Secrets], tmp_path: Path) -> None:
    url, secrets = guarded
    found = await run(
        "exec", "--", "sh", "-c", "cat; exit 4", stdin=b"in", PROCD_URL=url,
        PROCD_TOKEN=secrets.write,
    )  # fmt: skip
    assert found == (4, "in", "")
    file = tmp_path / "token"
    file.write_text(secrets.read)
    code, out, _ = await run("--url", url, "--token-file", str(file), "ps", "--json")
    assert code == 0
    assert '"terminals": []' in out


async def test_no_token_and_too_little(guarded: tuple[str, Secrets]) -> None:
    url, secrets = guarded
    code, _, err = await run("--url", url, "ps")
    assert code == 1
    assert err.startswith(
        "procd: unauthorized: a valid token is required: give one with PROCD_TOKEN"
    )
    code, _, err = await run("--url", url, "exec", "--", "true", PROCD_TOKEN=secrets.read)
    assert code == 125
    assert err.startswith("procd: forbidden: scope 'write' is required")


async def test_no_socket(tmp_path: Path) -> None:
    code, _, err = await run("--url", f"unix:{tmp_path}/none", "ps")
    assert code == 1
    assert "(No such file or directory): start it with `procd serve`" in err


def test_a_server_hides_a_client_token(home: str) -> None:
    with Daemon.start(env={"HOME": home, "PROCD_TOKEN": "hide-this", "PROCD_URL": "x"}) as daemon:
        environ = Path(f"/proc/{daemon.pid}/environ").read_bytes()
        assert b"HOME=" in environ
        assert b"hide-this" not in environ


def test_token_is_no_argument(cli: Cli) -> None:
    result = cli("--token", "x", "ps")
    assert result.returncode == 2
    assert os.fsencode("--token-file") in result.stderr


def test_what_is_no_http(cli: Cli) -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            one, _ = listener.accept()
            one.recv(1000)
            one.sendall(b"SSH-2.0-x\r\n\r\n")
            one.close()

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        result = cli("--url", url, "ps")
        thread.join()
    assert result.returncode == 1
    assert result.stderr == f"procd: {url} doesn't speak HTTP\n".encode()
