"""Request bodies and queries: from JSON to the dataclass that a schema makes.

The rules are those of the contract, section 1.1: any content type; the first JSON value counts and
what follows is ignored; field names match in any case; unknown fields are ignored; null is absent;
types are exact.
"""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from aiohttp import hdrs, web
from marshmallow import EXCLUDE, Schema, ValidationError, fields, missing, validate

from procd.errors import BadRequest, InvalidBody, TooLarge
from procd.suspend import within

MAX_DIGITS: Final = 18
# Of an integer in a document; to make one takes their square.
MAX_INTEGER_DIGITS: Final = 500
MAX_UINT16: Final = (1 << 16) - 1
MAX_UINT32: Final = (1 << 32) - 1
IDENTITY: Final = "identity"  # Content-Encoding: none
HAS_NUL: Final = "must not contain a NUL character"
HAS_SURROGATES: Final = "must not contain lone surrogates"
# What may stand before the first value: in bytes it is found faster than in a text.
NO_VALUE: Final = re.compile(rb"(?:%b)?[ \t\r\n]*+" % BOM_UTF8)
# What the structure of JSON is told by.
MARK: Final = re.compile(rb'[",\[\]{}]')
# From after its first quote; possessive: nothing is gone back over.
STRING: Final = re.compile(rb'(?>[^"\\]++|\\.)*+"', re.DOTALL)

# How long a body may keep silent in its middle, seconds.
SILENCE_S = web.AppKey("SILENCE_S", float)
# How many values a document may have.
MAX_VALUES = web.AppKey("MAX_VALUES", int)


class Text(fields.String):
    """A string that can be an argument, a path or a variable: Unicode, and without NUL."""

    allows_nul = False

    def deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        """As any field does; what is a string, as most are, is judged without further ado."""
        if type(value) is not str:
            return super().deserialize(value, *args, **kwargs)
        if "\0" in value and not self.allows_nul:
            raise ValidationError(HAS_NUL)
        if not _is_unicode(value):
            raise ValidationError(HAS_SURROGATES)
        for validator in self.validators:
            validator(value)
        return value


class Element(Text):
    """A string in a list or a map, where null is the empty string. Source: Go's encoding/json."""

    def deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        """As any field does."""
        return super().deserialize("" if value is None else value, *args, **kwargs)


class AnyText(Text):
    """A string that may hold anything but lone surrogates.

    A script, which is a file; a program, which its interpreter judges; an id, where
    `procd.services.ids` says what else may not be in it, and so for NUL as well.
    """

    allows_nul = True


class Flag(fields.Boolean):
    """Exactly true or false."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value


class Count(fields.Integer):
    """An unsigned integer of limited size, written as one."""

    def __init__(self, largest: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.largest = largest

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if type(value) is not int or not 0 <= value <= self.largest:
            raise ValidationError(f"must be an integer from 0 to {self.largest}")
        return value


def strings(*, nulls: bool = True, **kwargs: Any) -> fields.Dict:
    """A field that maps strings to strings, or with `nulls` to null for the empty one."""
    return fields.Dict(keys=Text(), values=Element() if nulls else Text(), **kwargs)


def non_empty() -> validate.Length:
    """Refuse the empty string."""
    return validate.Length(min=1, error="must not be empty")


class BodySchema(Schema):
    """A schema that takes field names in any case and ignores what it doesn't know.

    It is declared, and its fields judge, as marshmallow has it. They are gone through here, since
    what else `Schema.load` can do takes longer than the fields themselves, with every request.
    """

    class Meta:
        unknown = EXCLUDE

    def __init__(self) -> None:
        super().__init__()
        self._plan = [
            (
                (field.data_key or name).lower(),
                field.data_key or name,
                name,
                field,
                field.required or field.load_default is not missing,
            )
            for name, field in self.load_fields.items()
        ]

    def build(self, data: dict[str, Any]) -> Any:
        """What the document is to the program; `data` has all that was given or has a default.

        Raises:
            ValidationError: its parts don't fit each other.
        """
        return data

    def load_document(self, document: object) -> Any:
        """Validate a parsed document and build what it stands for.

        Raises:
            InvalidBody: with the first thing that is wrong.
        """
        if not isinstance(document, dict):
            raise InvalidBody("invalid request body: must be a JSON object")
        given = {name.lower(): value for name, value in document.items() if value is not None}
        data: dict[str, Any] = {}
        for lowered, key, name, field, wanted in self._plan:
            if not wanted and lowered not in given:
                continue
            try:
                data[name] = field.deserialize(given.get(lowered, missing))
            except ValidationError as exc:
                raise _refusal({key: exc.messages}) from exc
        try:
            return self.build(data)
        except ValidationError as exc:
            raise _refusal(exc.messages) from exc


def _refusal(messages: Any) -> InvalidBody:
    return InvalidBody(f"invalid request body: {_first(messages)}")


async def load(request: web.Request, schema: BodySchema) -> Any:
    """The request's body as the dataclass of `schema`.

    Raises:
        InvalidBody: it is encoded, is not JSON, doesn't fit, or has stopped coming.
        TooLarge: it is above the server's limit.
        ConnectionError: the client has gone.
    """
    content = request.content
    if max(request.content_length or 0, content.total_bytes) > request.client_max_size:
        raise TooLarge("request body is too large")
    if (request.headers.get(hdrs.CONTENT_ENCODING) or IDENTITY).lower() != IDENTITY:
        raise InvalidBody("invalid request body: no Content-Encoding is supported")
    try:
        # Most often all of it came with the headers.
        raw = content.read_nowait() if content.is_eof() else await _read(request)
    except web.RequestPayloadError as exc:
        raise InvalidBody("invalid request body: can't be decoded") from exc
    return schema.load_document(parse(raw, request.app[MAX_VALUES]))


async def _read(request: web.Request) -> bytes:
    """The body of a request; one that has stopped coming would keep its connection for ever."""
    silence_s = request.app[SILENCE_S]
    body = bytearray()
    while True:
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        try:
            piece = await within(silence_s, request.content.readany)
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
    """The first JSON value of `raw`.

    Raises:
        InvalidBody: there is none, or it has too many values. Making them takes the event loop's
            time, up to a thousand times as much as a text of the same length.
    """
    raw = raw[NO_VALUE.match(raw).end() :]  # type: ignore[union-attr]  # it matches anything
    if not raw:
        raise InvalidBody("invalid request body: empty")
    if len(raw) > max_values and _has_more_values(raw, max_values):
        raise InvalidBody(f"invalid request body: more than {max_values} values")
    text = raw.decode("utf-8", "replace")
    try:
        value: object
        value, _ = DECODER.raw_decode(text)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise InvalidBody(f"invalid request body: {exc}") from exc
    return value


def number(query: Mapping[str, str], name: str) -> int | None:
    """The query parameter `name`, a whole number, or None.

    Raises:
        BadRequest: it is something else.
    """
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise BadRequest(f"query param '{name}' must be a whole number, 0 or more")
    return int(text)


def flag(query: Mapping[str, str], name: str) -> bool:
    """Whether the query parameter `name` is `true`; it is absent or `false` otherwise.

    Raises:
        BadRequest: it is something else.
    """
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise BadRequest(f"query param '{name}' must be true or false")
    return text == "true"


def _has_more_values(raw: bytes, most: int) -> bool:
    """Whether the first JSON value holds more than so many, without building them."""
    if sum(map(raw.count, (b",", b"[", b"{"))) <= most:
        return False
    depth = values = position = 0
    for _ in range(5 * most):  # each has four marks at the most, or it is no JSON
        mark = MARK.search(raw, position)
        if mark is None:
            return False
        position = mark.end()
        match mark[0]:
            case b'"':
                position = _end_of_string(raw, position)
            case b",":
                values += 1
            case b"[" | b"{":
                values += 1
                depth += 1
            case _:
                depth -= 1
        if values > most:
            return True
        if depth <= 0:  # what follows is ignored
            return False
    return False


def _end_of_string(raw: bytes, begin: int) -> int:
    quote = raw.find(b'"', begin)
    if raw[quote - 1 : quote] == b"\\":  # most often it isn't
        string = STRING.match(raw, begin)
        return len(raw) if string is None else string.end()
    return len(raw) if quote < 0 else quote + 1


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(messages: Any, path: str = "") -> str:
    """The first message of marshmallow's tree, with the path to it."""
    if isinstance(messages, dict):
        key, inner = next(iter(messages.items()))
        return _first(inner, path if key in ("key", "value") else f"{path}.{key}".lstrip("."))
    message = str(messages[0] if isinstance(messages, list) else messages)
    message = message[:1].lower() + message[1:].rstrip(".")
    return f"{path}: {message}" if path and path != "_schema" else message
