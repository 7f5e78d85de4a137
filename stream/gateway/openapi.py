"""The OpenAPI 3.1 document, written from the routes and their structs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from stream.core.explanations import ExplainedItem
from stream.core.filters import (
    ALL,
    ANY,
    AVAILABLE,
    CATEGORY,
    COMPARISONS,
    EQUAL,
    IN,
    ITEM,
    MAX_CONDITIONS,
    MAX_NUMBER,
    MAX_VALUES,
    NOT,
    SCENE,
)
from stream.core.messages import BEHAVIOURS, MAX_ID, MAX_NAME, Click, Comment, Id, Rating, User
from stream.gateway import demo_page
from stream.gateway.messages import MOST_EVENTS, Ranked, Slate
from stream.gateway.problems import KINDS, MEDIA, TYPE, Problem
from stream.gateway.routing import JSON, NDJSON, Route

REFERENCE: Final = "#/components/schemas/{name}"
ALWAYS: Final = (
    "bad-request", "invalid", "misdirected", "forbidden", "timeout", "too-large", "address-too-long", "headers-too-large",
    "internal",
)  # fmt: skip
PROTECTED: Final = ("unauthorized", "rate", "late", "overloaded")
EVENT_TYPES: Final = dict(zip(BEHAVIOURS, (Click, Rating, Comment), strict=True))
EXPLAINED: Final = (Slate, Ranked)
"""Their items may have explanations."""
PATH: Final = {"user": User, "item": Id, "rule": Id, "file": demo_page.File}


def document(routes: Sequence[Route], version: str, *, tokens: bool) -> dict[str, Any]:
    """Return the document. `tokens`: whether requests need one."""
    routes = [route for route in routes if route.documented]
    structs: set[Any] = {Problem, ExplainedItem, *EVENT_TYPES.values()}
    for route in routes:
        structs |= {one for one, _ in route.answers.values() if isinstance(one, type)}
        structs |= {one for one in (route.body, route.raw) if one is not None}
    _, components = msgspec.json.schema_components(structs, ref_template=REFERENCE)
    for name, kind in EVENT_TYPES.items():
        components[f"{name.capitalize()}Event"] = _event(components[kind.__name__], name)
        del components[kind.__name__]
    for kind in EXPLAINED:
        if kind.__name__ in components:
            components[kind.__name__]["properties"]["items"]["items"] = {"$ref": REFERENCE.format(name="ExplainedItem")}
    components["Filter"] = filter_schema()
    components["Event"] = {
        "oneOf": [{"$ref": REFERENCE.format(name=f"{name.capitalize()}Event")} for name in EVENT_TYPES],
        "discriminator": {
            "propertyName": "type",
            "mapping": {name: REFERENCE.format(name=f"{name.capitalize()}Event") for name in EVENT_TYPES},
        },
    }
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, tokens)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "freshet",
            "version": version,
            "description": "Recommendations from live user states. docs/api.md explains the freshness contract.",
        },
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }
    if tokens:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    whole: dict[str, Any] = _without_booleans(found)
    return whole


def _without_booleans(schema: Any) -> Any:
    """Return a schema without `"items": false`: `maxItems` beside it says the same, and some programs read objects only."""
    if isinstance(schema, dict):
        bounded = len(schema.get("prefixItems", ())) == schema.get("maxItems")
        return {
            name: _without_booleans(one)
            for name, one in schema.items()
            if not (name == "items" and one is False and bounded)
        }
    return [_without_booleans(one) for one in schema] if isinstance(schema, list) else schema


def _event(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the schema of an event that says its type."""
    properties = {"type": {"const": name, "description": "which event it is"}, **schema["properties"]}
    return {
        **schema, "title": f"{name.capitalize()}Event", "properties": properties, "required": ["type", *schema["required"]],
    }  # fmt: skip


def _operation(route: Route, tokens: bool) -> dict[str, Any]:
    kinds = [*ALWAYS, *route.problems]
    if route.scope:
        kinds += [kind for kind in PROTECTED if tokens or kind != "unauthorized"]
    found: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{_camel(route.path)}",
        "parameters": [*_path(route.path), *_query(route.query)],
        "responses": {**_answers(route), **_problems(kinds, route)},
    }
    if route.scope:
        found["description"] = f"Scope of the token: {route.scope}."
        if tokens:
            found["security"] = [{"token": []}]
    if body := _body(route):
        found["requestBody"] = body
    return found


def _camel(path: str) -> str:
    parts = [part.strip("{}") for part in path.replace(".", "/").split("/") if part and part != "v1"]
    return "".join(part.capitalize() for part in parts)


def _path(path: str) -> Iterable[dict[str, Any]]:
    for part in path.split("/"):
        if part.startswith("{"):
            name = part[1:-1]
            yield {"name": name, "in": "path", "required": True, "schema": msgspec.json.schema(PATH[name])}


def _query(kind: type[Struct]) -> Iterable[dict[str, Any]]:
    _, components = msgspec.json.schema_components([kind], ref_template=REFERENCE)
    for name, one in components[kind.__name__]["properties"].items():
        options = [each for each in one.get("anyOf", [one]) if each != {"type": "null"}]
        shown = {key: value for key, value in options[0].items() if key != "default"}
        found = {"name": name, "in": "query", "required": False, "schema": shown}
        if description := shown.pop("description", one.get("description")):
            found["description"] = description
        if "$ref" in shown:  # JSON in an address
            del found["schema"]
            found["content"] = {JSON: {"schema": {"$ref": shown["$ref"]}}}
        yield found


def filter_schema() -> dict[str, Any]:
    """Return the schema of a filter (stream.core.filters). It does not say how deep and how long filters may be."""
    name = {"type": "string", "minLength": 1, "maxLength": MAX_ID}
    names = {"anyOf": [name, {"type": "array", "items": name, "minItems": 1, "maxItems": MAX_VALUES}]}
    number = {"type": "number", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER}
    value = {"anyOf": [{"type": "string", "maxLength": MAX_ID}, number]}
    bound = {"anyOf": [{"type": "string", "maxLength": 40}, number]}
    tests = {
        EQUAL: value,
        IN: {"type": "array", "items": value, "minItems": 1, "maxItems": MAX_VALUES},
        **dict.fromkeys(COMPARISONS, bound),
    }
    several = {
        "type": "array",
        "items": {"$ref": REFERENCE.format(name="Filter")},
        "minItems": 1,
        "maxItems": MAX_CONDITIONS,
    }
    return {
        "title": "Filter",
        "description": "Which items: each member is a condition, and all of them must hold (docs/rules.md).",
        "type": "object",
        "minProperties": 1,
        "properties": {
            ALL: several, ANY: several, NOT: {"$ref": REFERENCE.format(name="Filter")}, ITEM: names, CATEGORY: names,
            SCENE: names, AVAILABLE: {"type": "boolean"},
        },
        "propertyNames": {"minLength": 1, "maxLength": MAX_NAME},
        "additionalProperties": {
            "anyOf": [
                *value["anyOf"],
                {"type": "object", "properties": tests, "minProperties": 1, "additionalProperties": False},
            ],
        },
    }  # fmt: skip


def _body(route: Route) -> dict[str, Any] | None:
    if route.body is not None:
        return {"required": True, "content": {JSON: {"schema": {"$ref": REFERENCE.format(name=route.body.__name__)}}}}
    if NDJSON in route.media:
        event = {"$ref": REFERENCE.format(name="Event")}
        many = {"type": "array", "items": event, "minItems": 1, "maxItems": MOST_EVENTS}
        lines = {"type": "string", "description": "one event a line"}
        return {
            "required": True, "content": {JSON: {"schema": {"anyOf": [event, many]}}, NDJSON: {"schema": lines}},
        }  # fmt: skip
    if route.raw is not None:
        return {"required": True, "content": {JSON: {"schema": {"$ref": REFERENCE.format(name=route.raw.__name__)}}}}
    return None


def _answers(route: Route) -> dict[str, Any]:
    found = {}
    for status, (kind, description) in route.answers.items():
        if isinstance(kind, str):
            content: dict[str, Any] = {kind: {"schema": {"type": "object" if kind == JSON else "string"}}}
        else:
            content = {JSON: {"schema": {"$ref": REFERENCE.format(name=kind.__name__)}}}
        found[str(status)] = {"description": description, "content": content}
    return found


def _problems(kinds: Iterable[str], route: Route) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for kind in dict.fromkeys(kinds):
        by_status.setdefault(KINDS[kind][0], []).append(kind)
    found = {}
    for status, names in sorted(by_status.items()):
        if status in route.answers:
            continue
        found[str(status)] = {
            "description": "; ".join(f"{KINDS[name][1]} (`{TYPE}{name}`)" for name in names),
            "content": {MEDIA: {"schema": {"$ref": REFERENCE.format(name="Problem")}}},
        }
    return found
