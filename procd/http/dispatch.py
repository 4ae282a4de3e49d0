"""Dispatch: which handler a request is for, by the segments of its path.

aiohttp tries the pattern of one route after another where several begin alike, and below
`/toolbox/{sandbox_id}` all do; then it puts the middlewares around the handler, anew for each
request. Here a path is looked up segment by segment. What has an escape in it or anything else that
may mean more than it says, and what has no route, is left to aiohttp.
"""

import re
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from aiohttp.web_urldispatcher import MatchInfoError

# A path that means what it says, and where a query begins, if there is one.
TARGET: Final = re.compile(r"((?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+/?)(?:\?|\Z)")
# What varies in a path, by its name.
VARIES: Final = re.compile(r"\{(\w+)\}")
# What stands before the path where a target names the host as well: RFC 9112, section 3.2.2.
SLASHES_OF_A_HOST: Final = 2


class Leaf(NamedTuple):
    """Where a path ends.

    Attributes:
        handle: what answers, behind all middlewares.
        varies: which of the path's segments vary, by name.
    """

    route: web.AbstractRoute
    handle: Handler
    varies: dict[str, int]


Found = tuple[web.UrlMappingMatchInfo, Handler]


class Node:
    """What may come at one place in a path, and what answers where nothing does, by method."""

    __slots__ = ("leaves", "literals", "variable")

    def __init__(self) -> None:
        self.literals: dict[str, Node] = {}
        self.variable: Node | None = None
        self.leaves: dict[str, Leaf] = {}

    def grow(self, segment: str) -> "Node":
        """The node behind a segment of a pattern."""
        if VARIES.fullmatch(segment) is None:
            return self.literals.setdefault(segment, Node())
        if self.variable is None:
            self.variable = Node()
        return self.variable

    def find(self, segments: Sequence[str], at: int, method: str) -> Leaf | None:
        """Where the rest of a path leads; a segment that is named goes before one that varies."""
        if at == len(segments):
            return self.leaves.get(method)
        node = self.literals.get(segments[at])
        leaf = None if node is None else node.find(segments, at + 1, method)
        if leaf is None and self.variable is not None and segments[at]:
            return self.variable.find(segments, at + 1, method)
        return leaf


class Dispatch:
    """The paths of an application that takes no more routes."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._otherwise = app._handle  # noqa: SLF001 - what its server calls, and nothing else has
        self._root = Node()
        self._most_slashes = 0
        # Most requests are for a path in which nothing varies: one match for all of them.
        self._plain: dict[tuple[str, str], Found] = {}
        for route in app.router.routes():
            assert route.resource is not None
            handle = self._within_middlewares(route.handler)
            segments = route.resource.canonical.split("/")
            self._most_slashes = max(self._most_slashes, len(segments) - 1 + SLASHES_OF_A_HOST)
            names = {n: VARIES.fullmatch(segment) for n, segment in enumerate(segments)}
            varies = {name[1]: n for n, name in names.items() if name is not None}
            node = self._root
            for segment in segments:
                node = node.grow(segment)
            node.leaves[route.method] = Leaf(route, handle, varies)
            if not varies:
                self._plain[route.method, "/".join(segments)] = self._match({}, route), handle

    def handle(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Answer a request, as the application would."""
        assert isinstance(request, web.Request)
        if hdrs.EXPECT in request.headers:  # its body waits to be asked for
            return self._ask_aiohttp(request)
        method, target = request.method, request.raw_path
        found = self._plain.get((method, target)) or self._find(method, target)
        if found is None:
            return self._ask_aiohttp(request)
        request._match_info, handle = found  # noqa: SLF001 - as aiohttp's own does
        return handle(request)

    def _ask_aiohttp(self, request: web.Request) -> Awaitable[web.StreamResponse]:
        """Answer as aiohttp does; by itself it takes the square of a path's segments."""
        path, _, _ = request.raw_path.partition("?")
        if path.count("/") <= self._most_slashes:
            return self._otherwise(request)
        match = MatchInfoError(web.HTTPNotFound())
        match.add_app(self._app)
        match.freeze()
        request._match_info = match  # noqa: SLF001 - as above
        return self._within_middlewares(match.handler)(request)

    def _within_middlewares(self, handle: Handler) -> Handler:
        for middleware in reversed(self._app.middlewares):
            handle = partial(middleware, handler=handle)
        return handle

    def _find(self, method: str, target: str) -> Found | None:
        path = TARGET.match(target)
        if path is None:
            return None
        segments = path[1].split("/")
        leaf = self._root.find(segments, 0, method)
        if leaf is None:
            return None
        values = {name: segments[n] for name, n in leaf.varies.items()}
        return self._match(values, leaf.route), leaf.handle

    def _match(self, values: dict[str, str], route: web.AbstractRoute) -> web.UrlMappingMatchInfo:
        match = web.UrlMappingMatchInfo(values, route)
        match.add_app(self._app)
        match.freeze()
        return match
