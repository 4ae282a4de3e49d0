"""Request bodies and queries: from JSON to the dataclass that a schema makes.

Source: Process API contract, section 1.1.
"""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from aiohttp import hdrs, web
from marshmallow import EXCLUDE, Schema, ValidationError, fields, missing, validate

from procd.errors import BadRequest, InvalidBody, TooLarge
from procd.http.middleware import AWAITS_CONTINUE
from procd.suspend import within

MAX_DIGITS: Final = 18
# Of an integer in a document: parsing one takes the square of its length.
MAX_INTEGER_DIGITS: Final = 500
MAX_UINT16: Final = (1 << 16) - 1
MAX_UINT32: Final = (1 << 32) - 1
HAS_NUL: Final = "must not contain a NUL character"
HAS_SURROGATES: Final = "must not contain lone surrogates"
# A string, or what follows a quote that is never closed. Possessive: it takes linear time.
STRING: Final = re.compile(rb'"(?>[^"\\]++|\\.)*+"?', re.DOTALL)

# How long the next part of a body may take to come, seconds.
SILENCE_S = web.AppKey("SILENCE_S", float)
MAX_VALUES = web.AppKey("MAX_VALUES", int)


class Text(fields.String):
    """A string that can be an argument, a path or a variable: Unicode without NUL."""

    allows_nul = False

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, *args, **kwargs)
        if "\0" in text and not self.allows_nul:
            raise ValidationError(HAS_NUL)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValidationError(HAS_SURROGATES) from None
        return text


class Element(Text):
    """A string in a list or a map, where null is the empty string. Source: Go's encoding/json."""

    def deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return super().deserialize("" if value is None else value, *args, **kwargs)


class AnyText(Text):
    """A string that may contain NUL: a script, passed in a file, or an id, checked later."""

    allows_nul = True


class Flag(fields.Boolean):
    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value


class Count(fields.Integer):
    """An unsigned integer up to `largest`, written as an integer."""

    def __init__(self, largest: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.largest = largest

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if type(value) is not int or not 0 <= value <= self.largest:
            raise ValidationError(f"must be an integer from 0 to {self.largest}")
        return value


def strings(*, nulls: bool = True, **kwargs: Any) -> fields.Dict:
    """A field that maps strings to strings; with `nulls`, null is the empty string."""
    return fields.Dict(keys=Text(), values=Element() if nulls else Text(), **kwargs)


def non_empty() -> validate.Length:
    return validate.Length(min=1, error="must not be empty")


class BodySchema(Schema):
    """A schema that takes field names in any case and ignores unknown fields.

    It is loaded by `load_document`: `Schema.load` takes longer than the fields themselves.
    """

    class Meta:
        unknown = EXCLUDE

    def build(self, data: dict[str, Any]) -> Any:
        """Make the request of the fields that were given or have a default.

        A ValidationError says that the fields don't fit each other.
        """
        return data

    def load_document(self, document: object) -> Any:
        """Build the request, or raise InvalidBody with the first thing that is wrong."""
        if not isinstance(document, dict):
            raise InvalidBody("invalid request body: must be a JSON object")
        given = {name.lower(): value for name, value in document.items() if value is not None}
        data: dict[str, Any] = {}
        for name, field in self.load_fields.items():
            key = field.data_key or name
            value = given.get(key.lower(), missing)
            if value is missing and not field.required and field.load_default is missing:
                continue
            try:
                data[name] = field.deserialize(value)
            except ValidationError as exc:
                raise _invalid({key: exc.messages}) from exc
        try:
            return self.build(data)
        except ValidationError as exc:
            raise _invalid(exc.messages) from exc


async def load(request: web.Request, schema: BodySchema) -> Any:
    """Read the body of a request and build what `schema` makes of it.

    Raises:
        InvalidBody: the body is encoded, is not JSON, doesn't fit, or stopped coming.
        TooLarge: it is longer than `server.max_body_bytes`.
        ConnectionError: the client has gone.
    """
    if (request.content_length or 0) > request.client_max_size:
        raise TooLarge("request body is too large")
    if request.headers.get(hdrs.CONTENT_ENCODING, "").lower() not in ("", "identity"):
        raise InvalidBody("invalid request body: no Content-Encoding is supported")
    if request.pop(AWAITS_CONTINUE, False):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the reply itself, nothing was sent
    try:
        raw = await _read(request)
    except web.RequestPayloadError as exc:
        raise InvalidBody("invalid request body: can't be decoded") from exc
    return schema.load_document(parse(raw, request.app[MAX_VALUES]))


async def _read(request: web.Request) -> bytes:
    body = bytearray()
    while True:
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        try:
            piece = await within(request.app[SILENCE_S], request.content.readany)
        except TimeoutError as exc:
            raise InvalidBody("invalid request body: it has stopped coming") from exc
        if not piece:
            return bytes(body)
        body += piece
        if len(body) > request.client_max_size:
            raise TooLarge("request body is too large")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidBody(f"invalid request body: {name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise InvalidBody("invalid request body: a number has too many digits")
    return int(digits)


DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_constant=_refuse_constant)


def parse(raw: bytes, max_values: int) -> object:
    """Parse the first JSON value of `raw`.

    Raises:
        InvalidBody: there is none, or more than `max_values` values, which would block the loop.
    """
    raw = raw.removeprefix(BOM_UTF8).lstrip(b" \t\r\n")
    if not raw:
        raise InvalidBody("invalid request body: empty")
    if _count_values(raw) > max_values and _count_values(STRING.sub(b"", raw)) > max_values:
        raise InvalidBody(f"invalid request body: more than {max_values} values")
    text = raw.decode("utf-8", "replace")
    try:
        value: object
        value, _ = DECODER.raw_decode(text)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise InvalidBody(f"invalid request body: {exc}") from exc
    return value


def _count_values(raw: bytes) -> int:
    """How many values JSON without strings contains, at most."""
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def number(query: Mapping[str, str], name: str) -> int | None:
    """The query parameter `name`, a whole number, or None; raises BadRequest for anything else."""
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise BadRequest(f"query param '{name}' must be a whole number, 0 or more")
    return int(text)


def flag(query: Mapping[str, str], name: str) -> bool:
    """The query parameter `name`, `true` or else `false`; raises BadRequest for anything else."""
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise BadRequest(f"query param '{name}' must be true or false")
    return text == "true"


def _invalid(messages: Any, path: str = "") -> InvalidBody:
    """The first message of marshmallow's tree, with the path to it."""
    if isinstance(messages, dict):
        key, inner = next(iter(messages.items()))
        return _invalid(inner, path if key in ("key", "value") else f"{path}.{key}".lstrip("."))
    message = str(messages[0] if isinstance(messages, list) else messages)
    message = message[:1].lower() + message[1:].rstrip(".")
    where = f"{path}: " if path and path != "_schema" else ""
    return InvalidBody(f"invalid request body: {where}{message}")
