"""The control plane of a procd that stands alone, for Daytona's client 2.0.

Source: contract of the second generation, section 2. The sandbox is that of `api.sandbox`.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from procd.http.control_plane import (
    FILTERS,
    LABELS,
    SANDBOX,
    is_listed,
    of_control_plane,
    of_sandbox,
    toolbox_url,
)
from procd.http.openapi import (
    COUNT,
    LIST,
    NOW,
    STRINGS,
    TEXT,
    TIME,
    Doc,
    Json,
    ListOf,
    Shape,
    about,
)
from procd.http.responses import json_response, timestamp
from procd.http.schema import BodySchema, Text, load, strings
from procd.services.sandbox import Settings, State

STATUSES: Final = {
    State.STARTED: "running",
    State.STOPPED: "stopped",
    State.DESTROYED: "deleted",
}


class SandboxV2CreateSchema(BodySchema):
    name = Text(load_default="", metadata=about("Its name; its id if absent.", "mine"))
    labels = strings(load_default=dict, metadata=about("Its labels.", {"team": "a"}))
    env = strings(
        load_default=dict, metadata=about("Variables of its processes.", {"NAME": "value"})
    )
    image = Text(load_default="", metadata=about("Given back, and not used.", "debian:13"))
    snapshot = Text(load_default="", metadata=about("Given back, and not used.", "base"))

    def build(self, data: dict[str, Any]) -> Settings:
        image = data.pop("image")
        data["snapshot"] = data["snapshot"] or image
        data["name"] = data["name"] or data["labels"].get("name", "")
        return Settings(**data)


CREATE: Final = SandboxV2CreateSchema()


def _described(request: web.Request) -> dict[str, object]:
    sandbox = request.app[SANDBOX]
    settings, machine = sandbox.settings, sandbox.machine()
    return {
        "id": sandbox.id,
        "name": settings.name,
        "class": "linux",
        "status": STATUSES[sandbox.state],
        "region": "local",
        "port_map": [],
        "cpu": machine.cpu_count,
        "vcpus": machine.cpu_count,
        "memory_mib": machine.mem_total >> 20,
        "disk_mib": machine.disk_total >> 20,
        "labels": settings.labels,
        "created_at": timestamp(sandbox.created_at),
        "toolbox_proxy_url": toolbox_url(request),
    }


@of_control_plane
async def create(request: web.Request) -> web.Response:
    """Create the sandbox.

    It is there already: it is given these settings, and what runs in it goes on.
    """
    settings: Settings = await load(request, CREATE)
    sandbox = request.app[SANDBOX]
    settings.name = settings.name or sandbox.id
    sandbox.create(settings)
    return json_response(_described(request), 201)


@of_sandbox
async def get(request: web.Request) -> web.Response:
    """Show the sandbox.

    It is found by its id or its name. There is no state to wait for that it doesn't have at once.
    """
    return json_response(_described(request))


def _listed(request: web.Request) -> list[dict[str, object]]:
    return [{**_described(request), "cursor": "1"}] if is_listed(request) else []


@of_control_plane
async def list_all(request: web.Request) -> web.Response:
    """List sandboxes.

    There is one. The list is empty if it doesn't pass the filters, or was deleted.
    """
    return json_response({"sandboxes": _listed(request)})


@of_control_plane
async def search(request: web.Request) -> web.Response:
    """List sandboxes, with a count.

    The filters are those of the list.
    """
    found = _listed(request)
    return json_response({"sandboxes": found, "total": len(found), "total_relation": "eq"})


@of_sandbox
async def start(request: web.Request) -> web.Response:
    """Start the sandbox.

    Its status is `running` again after it was stopped.
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
    await request.app[SANDBOX].delete()
    return web.Response(status=204)


@of_sandbox
async def set_labels(request: web.Request) -> web.Response:
    """Replace the labels.

    Labels that aren't named are removed.
    """
    request.app[SANDBOX].settings.labels = (await load(request, LABELS))["labels"]
    return json_response(_described(request))


FIELDS: Final[Mapping[str, Json]] = {
    "id": TEXT | about("Its id.", "local"),
    "name": TEXT | about("Its name.", "local"),
    "class": TEXT | about("Always `linux`.", "linux"),
    "status": {"type": "string", "enum": [*STATUSES.values()]} | about("What it does.", "running"),
    "region": TEXT | about("Always `local`.", "local"),
    "port_map": LIST | about("Always empty.", []),
    "cpu": COUNT | about("How many processors it has.", 2),
    "vcpus": COUNT | about("The same.", 2),
    "memory_mib": COUNT | about("Its memory, MiB.", 4096),
    "disk_mib": COUNT | about("Its disk, MiB.", 10240),
    "labels": STRINGS | about("Its labels.", {"team": "a"}),
    "created_at": TIME | about("When it was created last.", NOW),
    "toolbox_proxy_url": TEXT
    | about("Where its Process API is, without its id.", "http://127.0.0.1:2280/toolbox"),
}
SHAPE: Final = Shape("SandboxV2", "The sandbox, as Daytona's client 2.0 knows it.", FIELDS)
ITEMS: Final = ListOf(
    Shape(
        "SandboxV2Listed",
        "The sandbox in a list.",
        {**FIELDS, "cursor": TEXT | about("Its place in the list.", "1")},
    ),
    "The sandbox, or nothing if it doesn't pass the filters.",
)
LISTED: Final = Shape("SandboxV2List", "The list.", {"sandboxes": ITEMS})
FOUND: Final = Shape(
    "SandboxV2Found",
    "The list.",
    {
        "sandboxes": ITEMS,
        "total": COUNT | about("How many there are.", 1),
        "total_relation": TEXT | about("That `total` is exact.", "eq"),
    },
)
EXAMPLE: Final = {"name": "mine", "labels": {"team": "a"}, "env": {"NAME": "value"}}

routes = [
    web.post(
        "/sandboxes",
        create,
        doc=Doc(id="createSandboxV2", body=CREATE, example=EXAMPLE, reply=SHAPE, status=201),
    ),
    web.post(
        "/sandboxes/from-snapshot",
        create,
        doc=Doc(
            id="createSandboxFromSnapshotV2",
            summary="Create the sandbox from a snapshot",
            body=CREATE,
            example=EXAMPLE | {"snapshot": "base"},
            reply=SHAPE,
            status=201,
        ),
    ),
    web.get("/sandboxes", list_all, doc=Doc(id="listSandboxesV2", query=FILTERS, reply=LISTED)),
    web.get(
        "/sandboxes/search", search, doc=Doc(id="searchSandboxesV2", query=FILTERS, reply=FOUND)
    ),
    web.get("/sandboxes/{id}", get, doc=Doc(id="getSandboxV2", reply=SHAPE)),
    web.delete("/sandboxes/{id}", delete, doc=Doc(id="deleteSandboxV2", status=204)),
    web.post("/sandboxes/{id}/start", start, doc=Doc(id="startSandboxV2", reply=SHAPE)),
    web.post("/sandboxes/{id}/stop", stop, doc=Doc(id="stopSandboxV2", reply=SHAPE)),
    web.put(
        "/sandboxes/{id}/labels",
        set_labels,
        doc=Doc(id="replaceLabelsV2", body=LABELS, example={"labels": {"team": "a"}}, reply=SHAPE),
    ),
]
