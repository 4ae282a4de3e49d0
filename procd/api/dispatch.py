"""Dispatch: which handler a request is for, where its target alone says so.

aiohttp looks a path up part by part and puts the middlewares around its handler anew for each
request. Most requests are for a path in which nothing varies: those are found here by one look into
a table. Whatever else a target may be (with a query, an escape, a host) is left to aiohttp, and so
are bodies that wait to be asked for.
"""

from collections.abc import Awaitable
from functools import partial

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler


class Bound(web.UrlMappingMatchInfo):
    """The match of a path in which nothing varies, one for all requests for it.

    Attributes:
        handle: what answers them, behind all middlewares.
    """

    __slots__ = ("handle",)

    def __init__(self, route: web.AbstractRoute, app: web.Application) -> None:
        super().__init__({}, route)
        self.add_app(app)
        self.freeze()
        self.handle: Handler = route.handler
        for middleware in reversed(app.middlewares):
            self.handle = partial(middleware, handler=self.handle)


class Dispatch:
    """The table of an application that takes no more routes."""

    def __init__(self, app: web.Application) -> None:
        self._otherwise = app._handle  # noqa: SLF001 - what its server calls, and nothing else has
        self._bound = {
            (route.method, route.resource.canonical): Bound(route, app)
            for route in app.router.routes()
            if isinstance(route.resource, web.PlainResource)
        }

    def handle(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Answer a request, as the application would."""
        assert isinstance(request, web.Request)
        match = self._bound.get((request.method, request.raw_path))
        if match is None or hdrs.EXPECT in request.headers:
            return self._otherwise(request)
        request._match_info = match  # noqa: SLF001 - as aiohttp's own does
        return match.handle(request)
