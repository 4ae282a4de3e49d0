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
    FILTERS,
    LABELS,
    LANGUAGE_LABEL,
    SANDBOX,
    JsonHandler,
    is_listed,
    of_control_plane,
    of_sandbox,
    toolbox_url,
)
from procd.http.openapi import (
    COUNT,
    FLAG,
    LIST,
    NOW,
    NUMBER,
    OBJECT,
    STRINGS,
    TEXT,
    TEXT_OR_NULL,
    TIME,
    Doc,
    Json,
    ListOf,
    Shape,
    about,
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


REMEMBERED: Final = {"type": ["number", "null"]} | about("Minutes; given back, and not used.", 30)


class CreateSchema(BodySchema):
    name = Text(load_default="", metadata=about("Its name; its id if absent.", "mine"))
    labels = strings(load_default=dict, metadata=about("Its labels.", {"team": "a"}))
    env = strings(
        load_default=dict, metadata=about("Variables of its processes.", {"NAME": "value"})
    )
    user = Text(load_default="", metadata=about("Given back, and not used.", "root"))
    snapshot = Text(load_default="", metadata=about("Given back, and not used.", "base"))
    target = Text(load_default="", metadata=about("Given back, and not used.", "local"))
    public = Flag(load_default=False, metadata=about("Given back, and not used.", example=False))
    autoStopInterval = Minutes(metadata=REMEMBERED)
    autoPauseInterval = Minutes(metadata=REMEMBERED)
    autoArchiveInterval = Minutes(metadata=REMEMBERED)
    autoDeleteInterval = Minutes(metadata=REMEMBERED)
    ttlMinutes = Minutes(metadata=REMEMBERED)
    buildInfo = fields.Raw(metadata=about("Ignored.", None))
    domainAllowList = fields.Raw(metadata=about("Ignored.", None))
    networkAllowList = fields.Raw(metadata=about("Ignored.", None))
    networkBlockAll = fields.Raw(metadata=about("Ignored.", example=False))
    secrets = fields.Raw(metadata=about("Ignored.", []))
    volumes = fields.Raw(metadata=about("Ignored.", []))

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
    """Create the sandbox.

    It is there already: it is given these settings, and what runs in it goes on.
    """
    settings, ignored = await load(request, CREATE)
    sandbox = request.app[SANDBOX]
    settings.name = settings.name or sandbox.id
    sandbox.create(settings)
    if ignored:
        log.warning("of a sandbox's creation, %s had no effect", ", ".join(ignored))
    return json_response(_described(request))


@of_sandbox
async def get(request: web.Request) -> web.Response:
    """Show the sandbox.

    It is found by its id or its name.
    """
    return json_response(_described(request))


@of_control_plane
async def list_all(request: web.Request) -> web.Response:
    """List sandboxes.

    There is one. The list is empty if it doesn't pass the filters, or was deleted.
    """
    items = [_described(request)] if is_listed(request) else []
    return json_response({"items": items, "nextCursor": None, "total": len(items)})


@of_control_plane
async def list_pages(request: web.Request) -> web.Response:
    """List sandboxes by numbered pages.

    This is for clients before 0.180.
    """
    items = [_described(request)] if is_listed(request) else []
    return json_response({"items": items, "total": len(items), "page": 1, "totalPages": 1})


@of_sandbox
async def start(request: web.Request) -> web.Response:
    """Start the sandbox.

    Its state is `started` again after it was stopped.
    """
    request.app[SANDBOX].start()
    return json_response(_described(request))


@of_sandbox
async def stop(request: web.Request) -> web.Response:
    """Stop the sandbox.

    All sessions, terminals, contexts and commands are ended.
    """
    await request.app[SANDBOX].stop()
    return json_response(_described(request))


@of_sandbox
async def delete(request: web.Request) -> web.Response:
    """Delete the sandbox.

    All that runs is ended, and what was given at creation is forgotten. It can be created again.
    """
    described = _described(request)
    await request.app[SANDBOX].delete()
    return json_response({**described, "state": State.DESTROYED, "desiredState": State.DESTROYED})


@of_sandbox
async def set_labels(request: web.Request) -> web.Response:
    """Replace the labels.

    Labels that aren't named are removed.
    """
    labels: dict[str, str] = (await load(request, LABELS))["labels"]
    request.app[SANDBOX].settings.labels = labels
    return json_response({"labels": labels})


def _setter(name: str) -> JsonHandler:
    @of_sandbox
    async def set_interval(request: web.Request) -> web.Response:
        """Remember an interval.

        It is only given back: procd ends nothing by itself.
        """
        minutes = request.match_info["minutes"]
        if not INTERVAL.fullmatch(minutes):
            raise BadRequest("the interval must be a whole number of minutes")
        request.app[SANDBOX].settings.intervals[name] = int(minutes)
        return json_response(_described(request))

    return set_interval


@of_sandbox
async def set_public(request: web.Request) -> web.Response:
    """Remember whether previews are public.

    It is only given back: procd has no previews of its own.
    """
    if (text := request.match_info["flag"]) not in ("true", "false"):
        raise BadRequest("public must be true or false")
    request.app[SANDBOX].settings.public = text == "true"
    return json_response(_described(request))


@of_sandbox
async def note_activity(request: web.Request) -> web.Response:
    """Note that the sandbox is in use.

    The time is given back as `lastActivityAt`.
    """
    request.app[SANDBOX].active_at = datetime.now(UTC)
    return web.Response(status=201)


@of_sandbox
async def preview(request: web.Request) -> web.Response:
    """Show the URL of a port.

    Its host is the one by which procd was asked.
    """
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
    """Show the URL of a port, to pass on.

    The reply has no token.
    """
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
    """Show where the Process API is.

    A client appends the id of the sandbox to that URL.
    """
    return json_response({"url": toolbox_url(request)})


@of_control_plane
async def config(request: web.Request) -> web.Response:
    """Show the configuration of the control plane.

    Most of it says what there isn't.
    """
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


def _shape() -> Shape:
    minutes = {
        name: NUMBER | about(f"What was set by `{path}`: procd ends nothing by itself.", default)
        for path, (name, default) in INTERVALS.items()
    }
    return Shape(
        "Sandbox",
        "The sandbox, as Daytona's clients before 2.0 know it.",
        {
            "id": TEXT | about("Its id.", "local"),
            "organizationId": TEXT | about("The same.", "local"),
            "name": TEXT | about("Its name.", "local"),
            "user": TEXT | about("The user that was asked for.", "root"),
            "env": STRINGS | about("Variables of its processes.", {"NAME": "value"}),
            "labels": STRINGS | about("Its labels.", {LANGUAGE_LABEL: "python"}),
            "public": FLAG | about("What was set as `public`.", example=False),
            "networkBlockAll": FLAG | about("Always false.", example=False),
            "kvm": FLAG | about("Always false.", example=False),
            "target": TEXT | about("What was asked for.", "local"),
            "snapshot": TEXT | about("What was asked for.", ""),
            "cpu": COUNT | about("How many processors it has.", 2),
            "gpu": COUNT | about("Always 0.", 0),
            "memory": COUNT | about("Its memory, GiB.", 4),
            "disk": COUNT | about("Its disk, GiB.", 10),
            "volumes": LIST | about("Always empty.", []),
            "state": STATE | about("What it does.", "started"),
            "desiredState": STATE | about("The same.", "started"),
            "recoverable": FLAG | about("Always false.", example=False),
            **minutes,
            "createdAt": TIME | about("When it was created last.", NOW),
            "updatedAt": TIME | about("The same.", NOW),
            "lastActivityAt": TIME | about("When it was last used, as far as told.", NOW),
            "daemonVersion": TEXT | about("The version of procd.", f"v{__version__}"),
            "toolboxProxyUrl": TEXT
            | about("Where its Process API is, without its id.", "http://127.0.0.1:2280/toolbox"),
        },
    )


STATE: Final[Json] = {"type": "string", "enum": [*State]}
SHAPE: Final = _shape()
ITEMS: Final = ListOf(SHAPE, "The sandbox, or nothing if it doesn't pass the filters.")
PAGE: Final = Shape(
    "SandboxList",
    "The list.",
    {
        "items": ITEMS,
        "nextCursor": TEXT_OR_NULL | about("Always null.", None),
        "total": COUNT | about("How many there are.", 1),
    },
)
NUMBERED_PAGE: Final = Shape(
    "SandboxPage",
    "The page.",
    {
        "items": ITEMS,
        "total": COUNT | about("How many there are.", 1),
        "page": COUNT | about("Number of the page.", 1),
        "totalPages": COUNT | about("How many pages there are.", 1),
    },
)
URL_REPLY: Final = Shape(
    "ToolboxUrl", "The URL.", {"url": TEXT | about("The URL.", "http://127.0.0.1:2280/toolbox")}
)
PREVIEW: Final = {
    "sandboxId": TEXT | about("Id of the sandbox.", "local"),
    "url": TEXT | about("The URL.", "http://127.0.0.1:8080"),
    "token": TEXT | about("The caller's token, if one is needed.", ""),
}
CONFIG: Final = Shape(
    "ControlPlaneConfig",
    "What a client wants to know of a control plane.",
    {
        "version": TEXT | about("The version of procd.", f"v{__version__}"),
        "oidc": STRINGS | about("There is no single sign-on.", {"issuer": ""}),
        "linkedAccountsEnabled": FLAG | about("Always false.", example=False),
        "announcements": OBJECT | about("Always empty.", {}),
        "proxyTemplateUrl": TEXT | about("Always empty.", ""),
        "proxyToolboxUrl": TEXT | about("See toolboxProxyUrl.", "http://127.0.0.1:2280/toolbox"),
        "defaultSnapshot": TEXT | about("Always empty.", ""),
        "dashboardUrl": TEXT | about("Always empty.", ""),
        "maxAutoArchiveInterval": COUNT | about("Always 0.", 0),
        "maintananceMode": FLAG | about("Always false.", example=False),
        "environment": TEXT | about("Always `local`.", "local"),
    },
)

routes = [
    web.get("/config", config, doc=Doc(id="configControllerGetConfig", reply=CONFIG)),
    web.post(
        "/sandbox",
        create,
        doc=Doc(
            id="createSandbox",
            body=CREATE,
            example={"name": "mine", "labels": {"team": "a"}, "env": {"NAME": "value"}},
            reply=SHAPE,
        ),
    ),
    web.get("/sandbox", list_all, doc=Doc(id="listSandboxes", query=FILTERS, reply=PAGE)),
    web.get(
        "/sandbox/paginated",
        list_pages,
        doc=Doc(id="listSandboxesPaginated", query=FILTERS, reply=NUMBERED_PAGE),
    ),
    web.get("/sandbox/{id}", get, doc=Doc(id="getSandbox", reply=SHAPE)),
    web.delete("/sandbox/{id}", delete, doc=Doc(id="deleteSandbox", reply=SHAPE)),
    web.post("/sandbox/{id}/start", start, doc=Doc(id="startSandbox", reply=SHAPE)),
    web.post(
        "/sandbox/{id}/recover",
        start,
        doc=Doc(id="recoverSandbox", summary="Recover the sandbox", reply=SHAPE),
    ),
    web.post("/sandbox/{id}/stop", stop, doc=Doc(id="stopSandbox", reply=SHAPE)),
    web.put(
        "/sandbox/{id}/labels",
        set_labels,
        doc=Doc(
            id="replaceLabels",
            body=LABELS,
            example={"labels": {"team": "a"}},
            reply=Shape(
                "SandboxLabels",
                "The labels.",
                {"labels": STRINGS | about("The labels.", {"team": "a"})},
            ),
        ),
    ),
    web.post(
        "/sandbox/{id}/public/{flag}",
        set_public,
        doc=Doc(id="updatePublicStatus", reply=SHAPE, errors=(BadRequest,)),
    ),
    web.post(
        "/sandbox/{id}/last-activity", note_activity, doc=Doc(id="updateLastActivity", status=201)
    ),
    web.get(
        "/sandbox/{id}/ports/{port}/preview-url",
        preview,
        doc=Doc(
            id="getPortPreviewUrl",
            reply=Shape("PreviewUrl", "The URL.", PREVIEW),
            errors=(BadRequest,),
        ),
    ),
    web.get(
        "/sandbox/{id}/ports/{port}/signed-preview-url",
        signed_preview,
        doc=Doc(
            id="getSignedPortPreviewUrl",
            reply=Shape(
                "SignedPreviewUrl",
                "The URL.",
                {
                    **PREVIEW,
                    "token": TEXT | about("Always empty.", ""),
                    "port": COUNT | about("The port.", 8080),
                },
            ),
            errors=(BadRequest,),
        ),
    ),
    web.get(
        "/sandbox/{id}/toolbox-proxy-url",
        proxy_url,
        doc=Doc(id="getToolboxProxyUrl", reply=URL_REPLY),
    ),
]
OPERATIONS: Final = {
    "autostop": "setAutostopInterval",
    "autopause": "setAutoPauseInterval",
    "autoarchive": "setAutoArchiveInterval",
    "autodelete": "setAutoDeleteInterval",
    "ttl": "setTtl",
}
routes += [
    web.post(
        f"/sandbox/{{id}}/{path}/{{minutes}}",
        _setter(name),
        doc=Doc(id=OPERATIONS[path], summary=f"Remember {name}", reply=SHAPE, errors=(BadRequest,)),
    )
    for path, (name, _) in INTERVALS.items()
]
