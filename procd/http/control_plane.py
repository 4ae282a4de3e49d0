"""What both generations of the control plane's API share."""

import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from procd.errors import BadRequest, NotFound, ProcdError
from procd.http.client import PROXIES
from procd.http.openapi import TEXT, about, query
from procd.http.schema import BodySchema, strings
from procd.services.sandbox import Sandbox, State

SANDBOX = web.AppKey("SANDBOX", Sandbox)

SOURCE: Final = "DAYTONA_API"
# Clients take the values of their own enumeration only.
LANGUAGE_LABEL: Final = "code-toolbox-language"


class LabelsSchema(BodySchema):
    labels = strings(required=True, metadata=about("The new labels.", {"team": "a"}))


LABELS: Final = LabelsSchema()

FILTERS: Final = (
    query("id", TEXT | about("How its id begins.", "loc")),
    query("name", TEXT | about("How its name begins.", "loc")),
    query("labels", TEXT | about("JSON object of labels that it has.", '{"team":"a"}')),
    query("states", TEXT | about("States, one of which it is in, with commas.", "started")),
    query("cursor", TEXT | about("Of a further page: there is none.", "")),
    query("page", TEXT | about("Number of the page: 1 is the only one.", "1")),
)

JsonHandler = Callable[[web.Request], Awaitable[web.Response]]


def of_control_plane(handler: JsonHandler) -> JsonHandler:
    """Have the errors of a handler name the control plane as their source."""

    @functools.wraps(handler)
    async def wrapped(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except ProcdError as exc:
            exc.extra.setdefault("source", SOURCE)
            raise

    return wrapped


def of_sandbox(handler: JsonHandler) -> JsonHandler:
    """As `of_control_plane`, and NotFound unless the path has the sandbox's id or name."""

    @of_control_plane
    @functools.wraps(handler)
    async def wrapped(request: web.Request) -> web.Response:
        sandbox, name = request.app[SANDBOX], request.match_info["id"]
        if not sandbox.is_named(name):
            raise NotFound(
                f"sandbox '{name}' not found: this procd stands alone and has one, '{sandbox.id}'"
            )
        return await handler(request)

    return wrapped


def toolbox_url(request: web.Request) -> str:
    """Where the Process API is, for this client; the sandbox's id follows it."""
    return f"{request.app[PROXIES].origin_of(request)}/toolbox"


def is_listed(request: web.Request) -> bool:
    """Whether the sandbox passes the filters of a list; raises BadRequest for bad ones."""
    sandbox, query = request.app[SANDBOX], request.query
    if sandbox.state is State.DESTROYED or query.get("cursor") or query.get("page", "1") != "1":
        return False
    states = [state for given in query.getall("states", ()) for state in given.split(",") if state]
    return (
        sandbox.id.startswith(query.get("id", ""))
        and sandbox.settings.name.startswith(query.get("name", ""))
        and (not states or sandbox.state in states)
        and _labels(query).items() <= sandbox.settings.labels.items()
    )


def _labels(query: Mapping[str, str]) -> dict[str, object]:
    try:
        labels = json.loads(query.get("labels") or "null")  # older clients send "null" themselves
    except ValueError:
        labels = False
    if labels is None:
        return {}
    if not isinstance(labels, dict) or not all(isinstance(each, str) for each in labels.values()):
        raise BadRequest("query param 'labels' must be a JSON object of strings")
    return labels
