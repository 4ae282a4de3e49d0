"""The control plane of a procd that stands alone, for Daytona's client 2.0.

Source: contract of the second generation, section 2. The sandbox is that of `api.sandbox`.
"""

from typing import Any, Final

from aiohttp import web

from procd.http.control_plane import (
    LABELS,
    SANDBOX,
    is_listed,
    of_control_plane,
    of_sandbox,
    toolbox_url,
)
from procd.http.responses import json_response, timestamp
from procd.http.schema import BodySchema, Text, load, strings
from procd.services.sandbox import Settings, State

STATUSES: Final = {
    State.STARTED: "running",
    State.STOPPED: "stopped",
    State.DESTROYED: "deleted",
}


class CreateSchema(BodySchema):
    name = Text(load_default="")
    labels = strings(load_default=dict)
    env = strings(load_default=dict)
    image = Text(load_default="")
    snapshot = Text(load_default="")

    def build(self, data: dict[str, Any]) -> Settings:
        image = data.pop("image")
        data["snapshot"] = data["snapshot"] or image
        data["name"] = data["name"] or data["labels"].get("name", "")
        return Settings(**data)


CREATE: Final = CreateSchema()


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
    """Give the sandbox these settings; what runs in it goes on."""
    settings: Settings = await load(request, CREATE)
    sandbox = request.app[SANDBOX]
    settings.name = settings.name or sandbox.id
    sandbox.create(settings)
    return json_response(_described(request), 201)


@of_sandbox
async def get(request: web.Request) -> web.Response:
    """The sandbox; there is no state to wait for that it doesn't have at once."""
    return json_response(_described(request))


def _listed(request: web.Request) -> list[dict[str, object]]:
    return [{**_described(request), "cursor": "1"}] if is_listed(request) else []


@of_control_plane
async def list_all(request: web.Request) -> web.Response:
    """The sandbox, if it passes the filters."""
    return json_response({"sandboxes": _listed(request)})


@of_control_plane
async def search(request: web.Request) -> web.Response:
    """As `list_all`, with a count."""
    found = _listed(request)
    return json_response({"sandboxes": found, "total": len(found), "total_relation": "eq"})


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
    await request.app[SANDBOX].delete()
    return web.Response(status=204)


@of_sandbox
async def set_labels(request: web.Request) -> web.Response:
    """Replace the labels."""
    request.app[SANDBOX].settings.labels = (await load(request, LABELS))["labels"]
    return json_response(_described(request))


routes = [
    web.post("/sandboxes", create),
    web.post("/sandboxes/from-snapshot", create),
    web.get("/sandboxes", list_all),
    web.get("/sandboxes/search", search),
    web.get("/sandboxes/{id}", get),
    web.delete("/sandboxes/{id}", delete),
    web.post("/sandboxes/{id}/start", start),
    web.post("/sandboxes/{id}/stop", stop),
    web.put("/sandboxes/{id}/labels", set_labels),
]
