"""Finds an event in its envelope, by the setting `envelope` and the rules in docs/messages.md. Uses no code of the worker."""

from __future__ import annotations

from typing import Any, NamedTuple

LONGEST_ID = 256
ENVELOPES = ("none", "connect", "debezium", "cloudevents")


class Found(NamedTuple):
    """Where an event was found.

    Attributes:
        path: Names from the whole value to the event; empty if it has no envelope.
        id: The id that the envelope gives the event.
    """

    path: tuple[str, ...] = ()
    id: str = ""


def find(body: Any, envelope: str) -> Found | str:
    """Return where the event of a parsed value lies, or why there is none."""
    if not isinstance(body, dict):
        return Found()
    if envelope == "cloudevents" and "specversion" in body:
        if "data" not in body:
            return "a CloudEvent without data"
        return Found(("data",), _identity(body))
    path: tuple[str, ...] = ()
    if envelope in ("connect", "debezium") and "schema" in body and "payload" in body:
        path, body = ("payload",), body["payload"]
    if (
        envelope == "debezium"
        and isinstance(body, dict)
        and "op" in body
        and body.keys() & {"before", "after", "source"}
    ):
        if body["op"] == "d" or body.get("after") is None:
            return "the row was deleted"
        return Found((*path, "after"))
    return Found(path)


def _identity(body: dict[str, Any]) -> str:
    source, own = body.get("source"), body.get("id")
    if not (isinstance(source, str) and isinstance(own, str) and source and own):
        return ""
    named = f"{source} {own}"
    return named if len(named) <= LONGEST_ID else ""


def event_at(body: Any, path: tuple[str, ...]) -> Any:
    """Return what lies at a path from `find`."""
    for name in path:
        body = body[name]
    return body


def replaced(body: Any, path: tuple[str, ...], event: Any) -> Any:
    """Return a copy of the value with another event at the path."""
    if not path:
        return event
    return {**body, path[0]: replaced(body[path[0]], path[1:], event)}
