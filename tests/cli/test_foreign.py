"""Every command, at a server that isn't procd."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.cli.conftest import Cli

# A page of an app, what a gateway has nothing to say by, and JSON that is of somebody else.
PAGES = {
    "html": b"<html>app</html>",
    "nothing": b"",
    "null": b"null",
    "list": b'[1, {"sessionId": 2}]',
    "object": b'{"sessions": 5, "contexts": [{"id": 1}], "commands": [[]], "id": null, "cols": ""}',
}
COMMANDS = [
    ["ps"], ["ps", "--json"], ["sessions"], ["sessions", "--json"], ["logs", "s"],
    ["logs", "--json", "s", "c"], ["input", "s", "c", "x"], ["kill", "x"], ["kill", "s", "c"],
    ["exec", "--", "true"], ["run", "--language", "python", "-"], ["python"],
    ["record", "w", "FILE"],
]  # fmt: skip


@pytest.fixture
def foreign(home: str) -> Iterator[Callable[[bytes], Cli]]:
    """Run `procd` against a server that answers every request with this."""
    servers = []

    def make(page: bytes) -> Cli:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200)
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return Cli(f"http://127.0.0.1:{server.server_port}", home)

    yield make
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_it_is_told(foreign: Callable[[bytes], Cli], page: bytes, tmp_path: Path) -> None:
    cli = foreign(page)
    file = str(tmp_path / "x.cast")
    for words in COMMANDS:
        result = cli(*(file if word == "FILE" else word for word in words), stdin=b"1")
        assert result.returncode == (125 if words[0] == "exec" else 1), words
        assert result.stdout == b""
        assert (
            result.stderr
            == (
                f"procd: {cli.url} doesn't speak procd's API: say where procd is with --url or"
                " PROCD_URL\n"
            ).encode()
        )


def test_nothing_is_ended_by_a_page(foreign: Callable[[bytes], Cli]) -> None:
    result = foreign(PAGES["html"])("kill", "--kind", "session", "s")
    assert result.returncode == 1
    assert b"doesn't speak procd's API" in result.stderr


@pytest.mark.parametrize(
    ("moment", "hours", "shown"),
    [
        ("{:%Y-%m-%dT%H:%M:%S}.123456789+05:30", 5.5 - 2.5, "2h"),
        ("{:%Y-%m-%dT%H:%M:%S}", -7.5, "7h"),
        ("yesterday", 0, "yesterday"),
    ],
)
def test_moments_of_others(
    foreign: Callable[[bytes], Cli], moment: str, hours: float, shown: str
) -> None:
    """With another offset, or none, which is UTC then; or what is no moment at all."""
    then = datetime.now(UTC) + timedelta(hours=hours)
    command = {"id": "c" * 36, "command": "x", "startedAt": moment.format(then)}
    page = json.dumps([{"sessionId": "s", "commands": [command]}])
    result = foreign(page.encode())("sessions")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.split()[-2:] == [shown.encode(), b"x"]
