"""POST /tickets: one-time tickets, with which a browser opens a WebSocket."""

from typing import Any, Final

from aiohttp import web
from marshmallow import ValidationError
from yarl import URL

from procd.errors import Exhausted
from procd.http.auth import ACCESS_CONTROL, CALLER, plain_path
from procd.http.openapi import NUMBER, TEXT, Doc, Shape, about
from procd.http.responses import json_response
from procd.http.schema import BodySchema, Text, load, non_empty

MAX_ROUTE_LENGTH: Final = 4096


class TicketSchema(BodySchema):
    route = Text(
        required=True,
        validate=non_empty(),
        metadata=about("Path of the WebSocket that it is for.", "/terminal/ptys"),
    )

    def build(self, data: dict[str, Any]) -> str:
        """The path that the ticket is for, decoded as a request's is."""
        text: str = data["route"]
        if len(text) > MAX_ROUTE_LENGTH or not text.startswith("/") or set("?#") & set(text):
            raise ValidationError("route: must be the path of a WebSocket, without a query")
        return plain_path(URL.build(path="/").with_path(text, encoded=True).path)


TICKET: Final = TicketSchema()


async def create(request: web.Request) -> web.Response:
    """Make a ticket for a WebSocket.

    A browser can't send a header with a WebSocket. It sends `?ticket=` in the URL in its place,
    which works once. A ticket has the scope of its maker's token.
    """
    access = request.app[ACCESS_CONTROL].access
    route: str = await load(request, TICKET)
    ticket = access.tickets.make(request[CALLER], route)
    reply = json_response(
        {"ticket": ticket, "expiresInSeconds": access.tickets.config.ticket_s}, 201
    )
    reply.headers["Cache-Control"] = "no-store"
    return reply


TICKET_REPLY: Final = Shape(
    "Ticket",
    "The ticket.",
    {
        "ticket": TEXT | about("The ticket.", "5cX0mZ7wq1"),
        "expiresInSeconds": NUMBER | about("How long it can be used.", 30),
    },
)

routes = [
    web.post(
        "/tickets",
        create,
        doc=Doc(
            id="createTicket",
            example={"route": "/terminal/ptys"},
            body=TICKET,
            reply=TICKET_REPLY,
            status=201,
            errors=(Exhausted,),
        ),
    )
]
