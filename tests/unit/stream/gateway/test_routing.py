"""Routes, parameters and bodies: what is accepted, and how a refusal names the field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stream.core.messages import User
from stream.gateway import openapi
from stream.gateway.messages import NoQuery, SessionQuery, Slate, SlateQuery, surplus
from stream.gateway.problems import KINDS, ProblemError, encode, problem
from stream.gateway.routing import Answer, Body, Call, Parameters, Route, Router, refused


async def handler(call: Call) -> Answer:
    return Answer()


def route(method: str, path: str) -> Route:
    return Route(method, path, handler, "", "Something.", {200: ("text/plain", "it")})


ROUTER = Router(
    (
        route("GET", "/v1/users/{user}"),
        route("GET", "/v1/users/{user}/recommendations"),
        route("POST", "/v1/users/{user}/recommendations"),
        route("GET", "/docs"),
    )
)


@pytest.mark.parametrize(
    ("path", "user"),
    [
        (b"/v1/users/ann", "ann"),
        (b"/v1/users/a%2Fb", "a/b"),
        (b"/v1/users/caf%C3%A9", "café"),
        (b"/v1/users/a+b", "a+b"),
        (b"/v1/users/%2e%2e", ".."),
    ],
)
def test_a_user_is_read_out_of_the_path_as_it_is(path: bytes, user: str) -> None:
    found, parameters = ROUTER.find("GET", path)
    assert (found.route.path, parameters) == ("/v1/users/{user}", {"user": user})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", b"/", 404),
        ("GET", b"/v1/users", 404),
        ("GET", b"/v1/users/", 404),
        ("GET", b"/v1/users/ann/", 404),
        ("GET", b"/v1//users/ann", 404),
        ("GET", b"/v1/users/../docs", 404),
        ("GET", b"/v1/users/%FF", 400),
        ("GET", b"/v1/users/%zz", 400),
        ("PUT", b"/v1/users/ann/recommendations", 405),
    ],
)
def test_other_paths_are_problems(method: str, path: bytes, status: int) -> None:
    with pytest.raises(ProblemError) as raised:
        ROUTER.find(method, path)
    assert raised.value.problem.status == status
    if status == 405:
        assert raised.value.headers["Allow"] == "GET, POST, HEAD, OPTIONS"
    if status == 400:
        assert raised.value.problem.field == "user"


def test_head_is_get() -> None:
    assert ROUTER.find("HEAD", b"/docs")[0].route.method == "GET"


SLATE = Parameters(SlateQuery)


def test_parameters() -> None:
    assert SLATE.read(b"") == SlateQuery()
    found = SLATE.read(b"n=5&exclude=a&exclude=b%26c&scene=a+b&min_offset=clicks/0:1")
    assert found == SlateQuery(5, "a b", ("a", "b&c"), "clicks/0:1")
    assert SLATE.read(b"explain=true") == SlateQuery(explain=True)
    assert SLATE.read(b"explain=false") == SlateQuery()
    assert SLATE.read(b"scene=null") == SlateQuery(scene="null")  # a text, and not nothing


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        (b"n=0", "n", "found 0 .a whole number., expected a whole number >= 1"),
        (b"n=101", "n", "<= 100"),
        (b"n=1.0", "n", "expected a whole number"),
        (b"n=1_0", "n", "expected a whole number"),
        (b"n=", "n", "expected a whole number"),
        (b"n=" + b"9" * 18, "n", "expected a whole number <= 100"),
        (b"n=" + b"9" * 19, "n", "found '9999999999999999999', expected a whole number, 1 to 100$"),
        (b"n=" + b"9" * 5000, "n", "expected a whole number, 1 to 100$"),
        (b"n=1&n=1", "n", "more than once"),
        (
            b"m=1",
            "m",
            "there is no parameter 'm'; expected diversity, exclude, explain, filter, min_offset, n, placement, scene",
        ),
        (b"explain=1", "explain", "found '1', expected true or false"),
        (b"explain=", "explain", "expected true or false"),
        (b"exclude=", "exclude[0]", "length >= 1"),
        (b"&".join([b"exclude=a"] * 101), "exclude", "length <= 100"),
        (b"scene=" + b"a" * 257, "scene", "length <= 256"),
        (b"scene=%ff", "scene", "UTF-8"),
        (b"scene=%", "scene", "two hex digits"),
    ],
)
def test_a_bad_parameter_is_named(query: bytes, field: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message) as raised:
        SLATE.read(query)
    assert (raised.value.problem.status, raised.value.problem.field) == (400, field)


def test_no_parameters() -> None:
    with pytest.raises(ProblemError, match="expected none"):
        Parameters(NoQuery).read(b"n=1")


SESSION = Body(SessionQuery)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b"", None, "the value is empty"),
        (b"\xff", None, "not UTF-8 at byte 0"),
        (b"[" * 40 + b"]" * 40, None, "more than 32 nested"),
        (b"{", None, "the body: the JSON ends before it is complete"),
        (b"  \n ", None, "the body: the value is blank"),
        (b'{"events":[],"scene":"\\ud800\\n"}', None, "half of a pair of surrogates"),
        (b'{"events":[],"n":1,"n":2}', "n", "more than once"),
        (b'{"events":[],"\\u006e":1,"n":null}', "n", "more than once"),
        (b'{"events":[],"exclude":["K-02"],"exclude":[]}', "exclude", "more than once"),
        (b'{"events":[{"type":"click","item":"a","time":1,"item":"b"}]}', r"events[0].item", "more than once"),
        (b'{"events":[{"type":"click","type":"click","item":"a","time":1}],"events":[]}', "events", "more than once"),
        (b'{"events":[],"n":1.0,"n":2.0}', "n", "more than once"),
        (b"[]", None, "expected an object"),
        (b"{}", "events", "it is missing"),
        (b'{"events":[],"m":1}', "m", "there is no field 'm'"),
        (b'{"events":[],"n":"1"}', "n", 'found "1" .a text., expected a whole number'),
        (b'{"events":[],"n":1.5}', "n", "found 1.5"),
        (b'{"events":[],"n":1e400}', "n", "the number is out of range"),
        (b'{"events":[],"n":' + b"9" * 5000 + b"}", "n", "the number is out of range"),
        (b'{"events":[{"type":"click","item":"a"}]}', "events[0].time", "it is missing"),
        (
            b'{"events":[{"type":"sing","item":"a","time":1}]}',
            "events[0].type",
            'found "sing" .a text., expected one of click, comment, rating',
        ),
        (b'{"events":[{"type":"click","item":"","time":1}]}', "events[0].item", "length >= 1"),
    ],
)
def test_a_bad_body_is_named(body: bytes, field: str | None, message: str) -> None:
    with pytest.raises(ProblemError, match=message) as raised:
        SESSION.read(body)
    found = raised.value.problem
    assert found.status == 400
    assert (found.field or None) == field


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (b'{"type":"click","text":"lovely"}', "text"),
        (b'{"type":"click","value":4.5}', "value"),
        (b'{"type":"rating","value":4.5,"text":""}', "text"),
        (b'{"type":"rating","value":4.5,"action":"view"}', "action"),
        (b'{"type":"comment","text":"lovely","action":"view"}', "action"),
        (b'{"type":"click","scene":"home","action":"view","text":null}', ""),
        (b'{"type":"rating","value":4.5,"scene":"home"}', ""),
        (b'{"type":"comment","text":"lovely","value":4.5,"scene":"home"}', ""),
    ],
)
def test_a_field_that_an_event_of_this_type_does_not_have_is_found(event: bytes, field: str) -> None:
    body = b'{"events":[' + event[:-1] + b',"item":"a","time":1}]}'
    (found,) = SESSION.read(body).events  # type: ignore[attr-defined]
    assert surplus(found) == field


def test_a_user_that_is_none_is_told_in_words() -> None:
    kind = msgspec.defstruct("_User", [("user", User)])
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.convert({"user": "a\0"}, kind)
    problem = refused(raised.value, {"user": "a\0"}).problem
    assert (problem.detail, problem.field) == (
        'found "a\\x00" (a text), expected a user id other than `*`, without U+0000', "user",
    )  # fmt: skip


def test_a_whole_float_is_an_integer_as_in_json_schema() -> None:
    assert SESSION.read(b'{"events":[],"n":3.0}').n == 3  # type: ignore[attr-defined]


def test_problems_are_rfc_9457() -> None:
    found: dict[str, Any] = msgspec.json.decode(encode(problem("invalid", "found 0, expected 1", field="n")))
    assert found == {
        "type": "urn:freshet:problem:invalid", "title": "A field of the request is not acceptable", "status": 400,
        "detail": "found 0, expected 1", "field": "n",
    }  # fmt: skip
    assert all(400 <= status < 600 for status, _ in KINDS.values())


def test_the_document_says_that_items_may_be_explained() -> None:
    route = Route("GET", "/v1/x", handler, "", "Something.", {200: (Slate, "it")}, query=SlateQuery)
    found = openapi.document((route,), "1.2.3", tokens=False)
    schemas = found["components"]["schemas"]
    assert schemas["Slate"]["properties"]["items"]["items"] == {"$ref": "#/components/schemas/ExplainedItem"}
    assert "explanation" not in schemas["ExplainedItem"]["required"]
    explain = next(one for one in found["paths"]["/v1/x"]["get"]["parameters"] if one["name"] == "explain")
    assert explain["schema"] == {"type": "boolean"}


class Pairs(msgspec.Struct):
    scale: tuple[float, float]
    shares: list[tuple[int, str]]


def booleans(schema: Any) -> list[Any]:
    """The schemas of `items` that are true or false."""
    if isinstance(schema, dict):
        own = [schema["items"]] if isinstance(schema.get("items"), bool) else []
        return own + [found for one in schema.values() for found in booleans(one)]
    return [found for one in schema for found in booleans(one)] if isinstance(schema, list) else []


def test_a_pair_is_described_without_a_schema_that_is_a_boolean() -> None:
    """schemathesis, for one, calls an answer's schema invalid if its `items` are `false`."""
    route = Route("GET", "/v1/x", handler, "", "Something.", {200: (Pairs, "it")})
    found = openapi.document((route,), "1.2.3", tokens=False)
    assert booleans(found) == []
    scale = found["components"]["schemas"]["Pairs"]["properties"]["scale"]
    assert (scale["minItems"], scale["maxItems"], len(scale["prefixItems"])) == (2, 2, 2)


def test_the_document_describes_every_route() -> None:
    found = openapi.document(ROUTER.routes, "1.2.3", tokens=True)
    assert set(found["paths"]) == {one.path for one in ROUTER.routes}
    parameters = found["paths"]["/v1/users/{user}"]["get"]["parameters"]
    assert parameters[0]["name"] == "user"
    assert parameters[0]["schema"]["maxLength"] == 256
    assert {"ClickEvent", "RatingEvent", "CommentEvent", "Event", "Problem"} <= set(found["components"]["schemas"])
    msgspec.json.encode(found)


def test_a_filter_in_an_address_is_json() -> None:
    assert SLATE.read(b"filter=%7B%22category%22%3A%22toys%22%7D") == SlateQuery(filter={"category": "toys"})
    for value, part in (
        (b"toys", "expected JSON"),
        (b"[1]", "an object"),
        (b"[" * 99, "more than 32"),
        (b"", "expected JSON"),
    ):
        with pytest.raises(ProblemError) as raised:
            SLATE.read(b"filter=" + value)
        assert (raised.value.problem.status, raised.value.problem.field) == (400, "filter")
        assert part in raised.value.problem.detail
