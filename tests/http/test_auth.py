"""Access control: each route and upgrade, with each kind of missing or wrong credential."""

import asyncio
import logging
import re
from collections.abc import Iterator

import pytest
from aiohttp import WSServerHandshakeError, web
from multidict import CIMultiDict

from procd.api import sandbox, sandboxes
from procd.app import CONTROL_PLANE_PREFIXES, PREFIXES, ROUTES
from procd.config import ConfigError
from procd.config_file import from_mapping
from procd.http.auth import ACCESS_CONTROL, SCOPES, UNGUARDED, UPGRADES
from procd.services.access import Access
from procd.services.tokens import Scope, new_secret
from tests.aliases import Client, MakeClient
from tests.api.access import Secrets, bearer, guarded
from tests.api.clients import WAIT_S, each, execute, listed, raw, refused

HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
NOWHERE = ["/nowhere", "/process", "/process/nowhere", "/toolbox", "/toolbox/x", "/healthz/x"]
CONTROL_PLANE = [*sandbox.routes, *sandboxes.routes]
OTHER_METHODS = ["HEAD", "PUT", "PATCH", "TRACE", "PROPFIND"]


def guarded_routes() -> list[web.RouteDef]:
    """Those that need a credential."""
    return [route for route in (*ROUTES, *CONTROL_PLANE) if route.path not in UNGUARDED]


def paths(route: str) -> Iterator[str]:
    """Each path of a route, with the id of nothing."""
    is_of_toolbox = any(each.path == route for each in ROUTES)
    # TestClient takes what follows two slashes for a host.
    others = [prefix for prefix in CONTROL_PLANE_PREFIXES if prefix != "/"]
    for prefix in PREFIXES if is_of_toolbox else others:
        for slash in ("", "/") if route != "/" else ("",):
            yield re.sub(r"\{.*?\}", "nope", prefix + route) + slash


def bad_credentials(secret: str) -> list[dict[str, str]]:
    """Headers that carry no good token, though some come close."""
    return [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        bearer(new_secret()),
        bearer(secret[:-1]),
        bearer(secret + "x"),
        bearer(secret.swapcase()),
        bearer("x" * 5000),
        {"Authorization": secret},
        {"Authorization": f"Basic {secret}"},
        {"Authorization": f"Bearer {secret} {secret}"},
        {"X-Authorization": f"Bearer {secret}"},
        {"Cookie": f"DAYTONA_SANDBOX_AUTH_KEY={secret}"},
    ]


async def is_unauthorized(client: Client, method: str, path: str, headers: dict[str, str]) -> None:
    async with client.request(method, path, headers=headers, allow_redirects=False) as reply:
        assert reply.headers.get("WWW-Authenticate") == "Bearer", (method, path, reply.status)
        if method == "HEAD":
            assert reply.status == 401
        else:
            await refused(reply, 401, "UNAUTHORIZED")


def test_every_route_has_a_scope() -> None:
    """A new route without one needs `admin`."""
    missing = {(route.method, route.path) for route in guarded_routes()} - set(SCOPES)
    assert not missing, "give them a scope in procd/http/auth.py"
    assert not {path for _, path in SCOPES} & UNGUARDED


def test_scopes_follow_the_rule() -> None:
    """Reading needs read, all else more; the GETs that do something are named."""
    does = {"/process/pty/create-connect", "/process/interpreter/execute"}
    for (method, path), scope in SCOPES.items():
        if path == "/tickets":
            continue  # a ticket has its maker's scope
        reads = method in ("GET", "HEAD") and path not in does
        assert (scope is Scope.READ) == reads, (method, path)
    assert does < UPGRADES


async def test_no_route_without_a_good_credential(procd: MakeClient, secrets: Secrets) -> None:
    client = await guarded(procd, secrets)
    for route in guarded_routes():
        for path in paths(route.path):
            for headers in bad_credentials(secrets.admin):
                await is_unauthorized(client, route.method, path, headers)


async def test_no_upgrade_without_a_good_credential(procd: MakeClient, secrets: Secrets) -> None:
    client = await guarded(procd, secrets)
    wrong = [
        f"{name}={value}"
        for name in ("DAYTONA_SANDBOX_AUTH_KEY", "ticket")
        for value in ("", new_secret(), secrets.admin[:-1])
    ]
    # The right token where it doesn't count.
    wrong += [f"ticket={secrets.admin}", f"token={secrets.admin}"]
    wrong += [f"DAYTONA_SANDBOX_AUTH_KEY={secrets.admin}&DAYTONA_SANDBOX_AUTH_KEY=x"]
    for route in guarded_routes():
        for path in paths(route.path):
            if route.method != "GET":
                continue
            for headers in bad_credentials(secrets.admin):
                await is_unauthorized(client, "GET", path, HANDSHAKE | headers)
            for query in wrong:
                await is_unauthorized(client, "GET", f"{path}?{query}", HANDSHAKE)
    async with client.get("/process/pty", headers=bearer(secrets.read)) as reply:
        assert (await reply.json()) == {"sessions": []}, "nothing was created"


async def test_no_other_method_and_no_unknown_path(procd: MakeClient, secrets: Secrets) -> None:
    client = await guarded(procd, secrets, cors={"allowed_origins": ["https://app.example"]})
    for path in [*NOWHERE, *(path for route in guarded_routes() for path in paths(route.path))]:
        for method in OTHER_METHODS:
            await is_unauthorized(client, method, path, {})
    for path in NOWHERE:
        for method in ("GET", "POST", "DELETE"):
            await is_unauthorized(client, method, path, bearer(secrets.admin[:-1]))
        async with client.get(path, headers=bearer(secrets.read)) as reply:
            await refused(reply, 404, "NOT_FOUND")
    own = {"Origin": f"http://127.0.0.1:{client.port}", "Access-Control-Request-Method": "GET"}
    await is_unauthorized(client, "OPTIONS", "/version", own)
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    await is_unauthorized(client, "OPTIONS", "/nowhere", preflight)


async def test_every_route_takes_the_scope_that_it_needs(
    procd: MakeClient, secrets: Secrets
) -> None:
    client = await guarded(procd, secrets)
    for route in guarded_routes():
        need = SCOPES[route.method, route.path]
        for name, scope in (("read", Scope.READ), ("write", Scope.WRITE), ("admin", Scope.ADMIN)):
            for path in paths(route.path):
                headers = bearer(getattr(secrets, name))
                async with client.request(route.method, path, headers=headers) as reply:
                    if scope < need:
                        body = await refused(reply, 403, "FORBIDDEN")
                        assert f"scope '{need.name.lower()}' is required" in body["message"]
                        assert "WWW-Authenticate" not in reply.headers
                    else:
                        assert reply.status not in (401, 403), (route, name)


async def test_scheme_and_blanks(procd: MakeClient, secrets: Secrets) -> None:
    client = await guarded(procd, secrets)
    for value in (f"bearer {secrets.read}", f"BEARER   {secrets.read}"):
        async with client.get("/version", headers={"Authorization": value}) as reply:
            assert reply.status == 200
    async with raw(client) as bare:
        await bare.request(
            f"GET /version HTTP/1.1\nAuthorization: Bearer {secrets.read}\nAuthorization: Bearer x"
        )
        assert (await bare.head())[0] in (400, 401)


async def test_a_trailer_is_no_header_of_the_next_request(
    procd: MakeClient, secrets: Secrets
) -> None:
    """Which may be another client's, where a proxy shares its connections out."""
    client = await guarded(procd, secrets)
    for token, answer in (secrets.admin[:-1], b"HTTP/1.1 401 "), (secrets.admin, b"HTTP/1.1 201 "):
        body = b'1a\r\n{"route":"/terminal/ptys"}\r\n'
        trailer = b"0\r\nX: y\r\nAuthorization: Bearer " + secrets.admin.encode() + b"\r\n\r\n"
        async with raw(client) as bare, asyncio.timeout(WAIT_S):
            head = f"POST /tickets HTTP/1.1\nAuthorization: Bearer {token}"
            await bare.request(
                f"{head}\nTransfer-Encoding: chunked",
                body + trailer + b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            )
            said = await bare.rest()
        assert said.startswith(answer)
        assert b"\r\nConnection: close\r\n" in said
        assert said.count(b"HTTP/1.1 ") == 1, "the other has to be asked again"


async def test_health_needs_no_credential(procd: MakeClient, secrets: Secrets) -> None:
    client = await guarded(procd, secrets)
    for path in paths("/healthz"):
        async with client.get(path) as reply:
            assert reply.status == 200
        await is_unauthorized(client, "POST", path, {})


async def test_open_on_loopback_without_tokens(procd: MakeClient) -> None:
    client = await procd()
    assert (await execute(client, "echo fine"))["result"] == "fine\n"
    async with client.get("/version", headers=bearer("whatever")) as reply:
        assert reply.status == 200


@each(
    ("request_", "status"),
    [
        ("POST /process/execute HTTP/1.1\nContent-Length: 1000000000", 401),
        ("POST /process/session HTTP/1.1\nTransfer-Encoding: chunked", 401),
        ("POST /nowhere HTTP/1.1\nContent-Length: 1000000000", 401),
        ("GET /healthz HTTP/1.1\nTransfer-Encoding: chunked", 200),
        ("GET /terminal HTTP/1.1\nContent-Length: 1000000000", 200),
    ],
)
async def test_a_body_that_is_not_wanted(
    procd: MakeClient, secrets: Secrets, request_: str, status: int
) -> None:
    """The reply doesn't wait for it; what comes of it meets no reset until the connection ends."""
    client = await guarded(procd, secrets)
    async with raw(client) as bare, asyncio.timeout(WAIT_S):
        await bare.request(request_, b"5\r\nbegin\r\n")
        answer, headers = await bare.head()
        assert answer == status
        assert "Connection: close" in headers
        for _ in range(10):
            await bare.send(b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000))
            async with client.get("/version") as reply:  # a reset would have come by then
                assert reply.status == 401
        await bare.rest()


async def test_a_short_body_that_is_not_wanted_is_dropped(
    procd: MakeClient, secrets: Secrets
) -> None:
    client = await guarded(procd, secrets)
    async with raw(client) as bare, asyncio.timeout(WAIT_S):
        await bare.request("GET /healthz HTTP/1.1\nContent-Length: 4")
        assert (await bare.head())[0] == 200
        await bare.send(b"body")
        await bare.request("GET /healthz HTTP/1.1\nConnection: close")
        assert (await bare.rest()).count(b"200 OK") == 1


async def test_a_refused_client_is_not_asked_for_its_body(
    procd: MakeClient, secrets: Secrets
) -> None:
    client = await guarded(procd, secrets)
    head = "POST /process/execute HTTP/1.1\nContent-Length: 100000\nExpect: 100-continue"
    async with raw(client) as bare:
        await bare.request(head)
        assert (await bare.head())[0] == 401
    async with raw(client) as bare:
        await bare.request(f"{head}\nAuthorization: Bearer {secrets.write}")
        assert (await bare.head())[0] == 100


async def test_origin(procd: MakeClient, secrets: Secrets) -> None:
    client = await guarded(
        procd,
        secrets,
        cors={"allowed_origins": ["https://a.example"]},
        auth={"allowed_origins": ["https://b.example"]},
    )
    own = f"127.0.0.1:{client.port}"
    good = ["https://a.example", "https://b.example", f"http://{own}", f"https://{own}"]
    bad = ["https://evil.example", "null", "", f"http://127.0.0.1:{(client.port or 0) + 1}",
           f"http://{own}.evil.example", f"ftp://{own}", own, "https://a.example.evil.example",
           "http://localhost"]  # fmt: skip
    for origin in good:
        async with client.get(
            "/version", headers=bearer(secrets.read) | {"Origin": origin}
        ) as reply:
            assert reply.status == 200
            allowed = origin if origin == "https://a.example" else None
            assert reply.headers.get("Access-Control-Allow-Origin") == allowed
            assert reply.headers["Vary"] == "Origin"
            assert "Access-Control-Allow-Credentials" not in reply.headers
    for origin in bad:
        headers = bearer(secrets.admin) | {"Origin": origin}
        async with client.get("/version", headers=headers) as reply:
            await refused(reply, 403, "FORBIDDEN")
        with pytest.raises(WSServerHandshakeError, match="403"):
            await client.ws_connect("/process/pty/create-connect?id=a", headers=headers)


@each("section", ["cors", "auth"])
async def test_an_origin_is_as_browsers_send_it(section: str) -> None:
    """RFC 6454, section 6.2; another one would let nobody in, and nobody would know why."""
    good = ["https://a.com", "http://a.com:443", "https://a.com:80", "http://localhost:3000",
            "http://127.0.0.1:5173", "http://[::1]:8080", "http://[::80]", "https://xn--tda.com",
            "https://a_b-c.d.e", "chrome-extension://abc", "tauri://localhost"]  # fmt: skip
    bad = ["", "null", "a.com", "https://", "https://a.com/", "https://a.com/b", "https://A.com",
           "https://a.com:", "https://a.com:443", "http://a.com:80", "https://*.a.com", "https://*",
           "https://ü.com", "https://u@a.com", "https://a.com\n"]  # fmt: skip
    Access(from_mapping({section: {"allowed_origins": good}}))
    for origin in bad:
        with pytest.raises(ConfigError) as caught:
            Access(from_mapping({section: {"allowed_origins": [*good, origin]}}))
        assert str(caught.value) == (
            f"{section}.allowed_origins: must be SCHEME://HOST[:PORT] as browsers send it, in lower"
            f" case, without a path or the scheme's own port: {origin}"
        )


async def test_a_page_can_read_what_is_not_there(procd: MakeClient) -> None:
    """As it can read every other error; else it sees a failure of the network."""
    client = await procd(
        cors={"allowed_origins": ["https://a.example"]},
        auth={"allowed_origins": ["https://b.example"]},
    )
    for method, path in (("GET", "/nowhere"), ("POST", "/version"), ("GET", "/process/execute")):
        for origin, allowed in (("https://a.example", "https://a.example"),
                                ("https://b.example", None), ("", None)):  # fmt: skip
            headers = {"Origin": origin} if origin else {}
            async with client.request(method, path, headers=headers) as reply:
                await refused(reply, 404, "NOT_FOUND")
                assert reply.headers.get("Access-Control-Allow-Origin") == allowed
                assert reply.headers["Vary"] == "Origin"
    client = await procd(cors={"allowed_origins": ["*"]}, auth={"mode": "none"})
    async with client.get("/nowhere", headers={"Origin": "https://any.example"}) as reply:
        assert reply.headers["Access-Control-Allow-Origin"] == "https://any.example"


@each("names", ["gateway.example", "gateway.example, 10.1.1.1:8000"])
async def test_the_origin_behind_a_proxy(procd: MakeClient, names: str) -> None:
    """The page was loaded from where a trusted proxy, and nobody else, says that it was."""
    headers = {"Origin": "https://gateway.example", "X-Forwarded-Host": names}
    elsewhere = {"Origin": "https://evil.example", "X-Forwarded-Host": "gateway.example"}
    for trusted, status in (["127.0.0.1"], 200), (["10.0.0.0/8"], 403), ([], 403):
        client = await procd(server={"trusted_proxies": trusted})
        async with client.get("/version", headers=headers) as reply:
            assert reply.status == status
        async with client.get("/version", headers=elsewhere) as reply:
            await refused(reply, 403, "FORBIDDEN")


async def test_every_origin_of_several(procd: MakeClient) -> None:
    """Whoever adds one to the browser's own can't hide either (RFC 6454, section 7.3)."""
    client = await procd()
    own = f"http://127.0.0.1:{client.port}"
    for origins in ([own, "https://evil.example"], ["https://evil.example", own]):
        headers = CIMultiDict([("Origin", origin) for origin in origins])
        async with client.get("/version", headers=headers) as reply:
            await refused(reply, 403, "FORBIDDEN")
        with pytest.raises(WSServerHandshakeError, match="403"):
            await client.ws_connect("/process/pty/create-connect?id=a", headers=headers)


async def test_preflight_of_every_route(procd: MakeClient, secrets: Secrets) -> None:
    client = await guarded(procd, secrets, cors={"allowed_origins": ["https://a.example"]})
    for route in ROUTES:
        asked = {
            "Access-Control-Request-Method": route.method,
            "Access-Control-Request-Headers": "authorization",
        }
        for path in paths(route.path):
            headers = asked | {"Origin": "https://a.example"}
            async with client.options(path, headers=headers) as reply:
                assert reply.status == 200, (route.method, path)
                assert reply.headers["Access-Control-Allow-Origin"] == "https://a.example"
                assert reply.headers["Access-Control-Allow-Methods"] == route.method
                assert reply.headers["Access-Control-Allow-Headers"].lower() == "authorization"
                assert reply.headers["Vary"] == "Origin"
            if route.path not in UNGUARDED:
                headers = asked | {"Origin": "https://evil.example"}
                async with client.options(path, headers=headers) as reply:
                    await refused(reply, 403, "FORBIDDEN")


@each(
    "headers",
    [
        {"Origin": "https://a.example", "Access-Control-Request-Method": "PUT"},
        {"Origin": "https://b.example", "Access-Control-Request-Method": "GET"},
    ],
)
async def test_no_preflight_is_a_method_like_any_other(
    procd: MakeClient, secrets: Secrets, headers: dict[str, str]
) -> None:
    client = await guarded(
        procd,
        secrets,
        cors={"allowed_origins": ["https://a.example"]},
        auth={"allowed_origins": ["https://b.example"]},
    )
    headers = headers | bearer(secrets.read)
    async with client.options("/version", headers=headers) as reply:
        await refused(reply, 404, "NOT_FOUND")


async def test_no_page_of_elsewhere_on_open_loopback(procd: MakeClient) -> None:
    """A form or a no-cors request needs no preflight: any web page could run commands."""
    client = await procd()
    async with client.post(
        "/process/execute",
        data='{"command": "true"}',
        headers={"Origin": "https://evil.example", "Content-Type": "text/plain"},
    ) as reply:
        await refused(reply, 403, "FORBIDDEN")
    with pytest.raises(WSServerHandshakeError, match="403"):
        await client.ws_connect(
            "/process/pty/create-connect?id=a", headers={"Origin": "https://evil.example"}
        )
    assert await listed(client) == []


async def test_host(procd: MakeClient) -> None:
    good = ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:2280", "[::1]", "[::1]:2280",
            "10.0.0.7", "[fe80::1]:80", "box", "box:2280", "localhost.", "box.:2280", "localhost:",
            "[::1]:"]  # fmt: skip
    bad = ["evil.example", "a.example:1", "localhost.evil.example", "127.0.0.1.evil.example",
           "", "[::1].evil.example", "localhost:evil", "[::1", "::1", "127.0.0.1:1:1",
           "[evil]", "evil.example.", "evil.example:", "localhost..", "localhost::", ".",
           ":"]  # fmt: skip
    client = await procd()
    for host in good:
        async with client.get("/version", headers={"Host": host}) as reply:
            assert reply.status == 200, host
    for host in bad:
        async with client.get("/version", headers={"Host": host}) as reply:
            assert reply.status in (400, 403), host
        async with client.get("/healthz", headers={"Host": host}) as reply:
            assert reply.status in (200, 400), host


@each(
    ("named", "host", "status"),
    [
        ("localhost", "evil.example", 200),
        ("me@LOCALHOST:1", "evil.example", 200),
        ("[::1]:2280", "evil.example", 200),
        ("evil.example", "localhost", 403),
        ("localhost@evil.example:1", "localhost", 403),
    ],
)
async def test_the_host_of_a_target(procd: MakeClient, named: str, host: str, status: int) -> None:
    """The header is ignored beside one: RFC 9112, section 3.2.2."""
    client = await procd()
    for origin in ("", f"Origin: http://{named.rpartition('@')[2]}\r\n"):
        async with raw(client) as bare:
            await bare.send(
                f"GET http://{named}/version HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n".encode()
            )
            assert (await bare.head())[0] == status
    async with raw(client) as bare:
        await bare.send(
            f"GET http://{named}/version HTTP/1.1\r\nHost: {host}\r\n"
            f"Origin: http://{host}\r\n\r\n".encode()
        )
        assert (await bare.head())[0] == 403


@each("named", ["[::::]", "[::]@", "[v1.x]@", "xn--", "xn--a", "a[b]"])
async def test_a_target_whose_host_is_none(
    procd: MakeClient, caplog: pytest.LogCaptureFixture, named: str
) -> None:
    """It is told so, and no line of the log quotes what somebody without a token has sent."""
    client = await procd()
    for first in f"GET http://{named}/version", f"OPTIONS https://{named}", f"CONNECT //{named}":
        async with raw(client) as bare:
            await bare.request(f"{first} HTTP/1.1")
            assert (await bare.head())[0] in (400, 403, 404)
    async with client.get("/version") as reply:
        assert reply.status == 200
    assert not [each for each in caplog.records if each.levelno > logging.DEBUG]


@each(
    ("section", "status"),
    [
        ({"allowed_hosts": ["Box.example"]}, 200),
        ({"allowed_hosts": ["box.example."]}, 200),
        ({"allowed_hosts": ["*"]}, 200),
        ({"allowed_hosts": ["other.example"]}, 403),
        ({"allowed_hosts": ["other.example"], "host": "0.0.0.0"}, 403),
        ({"host": "0.0.0.0"}, 200),
    ],
)
async def test_allowed_hosts(
    procd: MakeClient, secrets: Secrets, section: dict[str, object], status: int
) -> None:
    client = await guarded(procd, secrets, server=section)
    headers = bearer(secrets.read) | {"Host": "box.example:2280"}
    async with client.get("/version", headers=headers) as reply:
        assert reply.status == status


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"server": {"host": "0.0.0.0"}}, "server.host: 0.0.0.0 is not loopback"),
        ({"server": {"host": "::"}}, "server.host: :: is not loopback"),
        ({"server": {"host": "box.example"}}, "server.host: box.example is not loopback"),
        ({"auth": {"mode": "token"}}, "auth.mode: token, and there is no token"),
        ({"auth": {"token_file": "/nowhere"}}, "auth.token_file: /nowhere: No such file"),
        ({"cors": {"allowed_origins": ["*"]}}, "cors.allowed_origins: * would let every web page"),
        ({"auth": {"allowed_origins": ["*"]}}, "auth.allowed_origins: * would let every web page"),
    ],
)
def test_fails_closed(document: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Access(from_mapping(document))
    assert message in str(caught.value)


def test_no_more_tokens_than_may_be(secrets: Secrets) -> None:
    auth = {"token_file": str(secrets.path), "max_tokens": 3}
    assert Access(from_mapping({"auth": auth})).required
    with pytest.raises(ConfigError, match="max_tokens: there are 4 tokens"):
        Access(from_mapping({"auth": auth}), "x" * 16)


def test_a_token_in_the_environment() -> None:
    """It is long, and can be sent; white space around it comes from a file or a shell."""
    for secret in ("", "x" * 15, "x" * 513, " " * 20, "x" * 15 + "\n"):
        with pytest.raises(ConfigError, match="PROCD_AUTH_TOKEN: must have 16 to 512 characters"):
            Access(from_mapping({}), secret)
    for sign in "\n\r\0\x1b\x7f":
        with pytest.raises(ConfigError, match="no control characters in it"):
            Access(from_mapping({}), f"{'x' * 16}{sign}{'x' * 16}")
    for secret in ("x" * 16 + "\n", f"\t {'x' * 16} \r\n"):
        assert Access(from_mapping({}), secret).tokens.find("x" * 16) is not None
    assert Access(from_mapping({"server": {"host": "0.0.0.0"}}), "x" * 16).required
    with pytest.raises(ConfigError, match="none, but tokens are given"):
        Access(from_mapping({"auth": {"mode": "none"}}), "x" * 16)


async def test_mode_none_is_open_anywhere(procd: MakeClient) -> None:
    client = await procd(server={"host": "0.0.0.0"}, auth={"mode": "none"})
    for headers in ({}, {"Origin": "https://any.example"}):
        async with client.get("/version", headers={"Host": "any.example", **headers}) as reply:
            assert reply.status == 200
    for origin in ("https://other.example", "null"):
        headers = {"Host": "any.example", "Origin": origin}
        async with client.get("/version", headers=headers) as reply:
            await refused(reply, 403, "FORBIDDEN")
    client = await procd(auth={"mode": "none", "allowed_origins": ["*"]})
    async with client.get("/version", headers={"Origin": "https://other.example"}) as reply:
        assert reply.status == 200


@each(
    ("host", "addresses", "status"),
    [
        ("127.0.0.1", ["192.0.2.1"], 200),
        ("0.0.0.0", ["127.0.0.1"], 403),
        ("", ["127.0.0.1", "::1"], 403),
    ],
)
async def test_the_host_where_sockets_are_passed_on(
    procd: MakeClient, secrets: Secrets, host: str, addresses: list[str], status: int
) -> None:
    client = await guarded(procd, secrets, server={"host": host})
    client.app[ACCESS_CONTROL].use_sockets(addresses)
    for name in ("box.example", "", "box.example:evil"):
        headers = bearer(secrets.read) | {"Host": name}
        async with client.get("/version", headers=headers) as reply:
            assert reply.status in (status, 400), name
