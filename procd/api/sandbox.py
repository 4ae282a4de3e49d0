"""The control plane of a procd that stands alone, for Daytona's clients before 2.0.

There is one sandbox: this machine. Recorded with the Python client 0.226.1 and the TypeScript
client 0.216.0, which check the types of what they get.
"""

import logging
import re
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import hdrs, web
from marshmallow import ValidationError, fields
from yarl import URL

from procd import __version__
from procd.errors import BadRequest
from procd.http.auth import ACCESS_CONTROL
from procd.http.control_plane import (
    LABELS,
    LANGUAGE_LABEL,
    SANDBOX,
    JsonHandler,
    is_listed,
    of_control_plane,
    of_sandbox,
    toolbox_url,
)
from procd.http.responses import json_response, timestamp
from procd.http.schema import BodySchema, Flag, Text, load, strings
from procd.services.sandbox import Settings, State

log = logging.getLogger(__name__)

LANGUAGES: Final = ("python", "typescript", "javascript")
# By the last part of the path that sets one: its name, and what it is when nobody has; -1: never.
INTERVALS: Final[dict[str, tuple[str, float]]] = {
    "autostop": ("autoStopInterval", 0),
    "autopause": ("autoPauseInterval", 0),
    "autoarchive": ("autoArchiveInterval", 0),
    "autodelete": ("autoDeleteInterval", -1),
    "ttl": ("ttlMinutes", 0),
}
INTERVAL: Final = re.compile(r"-?[0-9]{1,9}")
# Of a create: what one machine can't do, and a client may rely on.
IGNORED: Final = (
    "buildInfo", "domainAllowList", "networkAllowList", "networkBlockAll", "secrets", "volumes",
)  # fmt: skip
GIB: Final = 1 << 30


class Minutes(fields.Field[float]):
    """A number, which may be negative."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("must be a number")
        return value


class CreateSchema(BodySchema):
    name = Text(load_default="")
    labels = strings(load_default=dict)
    env = strings(load_default=dict)
    user = Text(load_default="")
    snapshot = Text(load_default="")
    target = Text(load_default="")
    public = Flag(load_default=False)
    autoStopInterval = Minutes()
    autoPauseInterval = Minutes()
    autoArchiveInterval = Minutes()
    autoDeleteInterval = Minutes()
    ttlMinutes = Minutes()
    buildInfo = fields.Raw()
    domainAllowList = fields.Raw()
    networkAllowList = fields.Raw()
    networkBlockAll = fields.Raw()
    secrets = fields.Raw()
    volumes = fields.Raw()

    def build(self, data: dict[str, Any]) -> tuple[Settings, list[str]]:
        """The settings, and the names of those that one machine can't have."""
        ignored = [name for name in IGNORED if data.pop(name, None)]
        names = [name for name, _ in INTERVALS.values()]
        intervals = {name: data.pop(name) for name in names if name in data}
        return Settings(**data, intervals=intervals), ignored


CREATE: Final = CreateSchema()


def _described(request: web.Request) -> dict[str, object]:
    sandbox = request.app[SANDBOX]
    settings, machine = sandbox.settings, sandbox.machine()
    language = settings.labels.get(LANGUAGE_LABEL)
    return {
        "id": sandbox.id,
        "organizationId": sandbox.id,
        "name": settings.name,
        "user": settings.user or "root",
        "env": settings.env,
        "labels": {
            **settings.labels,
            LANGUAGE_LABEL: language if language in LANGUAGES else LANGUAGES[0],
        },
        "public": settings.public,
        "networkBlockAll": False,
        "kvm": False,
        "target": settings.target or "local",
        "snapshot": settings.snapshot,
        "cpu": machine.cpu_count,
        "gpu": 0,
        "memory": max(1, round(machine.mem_total / GIB)),
        "disk": max(1, round(machine.disk_total / GIB)),
        "volumes": [],
        "state": sandbox.state,
        "desiredState": sandbox.state,
        "recoverable": False,
        **dict(INTERVALS.values()),
        **settings.intervals,
        "createdAt": timestamp(sandbox.created_at),
        "updatedAt": timestamp(sandbox.created_at),
        "lastActivityAt": timestamp(sandbox.active_at),
        "daemonVersion": f"v{__version__}",
        "toolboxProxyUrl": toolbox_url(request),
    }


@of_control_plane
async def create(request: web.Request) -> web.Response:
    """Give the sandbox these settings; what runs in it goes on."""
    settings, ignored = await load(request, CREATE)
    sandbox = request.app[SANDBOX]
    settings.name = settings.name or sandbox.id
    sandbox.create(settings)
    if ignored:
        log.warning("of a sandbox's creation, %s had no effect", ", ".join(ignored))
    return json_response(_described(request))


@of_sandbox
async def get(request: web.Request) -> web.Response:
    """The sandbox."""
    return json_response(_described(request))


@of_control_plane
async def list_all(request: web.Request) -> web.Response:
    """The sandbox, if it passes the filters."""
    items = [_described(request)] if is_listed(request) else []
    return json_response({"items": items, "nextCursor": None, "total": len(items)})


@of_control_plane
async def list_pages(request: web.Request) -> web.Response:
    """As `list_all`, for clients before 0.180."""
    items = [_described(request)] if is_listed(request) else []
    return json_response({"items": items, "total": len(items), "page": 1, "totalPages": 1})


@of_sandbox
async def start(request: web.Request) -> web.Response:
    """Have the sandbox be started again."""
    request.app[SANDBOX].start()
    return json_response(_described(request))


@of_sandbox
async def stop(request: web.Request) -> web.Response:
    """End all that runs."""
    await request.app[SANDBOX].stop()
    return json_response(_described(request))


@of_sandbox
async def delete(request: web.Request) -> web.Response:
    """End all that runs, and forget what was given at creation."""
    described = _described(request)
    await request.app[SANDBOX].delete()
    return json_response({**described, "state": State.DESTROYED, "desiredState": State.DESTROYED})


@of_sandbox
async def set_labels(request: web.Request) -> web.Response:
    """Replace the labels."""
    labels: dict[str, str] = (await load(request, LABELS))["labels"]
    request.app[SANDBOX].settings.labels = labels
    return json_response({"labels": labels})


def _setter(name: str) -> JsonHandler:
    @of_sandbox
    async def set_interval(request: web.Request) -> web.Response:
        """Remember an interval; procd ends nothing by itself."""
        minutes = request.match_info["minutes"]
        if not INTERVAL.fullmatch(minutes):
            raise BadRequest("the interval must be a whole number of minutes")
        request.app[SANDBOX].settings.intervals[name] = int(minutes)
        return json_response(_described(request))

    return set_interval


@of_sandbox
async def set_public(request: web.Request) -> web.Response:
    """Remember whether previews are public; procd has none of its own."""
    if (text := request.match_info["flag"]) not in ("true", "false"):
        raise BadRequest("public must be true or false")
    request.app[SANDBOX].settings.public = text == "true"
    return json_response(_described(request))


@of_sandbox
async def note_activity(request: web.Request) -> web.Response:
    """Note that the sandbox is in use."""
    request.app[SANDBOX].active_at = datetime.now(UTC)
    return web.Response(status=201)


@of_sandbox
async def preview(request: web.Request) -> web.Response:
    """The URL of a port: one of this machine."""
    required = request.app[ACCESS_CONTROL].access.required
    _, _, secret = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return json_response(
        {
            "sandboxId": request.app[SANDBOX].id,
            "url": _url_of_port(request),
            "token": secret if required else "",
        }
    )


@of_sandbox
async def signed_preview(request: web.Request) -> web.Response:
    """As `preview`, without a token: such a URL is passed on."""
    url, port = _url_of_port(request), int(request.match_info["port"])
    reply = {"sandboxId": request.app[SANDBOX].id, "port": port, "token": "", "url": url}
    return json_response(reply)


def _url_of_port(request: web.Request) -> str:
    port = request.match_info["port"]
    if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 1 << 16):
        raise BadRequest("the port must be a number from 1 to 65535")
    return str(URL(toolbox_url(request)).origin().with_port(int(port)))


@of_sandbox
async def proxy_url(request: web.Request) -> web.Response:
    """Where the Process API is."""
    return json_response({"url": toolbox_url(request)})


@of_control_plane
async def config(request: web.Request) -> web.Response:
    """What a client wants to know of the control plane; mostly what there isn't."""
    return json_response(
        {
            "version": f"v{__version__}",
            "oidc": {"issuer": "", "clientId": "", "audience": "", "provider": ""},
            "linkedAccountsEnabled": False,
            "announcements": {},
            "proxyTemplateUrl": "",
            "proxyToolboxUrl": toolbox_url(request),
            "defaultSnapshot": "",
            "dashboardUrl": "",
            "maxAutoArchiveInterval": 0,
            "maintananceMode": False,  # spelled so
            "environment": "local",
        }
    )


routes = [
    web.get("/config", config),
    web.post("/sandbox", create),
    web.get("/sandbox", list_all),
    web.get("/sandbox/paginated", list_pages),
    web.get("/sandbox/{id}", get),
    web.delete("/sandbox/{id}", delete),
    web.post("/sandbox/{id}/start", start),
    web.post("/sandbox/{id}/recover", start),
    web.post("/sandbox/{id}/stop", stop),
    web.put("/sandbox/{id}/labels", set_labels),
    web.post("/sandbox/{id}/public/{flag}", set_public),
    web.post("/sandbox/{id}/last-activity", note_activity),
    web.get("/sandbox/{id}/ports/{port}/preview-url", preview),
    web.get("/sandbox/{id}/ports/{port}/signed-preview-url", signed_preview),
    web.get("/sandbox/{id}/toolbox-proxy-url", proxy_url),
]
routes += [
    web.post(f"/sandbox/{{id}}/{path}/{{minutes}}", _setter(name))
    for path, (name, _) in INTERVALS.items()
]
