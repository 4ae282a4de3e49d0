"""What Daytona's clients can ask for and procd doesn't have: files, git, language servers, volumes.

It gets 501 with a sentence that the clients show, in place of a bare 404.
"""

from typing import Final

from aiohttp import MultipartWriter, hdrs, web
from marshmallow import fields

from procd.errors import NotSupported
from procd.http.control_plane import SOURCE
from procd.http.middleware import envelope
from procd.http.responses import dumps
from procd.http.schema import BodySchema, Element, load

SECTION: Final = 'see "Daytona\'s clients" in its README'
# Each client of Daytona sends it.
SOURCE_HEADER: Final = "X-Daytona-Source"

# Of the Process API's server, by the first part of the path.
TOOLBOX: Final = {
    "files": "sandbox.fs",
    "git": "sandbox.git",
    "lsp": "sandbox.lsp",
    "computeruse": "sandbox.computer_use",
    "port": "the list of ports",
}
CONTROL_PLANE: Final = (
    "api-keys", "docker-registry", "fns", "images", "object-storage", "organizations", "regions",
    "reservations", "secret", "secrets", "snapshots", "users", "volumes", "warm-pools",
)  # fmt: skip


class DownloadSchema(BodySchema):
    paths = fields.List(Element(), load_default=list)


DOWNLOAD: Final = DownloadSchema()


def _error(what: str) -> NotSupported:
    return NotSupported(
        f"{what} is not supported by procd, which serves the processes of one machine: {SECTION}"
    )


async def refuse_toolbox(request: web.Request) -> web.Response:
    """Refuse files, git, language servers, the desktop and the list of ports."""
    raise _error(TOOLBOX[request.match_info["family"]])


async def refuse_download(request: web.Request) -> web.Response:
    """Refuse to download files, in parts of a form: clients show no other error of this call."""
    error = _error(TOOLBOX["files"])
    if SOURCE_HEADER not in request.headers:
        raise error
    paths: list[str] = (await load(request, DOWNLOAD))["paths"]
    form = MultipartWriter("form-data")
    for path in paths:
        body = {name: value for name, value in envelope(request, error).items() if name != "method"}
        part = form.append(dumps({**body, "path": path}), {hdrs.CONTENT_TYPE: "application/json"})
        part.set_content_disposition("form-data", quote_fields=False, name="error", filename=path)
    response = web.Response(body=form)
    response.force_close()  # a client in TypeScript doesn't read to the end, and keeps it open
    return response


async def refuse_control_plane(request: web.Request) -> web.Response:
    """Refuse volumes, snapshots and the like."""
    error = _error(f"/{request.match_info['family']} of the control plane")
    error.extra["source"] = SOURCE
    raise error


async def refuse_of_sandbox(request: web.Request) -> web.Response:
    """Refuse what else can be done to a sandbox."""
    error = _error(f"'{request.match_info['rest']}' of a sandbox")
    error.extra["source"] = SOURCE
    raise error


_TOOLBOX: Final = f"/{{family:{'|'.join(TOOLBOX)}}}"
_CONTROL_PLANE: Final = f"/{{family:{'|'.join(CONTROL_PLANE)}}}"

routes = [
    web.post("/files/bulk-download", refuse_download),
    web.route("*", _TOOLBOX, refuse_toolbox),
    web.route("*", f"{_TOOLBOX}/{{rest:.+}}", refuse_toolbox),
]
control_plane_routes = [
    web.route("*", _CONTROL_PLANE, refuse_control_plane),
    web.route("*", f"{_CONTROL_PLANE}/{{rest:.+}}", refuse_control_plane),
    web.route("*", "/{family:sandbox|sandboxes}/{id}/{rest:.+}", refuse_of_sandbox),
]
