"""The version, directories, environment and machine metrics. Source: contract, section 12."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from marshmallow import fields

from procd import __version__
from procd.http.openapi import COUNT, MESSAGE, NOW, NUMBER, TEXT, TIME, Doc, Shape, about
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
    token = Text(metadata=about("It is ignored.", "secret"))


class EnvSchema(BodySchema):
    assign = strings(
        data_key="set",
        load_default=dict,
        metadata=about("Variables to set.", {"NAME": "value"}),
    )
    env = strings(
        load_default=dict,
        metadata=about("The same, of Daytona's client 2.0; `set` overrides it.", {"NAME": "value"}),
    )
    unset = fields.List(
        Element(), load_default=list, metadata=about("Names of variables to unset.", ["OLD"])
    )
    unset_value_prefix = Text(
        data_key="unsetValuePrefix",
        load_default="",
        metadata=about("Unset variables whose values begin so, too.", "secret-"),
    )

    def build(self, data: dict[str, Any]) -> dict[str, Any]:
        data["assign"] = {**data.pop("env"), **data["assign"]}
        return data


INIT: Final = InitSchema()
ENV: Final = EnvSchema()


async def version(_: web.Request) -> web.Response:
    """Show the version of procd.

    It begins with a `v`, as that of Daytona does.
    """
    return json_response({"version": f"v{__version__}"})


async def work_dir(request: web.Request) -> web.Response:
    """Show the default working directory.

    Commands, sessions and terminals start there.
    """
    return json_response({"dir": request.app[PLACES].work_dir})


async def home_dir(request: web.Request) -> web.Response:
    """Show the user's home directory.

    Older clients ask for the project directory, which is the same.
    """
    return json_response({"dir": request.app[PLACES].home_dir})


async def init(request: web.Request) -> web.Response:
    """Accept the first request of a sandbox runner.

    Nothing is changed by it.
    """
    await load(request, INIT)
    return json_response({"message": "Auth token set and telemetry initialized successfully"})


async def env(request: web.Request) -> web.Response:
    """Change the environment of processes to come.

    Those that run keep theirs.
    """
    change: dict[str, Any] = await load(request, ENV)
    request.app[ENVIRONMENT].update(**change)
    return json_response({"message": "Environment updated"})


async def metrics(request: web.Request) -> web.Response:
    """Show the use of processor, memory and disk.

    Processor and memory are the machine's. The disk is the one with the working directory.
    """
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


DIRECTORY: Final = Shape(
    "Directory", "A directory.", {"dir": TEXT | about("Its absolute path.", "/home/user")}
)
VERSION: Final = Shape(
    "Version", "The version.", {"version": TEXT | about("The version.", f"v{__version__}")}
)
USAGE: Final = Shape(
    "SystemMetrics",
    "The use of the machine.",
    {
        "cpuCount": COUNT | about("How many processors it has.", 2),
        "cpuUsedPct": NUMBER | about("Use of all processors, percent.", 12.5),
        "diskFree": COUNT | about("Free disk, bytes.", 5368709120),
        "diskTotal": COUNT | about("Size of the disk, bytes.", 10737418240),
        "diskUsed": COUNT | about("Used disk, bytes.", 5368709120),
        "memCache": COUNT | about("Memory that caches files, bytes.", 268435456),
        "memTotal": COUNT | about("Size of the memory, bytes.", 4294967296),
        "memUsed": COUNT | about("Used memory, bytes.", 1073741824),
        "timestamp": TIME | about("When it was measured.", NOW),
        "timestampUnix": COUNT | about("The same, seconds since 1970.", 1796205600),
    },
)

routes = [
    web.get("/version", version, doc=Doc(id="getVersion", reply=VERSION)),
    web.get("/work-dir", work_dir, doc=Doc(id="getWorkDir", reply=DIRECTORY)),
    web.get("/user-home-dir", home_dir, doc=Doc(id="getUserHomeDir", reply=DIRECTORY)),
    web.get(
        "/project-dir",
        home_dir,
        doc=Doc(
            id="getProjectDir",
            summary="Show the project directory",
            description="It is the user's home directory.",
            reply=DIRECTORY,
        ),
    ),
    web.post(
        "/init",
        init,
        doc=Doc(id="initialize", body=INIT, example={"token": "secret"}, reply=MESSAGE),
    ),
    web.post(
        "/env",
        env,
        doc=Doc(
            id="updateEnv",
            body=ENV,
            example={"set": {"NAME": "value"}, "unset": ["OLD"]},
            reply=MESSAGE,
        ),
    ),
    web.get("/system/metrics", metrics, doc=Doc(id="getSystemMetrics", reply=USAGE)),
]
