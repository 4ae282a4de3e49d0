"""The version, directories, environment and machine metrics. Source: contract, section 12."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from marshmallow import fields

from procd import __version__
from procd.http.openapi import COUNT, MESSAGE, NUMBER, TEXT, TIME, Doc, Shape
from procd.http.responses import json_response, timestamp
from procd.http.schema import BodySchema, Element, Text, load, strings
from procd.services.environment import Environment
from procd.unix.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    work_dir: str
    home_dir: str


ENVIRONMENT = web.AppKey("ENVIRONMENT", Environment)
PLACES = web.AppKey("PLACES", Places)
HOST = web.AppKey("HOST", Host)


class InitSchema(BodySchema):
    token = Text()


class EnvSchema(BodySchema):
    assign = strings(data_key="set", load_default=dict)
    env = strings(load_default=dict)  # the same, of Daytona's client 2.0
    unset = fields.List(Element(), load_default=list)
    unset_value_prefix = Text(data_key="unsetValuePrefix", load_default="")

    def build(self, data: dict[str, Any]) -> dict[str, Any]:
        data["assign"] = {**data.pop("env"), **data["assign"]}
        return data


INIT: Final = InitSchema()
ENV: Final = EnvSchema()


async def version(_: web.Request) -> web.Response:
    """The version of procd."""
    return json_response({"version": f"v{__version__}"})


async def work_dir(request: web.Request) -> web.Response:
    """The default working directory."""
    return json_response({"dir": request.app[PLACES].work_dir})


async def home_dir(request: web.Request) -> web.Response:
    """The user's home."""
    return json_response({"dir": request.app[PLACES].home_dir})


async def init(request: web.Request) -> web.Response:
    """Accept the first request of a sandbox runner; its token is ignored."""
    await load(request, INIT)
    return json_response({"message": "Auth token set and telemetry initialized successfully"})


async def env(request: web.Request) -> web.Response:
    """Change the environment of processes to come."""
    change: dict[str, Any] = await load(request, ENV)
    request.app[ENVIRONMENT].update(**change)
    return json_response({"message": "Environment updated"})


async def metrics(request: web.Request) -> web.Response:
    """The use of processor, memory and disk."""
    usage = request.app[HOST].usage(request.app[PLACES].work_dir)
    now = datetime.now(UTC)
    return json_response(
        {
            "cpuCount": usage.cpu_count,
            "cpuUsedPct": usage.cpu_used_pct,
            "diskFree": usage.disk_free,
            "diskTotal": usage.disk_total,
            "diskUsed": usage.disk_used,
            "memCache": usage.mem_cache,
            "memTotal": usage.mem_total,
            "memUsed": usage.mem_used,
            "timestamp": timestamp(now),
            "timestampUnix": int(now.timestamp()),
        }
    )


DIRECTORY: Final = Shape("Directory", {"dir": TEXT})
USAGE: Final = Shape(
    "SystemMetrics",
    {
        "cpuCount": COUNT,
        "cpuUsedPct": NUMBER,
        "diskFree": COUNT,
        "diskTotal": COUNT,
        "diskUsed": COUNT,
        "memCache": COUNT,
        "memTotal": COUNT,
        "memUsed": COUNT,
        "timestamp": TIME,
        "timestampUnix": COUNT,
    },
)

routes = [
    web.get("/version", version, doc=Doc(reply=Shape("Version", {"version": TEXT}))),
    web.get("/work-dir", work_dir, doc=Doc(reply=DIRECTORY)),
    web.get("/user-home-dir", home_dir, doc=Doc(reply=DIRECTORY)),
    web.get("/project-dir", home_dir, doc=Doc(reply=DIRECTORY)),
    web.post("/init", init, doc=Doc(body=INIT, reply=MESSAGE)),
    web.post("/env", env, doc=Doc(body=ENV, reply=MESSAGE)),
    web.get("/system/metrics", metrics, doc=Doc(reply=USAGE)),
]
