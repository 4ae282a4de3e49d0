"""What a path leads to is what aiohttp's router would have found."""

import time
from collections.abc import Coroutine
from typing import Any

import pytest
from aiohttp import hdrs, web
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from procd.app import create_app
from procd.config_file import from_mapping
from procd.http.dispatch import TARGET, VARIES, Dispatch
from tests.aliases import MakeClient
from tests.api.clients import raw

APP = create_app(from_mapping({"cors": {"allowed_origins": ["https://app.example.com"]}}))
DISPATCH = Dispatch(APP)
MOCKED: Any = make_mocked_request("GET", "/")
ROUTES = list(APP.router.routes())
PATTERNS = sorted({route.resource.canonical for route in ROUTES if route.resource is not None})
METHODS = sorted({route.method for route in ROUTES} | {hdrs.METH_HEAD, hdrs.METH_PUT})
WORDS = sorted({word for pattern in PATTERNS for word in pattern.split("/")} - {""})
NAMES = [*WORDS, "x", "a.b", "~", "-", "_", "7", "X-Y"]
ODD = [
    "",
    ".",
    "..",
    ".a",
    "%65",
    "%2F",
    "%",
    "+",
    ":",
    "a;b",
    "a,b",
    "a@b",
    "*",
    "{id}",
    "ü",
    "a b",
    "\n",
]
SUFFIXES = ["", "/", "//", "/.", "/..", "?", "?a=b", "?/version", "/?x", "#", "#?", "\n"]


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str]:
    """What may be asked for: a route with anything in the place of what varies, or anything."""
    names = st.sampled_from(NAMES) | st.sampled_from(ODD)
    method = draw(st.sampled_from(METHODS))
    if draw(st.booleans()):
        route = draw(st.sampled_from(ROUTES))
        method = draw(st.sampled_from([route.method, route.method, route.method, method]))
        assert route.resource is not None
        path = VARIES.sub(lambda _: draw(names), route.resource.canonical)
    else:
        path = "".join(f"/{name}" for name in draw(st.lists(names, max_size=7)))
    host = draw(st.sampled_from(["", "", "", "http://a", "//a"]))
    return method, host + path + draw(st.sampled_from(["", *SUFFIXES]))


def asked(method: str, target: str) -> web.Request | None:
    """The request as a server would have it; None if it never becomes one."""
    mocked = MOCKED
    parser = HttpRequestParser(mocked.protocol, mocked._loop, 1 << 16)
    head = f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"
    try:
        messages, _, _ = parser.feed_data(head.encode())
    except HttpProcessingError:
        return None
    return web.Request(
        messages[0][0], EMPTY_PAYLOAD, mocked.protocol, mocked.writer, mocked.task, mocked._loop
    )


def at_once(coroutine: Coroutine[Any, Any, web.UrlMappingMatchInfo]) -> web.UrlMappingMatchInfo:
    """What it returns, which waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    match: web.UrlMappingMatchInfo = ended.value.value
    return match


def compare(method: str, target: str) -> None:
    """Compare with what the router says of it."""
    request = asked(method, target)
    if request is None:
        return
    routers = at_once(APP.router.resolve(request))
    answer: Any = DISPATCH.handle(request)
    answer.close()
    match = request._match_info
    if match is None:
        assert routers.http_exception is not None or TARGET.match(target) is None
    else:
        assert dict(match) == dict(routers)
        assert match.route is routers.route
        assert match.apps == (APP,)
        assert match.http_exception is None


@given(requests())
def test_the_same_as_by_the_router(request: tuple[str, str]) -> None:
    compare(*request)


def test_each_route_with_any_word() -> None:
    for pattern in PATTERNS:
        for name in NAMES if "{" in pattern else [""]:
            for method in METHODS:
                compare(method, VARIES.sub(name, pattern))


def test_the_usual_is_found_without_the_router() -> None:
    for route in ROUTES:
        assert route.resource is not None
        path = VARIES.sub("0b5c8e3a-7d1f", route.resource.canonical)
        request = asked(route.method, path + "?a=%20")
        assert request is not None
        answer: Any = DISPATCH.handle(request)
        answer.close()
        assert request._match_info is not None
        assert request.match_info.route is route


async def test_a_path_of_many_segments_takes_no_longer_than_its_length(procd: MakeClient) -> None:
    """Nobody waits for that; who asks for it may have no token."""
    client = await procd()

    async def seconds(target: str, header: str = "") -> float:
        taken: list[float] = []
        for _ in range(3):
            begin = time.process_time()
            async with raw(client) as bare:
                await bare.request(f"GET {target} HTTP/1.1{header}")
                assert (await bare.head())[0] == 404
            taken.append(time.process_time() - begin)
        return min(taken)

    size = 100_000
    usual = await seconds(f"/{'x' * size}")
    for target in "/" * size, "/x" * (size // 2), f"http://a{'/' * size}", f"/toolbox{'/' * size}":
        assert await seconds(target) < 10 * usual
    assert await seconds("/" * size, "\nExpect: 100-continue") < 10 * usual


async def test_a_body_that_waits_to_be_asked_for(procd: MakeClient) -> None:
    client = await procd()
    body = b'{"command": "echo hi"}'
    for expected in ("", "Expect: 100-continue\n"):
        async with raw(client) as one:
            await one.request(
                f"POST /process/execute HTTP/1.1\n{expected}Content-Length: {len(body)}",
                b"" if expected else body,
            )
            if expected:
                assert (await one.head())[0] == 100
                await one.send(body)
            assert (await one.head())[0] == 200
