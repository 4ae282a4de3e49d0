"""The web terminal's files: what is served, how, and that it is what was published."""

import hashlib
import json
import re
import time
from pathlib import Path

import procd
from tests.aliases import MakeClient
from tests.api.access import Secrets, guarded

WEB = Path(procd.__file__).parent / "web"
VENDOR = WEB / "vendor"


def test_vendored_files_are_what_was_published() -> None:
    """Each is recorded with the package it comes from, unchanged, and nothing else is there."""
    recorded = {}
    for line in (VENDOR / "VENDORED").read_text().splitlines():
        digest, name, package = line.split()
        assert re.fullmatch(r"@xterm/[a-z0-9-]+@\d+\.\d+\.\d+", package)
        recorded[name] = digest
    found = {path.name for path in VENDOR.iterdir()} - {"VENDORED"}
    assert found == set(recorded)
    for name, digest in recorded.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest


async def test_the_page_and_all_it_names_are_served(procd: MakeClient, secrets: Secrets) -> None:
    """Without a token: it is the page that asks for one."""
    client = await guarded(procd, secrets)
    seen: set[str] = set()
    wanted = ["/terminal"]
    while wanted:
        path = wanted.pop()
        if path in seen:
            continue
        seen.add(path)
        async with client.get(path) as reply:
            assert reply.status == 200, path
            policy = reply.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self';" in policy
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            text = await reply.text()
            if "/vendor/" not in path:
                references = re.findall(r'(?:href|src|from|import\()[= (]*"([^":]+)"', text)
                wanted += [reply.url.join(type(reply.url)(each)).path for each in references]
    served = {path.removeprefix("/terminal/static/") for path in seen if "static" in path}
    ours = {path.relative_to(WEB).as_posix() for path in WEB.rglob("*") if path.is_file()}
    assert ours - served == {"index.html", "vendor/VENDORED", "vendor/LICENSE"}


async def test_an_unchanged_file_is_not_sent_again(procd: MakeClient) -> None:
    client = await procd()
    async with client.get("/terminal/static/app.css") as reply:
        etag = reply.headers["ETag"]
        assert reply.headers["Cache-Control"] == "no-cache"
        assert reply.content_type == "text/css"
    headers = {"If-None-Match": etag}
    async with client.get("/terminal/static/app.css", headers=headers) as reply:
        assert reply.status == 304
        assert await reply.read() == b""


async def test_which_tags_are_known(procd: MakeClient) -> None:
    client = await procd()
    async with client.get("/terminal") as reply:
        etag = reply.headers["ETag"]
    for known, status in [
        (f"W/{etag}", 304), (f'"a", {etag}', 304), ("*", 304),
        ('"*"', 200), ('"a"', 200), ("", 200), (etag.strip('"'), 200),
    ]:  # fmt: skip
        async with client.get("/terminal", headers={"If-None-Match": known}) as reply:
            assert reply.status == status, known


async def test_many_tags_take_no_longer_than_a_long_one(procd: MakeClient) -> None:
    """Nobody waits for that; no token is needed to ask."""
    client = await procd()
    seconds: list[float] = []
    for tags in f'"{"a" * 100_000}"', '"a",' * 25_000:
        begin = time.process_time()
        for _ in range(3):
            async with client.get("/terminal", headers={"If-None-Match": tags}) as reply:
                assert reply.status == 200
        seconds.append(time.process_time() - begin)
    assert seconds[1] < 4 * seconds[0]


async def test_what_is_not_served(procd: MakeClient) -> None:
    client = await procd()
    for name in ("nope.js", "vendor/VENDORED", "..%2f__init__.py", "%2fetc/passwd"):
        async with client.get(f"/terminal/static/{name}") as reply:
            assert reply.status == 404, name


async def test_a_slash_at_the_end_is_taken_away(procd: MakeClient) -> None:
    """References in the page are relative to its own path."""
    client = await procd()
    async with client.get("/toolbox/x/terminal/") as reply:
        assert reply.status == 200
        assert reply.url.path == "/toolbox/x/terminal"


async def test_switched_off(procd: MakeClient) -> None:
    client = await procd(web={"enabled": False})
    for path in ("/terminal", "/terminal/static/app.css", "/terminal/ptys"):
        async with client.get(path) as reply:
            assert reply.status == 404


def test_the_page_preloads_what_it_imports() -> None:
    """For its first page, all of it and nothing else, so that no import waits for another."""
    wanted, todo = {"js/terminals.js"}, ["js/main.js", "js/terminals.js"]
    while todo:
        name = todo.pop()
        for reference in re.findall(
            r'^import .* from "(.*)";$', (WEB / name).read_text(), re.MULTILINE
        ):
            path = (WEB / name).parent.joinpath(reference).resolve().relative_to(WEB).as_posix()
            if path not in wanted:
                wanted.add(path)
                todo += [] if path.startswith("vendor/") else [path]
    index = (WEB / "index.html").read_text()
    preloaded = re.findall(r'<link rel="modulepreload" href="terminal/static/(.*)">', index)
    assert sorted(preloaded) == sorted(wanted)


async def test_its_files_are_not_in_the_audit_record(procd: MakeClient, tmp_path: Path) -> None:
    """As /healthz: they say nothing of what is done here."""
    record = tmp_path / "audit"
    client = await procd(audit={"file": str(record)})
    for path in ("/terminal", "/terminal/static/app.css", "/terminal/static/js/main.js"):
        async with client.get(path) as reply:
            assert reply.status == 200
    async with client.get("/version") as reply:
        assert reply.status == 200
    routes = [json.loads(line)["route"] for line in record.read_text().splitlines()]
    assert routes == ["/version"]
