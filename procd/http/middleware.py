"""The one place where exceptions become replies."""

import logging

from aiohttp import web
from aiohttp.typedefs import Handler

from procd.errors import BadRequest, InvalidBody, NotFound, ProcdError, Refused, TooLarge
from procd.http.envelope import envelope
from procd.http.refusal import answer_and_close, turn_away
from procd.http.request_metrics import REQUESTS
from procd.http.responses import NO_MEMORY, OBJECT_BYTES, answer, json_response, short_ones

log = logging.getLogger(__name__)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure with the envelope (contract, section 3.2).

    From within `except`, which forgets the failure when it is left: a variable that kept it would
    be kept by its traceback, and the request with its body with both, until the collector comes.
    """
    try:
        response = await handler(request)
        if not request.content.is_eof() and isinstance(response, web.Response):
            await turn_away(request, response)  # a body that nobody has asked for is as good
        return response
    except ProcdError as exc:
        return await _answer(request, exc)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed, web.HTTPForbidden) as exc:
        exc.__traceback__ = None  # the request's `match_info` keeps it
        # Never 405: contract, section 1. Nor what aiohttp-cors says of an OPTIONS that is no
        # preflight, or asks for what isn't there.
        return await _answer(request, NotFound("404 page not found"))
    except web.HTTPException as exc:
        return await _answer(request, BadRequest(exc.text or exc.reason))
    except ConnectionError:
        raise  # the client has gone: nobody is there to answer
    except Exception:
        # Never the path itself, which may hold what is secret.
        route = request.app[REQUESTS].of(request).pattern
        log.exception("%s %s failed", request.method, route)
        return await _answer(request, ProcdError("internal server error"))


async def _answer(request: web.Request, error: ProcdError) -> web.StreamResponse:
    if request.writer.output_size > 0:  # as after an upgrade
        raise ConnectionResetError("half of another answer is out")
    response: web.StreamResponse
    try:
        response = await answer(request, envelope(request, error), error.status)
    except MemoryError:
        error.message = f"{error.message[:OBJECT_BYTES]}; {NO_MEMORY}"
        error.extra = short_ones(error.extra)
        response = json_response(envelope(request, error), error.status)
    if isinstance(response, web.Response):
        if isinstance(error, Refused | TooLarge):
            await turn_away(request, response)
        elif isinstance(error, InvalidBody) and not request.content.is_eof():
            await answer_and_close(request, response)
    return response
