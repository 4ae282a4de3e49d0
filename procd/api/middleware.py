"""The one place where exceptions become replies."""

import logging

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from procd.api.gate import turn_away
from procd.api.reply import envelope, respond
from procd.errors import BadRequest, NotFound, ProcdError, Refused, TooLarge

log = logging.getLogger(__name__)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure with the envelope (contract, section 3.2)."""
    try:
        return await handler(request)
    except ProcdError as exc:
        error = exc
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        error = NotFound("404 page not found")  # never 405: contract, section 1
    except web.HTTPRequestEntityTooLarge:
        error = TooLarge("request body is too large")
    except web.HTTPException as exc:
        if exc.status < 400:
            raise
        error = BadRequest(exc.text or exc.reason)
    except ConnectionError:
        raise  # the client has gone: nobody is there to answer
    except Exception:
        log.exception("%s %s failed", request.method, request.match_info.route.name or "request")
        error = ProcdError("internal server error")
    response = await respond(request, envelope(request, error), error.status)
    if hdrs.UPGRADE in request.headers:
        # Bytes that a proxy takes for the WebSocket's must not become a request.
        response.force_close()
    if isinstance(error, Refused) and isinstance(response, web.Response):
        await turn_away(request, response)
    return response
