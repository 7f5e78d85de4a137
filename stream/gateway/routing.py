"""Routes: paths to handlers, and parameters and bodies as msgspec structs. Pure.

Paths are matched before their percent signs are decoded, so an id may hold a slash, and each part must then be UTF-8:
one that is decoded with replacement characters would be another user. A parameter that is unknown, repeated or empty is
refused, and not ignored.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
import msgspec.inspect as inspect
from msgspec import UNSET, Struct

from stream.core.errors import RecordError
from stream.core.json_body import nesting, text_of
from stream.core.messages import MAX_DEPTH
from stream.core.refusals import expected, fields_of, found, malformed
from stream.core.repeated_names import repeated_name
from stream.core.validation import USER
from stream.gateway.messages import NoQuery
from stream.gateway.problems import ProblemError

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

_BOOLEANS: Final = {"true": True, "false": False}
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"-?([0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,3})?")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_WHERE: Final = re.compile(r" - at `\$\.?([^`]*)`")
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")
_MISSING: Final = re.compile(r"required field `([^`]*)`")
_TYPES: Final = re.compile(r"`([^`]*)`")
_GOT: Final = re.compile(r", got `[^`]*`")
_NAMES: Final = {
    "int": "a whole number", "str": "a text", "float": "a number", "bool": "true or false", "array": "a list",
    "object": "an object",
}  # fmt: skip
_PATTERN: Final = "matching regex"
_OF_ENUM: Final = "Invalid enum value"
_RANGE: Final = "out of range"
_STEP: Final = re.compile(r"(\w+)|\[(\d+)\]")


@dataclass(frozen=True)
class Answer:
    """What a handler answers: a struct, or bytes of a media type."""

    body: Struct | bytes = b""
    status: int = 200
    media: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One request, as its handler sees it.

    Attributes:
        path: Parameters of the path.
        query: The route's query struct.
        body: The route's body struct; None if it has none.
        raw: The body as received.
        media: The body's media type.
    """

    path: dict[str, str]
    query: Any
    body: Any = None
    raw: bytes = b""
    media: str = ""


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True)
class Route:
    """One method of one path.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: With parameters in braces.
        handler: Answers the request.
        scope: The scope that a token needs; "" for none.
        summary: One sentence.
        answers: Status -> (struct or media type, description).
        query: The parameters.
        body: The body; None if it has none, or the handler reads it itself.
        raw: What the body is if the handler reads it itself; None for events.
        media: Media types of the body.
        problems: Which problems it may answer besides those of all routes (stream.gateway.problems.KINDS).
        streams: Whether the handler returns an asynchronous iterator of bytes, server-sent events.
        open: Whether it answers before the server is ready.
        unlimited: Whether it answers beyond the limits on rates and connections: health and metrics.
        documented: Whether the OpenAPI document lists it. False for what only browsers ask for.
    """

    method: str
    path: str
    handler: Handler
    scope: str
    summary: str
    answers: Mapping[int, tuple[Any, str]]
    query: type[Struct] = NoQuery
    body: type[Struct] | None = None
    raw: type[Struct] | None = None
    media: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    streams: bool = False
    open: bool = False
    unlimited: bool = False
    documented: bool = True


class Parameters:
    """Reads a query string into a struct."""

    def __init__(self, kind: type[Struct]) -> None:
        self._kind = kind
        self._lists, self._integers, self._objects, self._numbers, self._booleans = set(), set(), set(), set(), set()
        for one in inspect.type_info(kind).fields:  # type: ignore[attr-defined]
            types = _types(one.type)
            if any(isinstance(each, (inspect.VarTupleType, inspect.ListType)) for each in types):
                self._lists.add(one.encode_name)
            if any(isinstance(each, inspect.IntType) for each in types):
                self._integers.add(one.encode_name)
            if any(isinstance(each, inspect.DictType) for each in types):
                self._objects.add(one.encode_name)
            if any(isinstance(each, inspect.FloatType) for each in types):
                self._numbers.add(one.encode_name)
            if any(isinstance(each, inspect.BoolType) for each in types):
                self._booleans.add(one.encode_name)
        self._names = {one.encode_name for one in inspect.type_info(kind).fields}  # type: ignore[attr-defined]
        self._empty = kind()

    def read(self, query: bytes) -> Struct:
        """Return the parameters. Raises ProblemError."""
        if not query:
            return self._empty
        values: dict[str, Any] = {}
        for pair in query.split(b"&"):
            if not pair:
                continue
            raw, _, after = pair.partition(b"=")
            name = text(raw.replace(b"+", b" "), "the query")
            if name not in self._names:
                known = ", ".join(sorted(self._names)) or "none"
                raise ProblemError(
                    "invalid", f"there is no parameter {name[:60]!r}; expected {known}", field=name[:60] or UNSET
                )
            value: Any = text(after.replace(b"+", b" "), name)
            if name in self._integers:
                if not _INTEGER.fullmatch(value):
                    wanted = expected(self._kind, name).removesuffix(" or null")
                    raise ProblemError("invalid", f"found {value[:60]!r}, expected {wanted}", field=name)
                value = int(value)
            if name in self._booleans:
                if value not in _BOOLEANS:
                    raise ProblemError("invalid", f"found {value[:60]!r}, expected true or false", field=name)
                value = _BOOLEANS[value]
            if name in self._objects:
                value = _object(value, name)
            elif name in self._numbers:
                if not _NUMBER.fullmatch(value):
                    raise ProblemError("invalid", f"found {value[:60]!r}, expected a number", field=name)
                value = float(value)
            if name in self._lists:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise ProblemError("invalid", "found it more than once, expected it once", field=name)
            else:
                values[name] = value
        try:
            return msgspec.convert(values, self._kind)
        except msgspec.ValidationError as error:
            raise refused(error, values, self._kind) from None


class Body:
    """Reads a JSON body into a struct."""

    def __init__(self, kind: type[Struct]) -> None:
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind)

    def read(self, raw: bytes) -> Struct:
        """Return the body. Raises ProblemError."""
        try:
            document = text_of(raw)
        except RecordError as error:
            raise ProblemError("bad-request", f"the body: {error}") from None
        try:
            message = self._decoder.decode(document)
        except msgspec.ValidationError as error:
            plain = _plain(document)
            try:
                message = msgspec.convert(plain, self._kind)
            except msgspec.ValidationError as second:
                raise refused(error if plain is UNSET else second, plain, self._kind) from None
        except msgspec.DecodeError as error:
            raise ProblemError("bad-request", f"the body: {malformed(document, str(error))}") from None
        if name := repeated_name(document):
            raise ProblemError("invalid", "found it more than once, expected it once", field=name[:200])
        return message


def _object(value: str, name: str) -> Any:
    """Return a parameter in JSON. Raises ProblemError."""
    try:
        if value.count("[") + value.count("{") > MAX_DEPTH and nesting(value) > MAX_DEPTH:
            raise ProblemError("invalid", f"found more than {MAX_DEPTH} nested lists and objects", field=name)
        decoded = msgspec.json.decode(value)
    except msgspec.MsgspecError:
        raise ProblemError("invalid", f"found {value[:60]!r}, expected JSON", field=name) from None
    if repeated := repeated_name(value):
        raise ProblemError("invalid", f"it has {repeated} more than once", field=name)
    return decoded


def _plain(document: str) -> Any:
    """Return a JSON text as Python has it; UNSET if it holds a number that no type can hold."""
    try:
        return whole(msgspec.json.decode(document))
    except msgspec.MsgspecError:
        return UNSET


def whole(value: Any) -> Any:
    """Return JSON with whole floats as integers: JSON Schema counts 3.0 as one, msgspec does not."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [whole(one) for one in value]
    return value


def refused(error: msgspec.ValidationError, document: Any, kind: type[Struct] | None = None) -> ProblemError:
    """Return the problem for what a struct refuses, with the field, what was found and what was expected.

    Args:
        error: msgspec's error.
        document: What was read; UNSET if it cannot be shown.
        kind: The struct, for the words that a field allows.
    """
    message = str(error)
    path = _WHERE.search(message)
    where = path[1] if path else ""
    wording = _WHERE.sub("", message)
    if unknown := _UNKNOWN.search(message):
        name = f"{where}.{unknown[1]}" if where else unknown[1]
        known = fields_of(kind, where) if kind is not None else []
        listed = f"; expected one of {', '.join(known)}" if known else ""
        return ProblemError("invalid", f"there is no field {unknown[1][:60]!r}{listed}", field=name[:200])
    if missing := _MISSING.search(message):
        name = f"{where}.{missing[1]}" if where else missing[1]
        return ProblemError("invalid", "it is missing", field=name[:200])
    if not where:
        return ProblemError("invalid", f"the body: {_lower(wording)}")
    value = _at(document, where)
    shown = f"found {found(value)}, " if value is not UNSET else ""
    if _PATTERN in message:
        wording = f"expected {USER}"  # the only field with a pattern
    elif message.startswith(_OF_ENUM):
        wording = f"expected {_words_at(kind, where)}"
    elif _RANGE in message:
        wording = "the number is out of range"
    else:
        wording = _lower(wording)
    return ProblemError("invalid", f"{shown}{wording}", field=where[:200])


def _lower(message: str) -> str:
    """Return msgspec's message in words: Expected `int | null`, got `str` -> expected a whole number."""
    wording = _GOT.sub("", message)
    wording = _TYPES.sub(
        lambda types: " or ".join(_NAMES.get(one, one) for one in types[1].split(" | ") if one != "null"), wording
    )
    return wording[:1].lower() + wording[1:]


def _at(document: Any, where: str) -> Any:
    for name, number in _STEP.findall(where):
        try:
            document = document[int(number)] if number else document[name]
        except (KeyError, IndexError, TypeError):
            return UNSET
    return document


def _words_at(kind: type[Struct] | None, where: str) -> str:
    """Return the words that a field allows."""
    types = _types(inspect.type_info(kind)) if kind is not None else ()
    for name, number in _STEP.findall(where):
        inner: list[inspect.Type] = []
        for one in types:
            if number and isinstance(one, (inspect.VarTupleType, inspect.ListType)):
                inner.append(one.item_type)
            if name and isinstance(one, inspect.StructType):
                inner += [each.type for each in one.fields if each.encode_name == name]
        types = tuple(each for one in inner for each in _types(one))
    words = [str(word) for one in types if isinstance(one, inspect.LiteralType) for word in one.values]
    return f"one of {', '.join(words)}" if words else "another word; see /openapi.json"


def text(raw: bytes, name: str) -> str:
    """Return a percent-encoded part of an address as text. Raises ProblemError if it is not UTF-8."""
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise ProblemError("bad-request", f"{name}: found % without two hex digits after it", field=name)
        raw = unquote_to_bytes(raw)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ProblemError("bad-request", f"{name}: expected UTF-8", field=name) from None


def _types(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """Return the types of a union, without their metadata."""
    if isinstance(kind, inspect.Metadata):
        return _types(kind.type)
    if isinstance(kind, inspect.UnionType):
        return tuple(one for each in kind.types for one in _types(each))
    return (kind,)


@dataclass(slots=True)
class _Node:
    parts: dict[bytes, _Node] = field(default_factory=dict)
    parameter: tuple[str, _Node] | None = None
    routes: dict[str, Prepared] = field(default_factory=dict)
    path: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A route with what reads its parameters and body."""

    route: Route
    parameters: Parameters
    body: Body | None


NO_PATH: Final = "there is no such path; see /openapi.json. A slash in an id is written %2F"


class Router:
    """Finds routes. Static parts come before parameters."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        self._root = _Node()
        for route in routes:
            node = self._root
            for part in route.path.strip("/").split("/"):
                if part.startswith("{"):
                    if node.parameter is None:
                        node.parameter = part[1:-1], _Node()
                    node = node.parameter[1]
                else:
                    node = node.parts.setdefault(part.encode(), _Node())
            node.path = route.path
            node.routes[route.method] = Prepared(
                route, Parameters(route.query), Body(route.body) if route.body is not None else None
            )

    def find(self, method: str, path: bytes) -> tuple[Prepared, dict[str, str]]:
        """Return the route and the parameters of its path. Raises ProblemError: not-found, method-not-allowed."""
        node, parameters = self._root, {}
        for part in path[1:].split(b"/"):
            after = node.parts.get(part)
            if after is None:
                if node.parameter is None or not part:
                    raise ProblemError("not-found", NO_PATH)
                name, after = node.parameter
                parameters[name] = text(part, name)
            node = after
        if not node.routes:
            raise ProblemError("not-found", NO_PATH)
        found = node.routes.get("GET" if method == "HEAD" else method)
        if found is None:
            allowed = [*node.routes, *(("HEAD",) if "GET" in node.routes else ()), "OPTIONS"]
            raise ProblemError(
                "method-not-allowed", f"{node.path} has {', '.join(allowed)}", headers={"Allow": ", ".join(allowed)}
            )
        return found, parameters
