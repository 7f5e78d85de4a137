"""Errors of the API, as problem details (RFC 9457): every answer that is not a success is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from stream.core.errors import RecordError

MEDIA: Final = "application/problem+json"

KINDS: Final = {
    "bad-request": (400, "The request is malformed"),
    "invalid": (400, "A field of the request is not acceptable"),
    "unauthorized": (401, "A valid bearer token is required"),
    "forbidden": (403, "The request is not allowed"),
    "not-found": (404, "There is no such resource"),
    "method-not-allowed": (405, "The resource does not have this method"),
    "timeout": (408, "The request did not arrive in time"),
    "too-large": (413, "The request is too large"),
    "address-too-long": (414, "The address is too long"),
    "media-type": (415, "The body has another media type"),
    "misdirected": (421, "This server does not answer for that host or partition"),
    "not-accepted": (422, "An event, item or rule is not acceptable"),
    "rate": (429, "Too many requests"),
    "headers-too-large": (431, "The headers are too large"),
    "internal": (500, "An error of this server"),
    "not-ready": (503, "This server is not ready yet"),
    "late": (503, "What was asked for could not be had in time"),
    "broker": (503, "Kafka did not acknowledge in time"),
    "overloaded": (503, "This server has too much to do"),
}
"""Last part of the type -> status and title."""

TYPE: Final = "urn:freshet:problem:"


class Problem(Struct, frozen=True, omit_defaults=True):
    """Problem details (RFC 9457)."""

    type: Annotated[str, Meta(description="urn:freshet:problem: and what went wrong")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: Annotated[str, Meta(description="what was found, what was expected, and what to do")]
    field: (
        Annotated[
            str,
            Meta(
                description="the field that is not acceptable: a name in the query, path or body; body: the whole item or rule"
            ),
        ]
        | UnsetType
    ) = UNSET
    reason: (
        Annotated[str, Meta(description="for an event, item or rule: why, in one word (dead-letters.md, rules.md)")]
        | UnsetType
    ) = UNSET
    applied: (
        Annotated[dict[str, int], Meta(description='how far it is: "topic/partition" -> last applied offset')]
        | UnsetType
    ) = UNSET
    missing: Annotated[list[str], Meta(description="what the server still waits for")] | UnsetType = UNSET


class ProblemError(Exception):
    """Ends a request with a problem.

    Args:
        kind: One of KINDS.
        detail: What was found, what was expected, and what to do.
        headers: More headers of the answer.
        more: More fields of Problem.
    """

    def __init__(self, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.problem = problem(kind, detail, **more)
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, found: Problem) -> ProblemError:
        """Return the error for a problem that is known already."""
        error = cls(found.type.removeprefix(TYPE), found.detail)
        error.problem = found
        return error


def problem(kind: str, detail: str, **more: Any) -> Problem:
    """Return problem details of one of KINDS."""
    status, title = KINDS[kind]
    return Problem(TYPE + kind, title, status, detail, **more)


def of_record(error: RecordError) -> Problem:
    """Return the problem for an event or item that would become a dead letter."""
    return problem("not-accepted", str(error), field=error.field or UNSET, reason=error.reason)


def encode(found: Problem) -> bytes:
    return msgspec.json.encode(found)
