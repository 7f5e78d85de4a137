"""Malformed HTTP requests to the API, made from a seed. Each is refused, whatever the server's state."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

JSON: Final = "application/json"
NOW: Final = 1_700_000_000_000


class Bad(NamedTuple):
    """One request. field: what the problem's `field` must begin with; None: the request as a whole is wrong."""

    kind: str
    raw: bytes
    field: str | None = None


def request(
    method: str, target: bytes | str, body: bytes | None = None, media: str = JSON, *headers: bytes, host: bytes = b"localhost"
) -> bytes:  # fmt: skip
    """One request that asks for the connection to be closed."""
    path = target.encode("latin-1") if isinstance(target, str) else target
    lines = [method.encode("latin-1") + b" " + path + b" HTTP/1.1", b"Host: " + host, b"Connection: close", *headers]
    if body is not None:
        lines += [b"Content-Type: " + media.encode("latin-1"), b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def post(path: str, document: Any) -> bytes:
    return request("POST", path, json.dumps(document).encode())


class Malformed:
    """A source of malformed requests. Two with the same seed make the same ones."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._kinds: list[Callable[[], Bad]] = [
            self.line, self.path, self.escape, self.query, self.parameter, self.offset, self.header, self.host, self.media,
            self.encoding, self.syntax, self.depth, self.body_type, self.body_field, self.event, self.item, self.size,
            self.framing,
        ]  # fmt: skip

    def one(self) -> Bad:
        return self._draw.choice(self._kinds)()

    def line(self) -> Bad:
        draw = self._draw
        wrong = draw.choice(
            [
                b"\x00" + draw.randbytes(draw.randrange(1, 300)).replace(b"\n", b"") + b"\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(60) + b"\r\n\r\n",
                b"GET /v1/popular HTTP/9.9\r\nHost: localhost\r\n\r\n",
                b"GET  /v1/popular  HTTP/1.1 x\r\nHost: localhost\r\n\r\n",
                b"G\xc3\xa9T /v1/popular HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"GET /v1/popular SIP/2.0\r\nHost: localhost\r\n\r\n",
            ]
        )
        return Bad("request line", wrong)

    def path(self) -> Bad:
        up = self._draw.choice(["..", "%2e%2e", ".%2e", "..%2f..", "..%5c..", "....//", "%252e%252e", "..;"])
        start = self._draw.choice(["/v1/", "/", "//", "/v1/../", "/v1/items/x/", "/metrics/", "/docs/", "/v2/"])
        rest = self._draw.choice(
            ["etc/passwd", "/etc/passwd%00", "proc/self/environ", "x" * self._draw.randrange(1, 3000)]
        )
        return Bad("path", request("GET", f"{start}{up}/{rest}/x"))

    def escape(self) -> Bad:
        wrong = self._draw.choice(
            ["%", "%2", "%zz", "%c0%af", "%ff", "%ed%a0%80", "%f8%88%80%80%80", "a%00%8", "%C3%28"]
        )
        path = self._draw.choice(
            ["/v1/items/{}", "/v1/items/{}/similar", "/v1/users/{}/recommendations", "/v1/users/{}"]
        )
        field = "item" if "items" in path else "user"
        return Bad("escape in a path", request("GET", path.format("a" * self._draw.randrange(3) + wrong)), field)

    def query(self) -> Bad:
        name = "".join(self._draw.choices("abcdefghij_[]$", k=self._draw.randrange(2, 30)))
        path = self._draw.choice(["/v1/popular", "/v1/users/ann/recommendations", "/v1/items/item-1/similar"])
        wrong, field = self._draw.choice(
            [
                (f"x{name}=1", "x"),
                ("n=1&n=2", "n"),
                ("min_offset=a&min_offset=b", "min_offset"),
                ("scene=a&scene=b", "scene"),
            ]
        )
        return Bad("query", request("GET", f"{path}?{wrong}"), field)

    def parameter(self) -> Bad:
        wrong, field = self._draw.choice(
            [
                ("n=0", "n"), ("n=-1", "n"), ("n=101", "n"), ("n=1e3", "n"), ("n=NaN", "n"), ("n=0x10", "n"), ("n=", "n"),
                ("n=%D9%A3", "n"), ("n=1_0", "n"), (f"n={'9' * self._draw.randrange(5, 4000)}", "n"), ("n=+1+", "n"),
                ("n=true", "n"), ("n=[1]", "n"), ("scene=", "scene"), (f"scene={'s' * self._draw.randrange(257, 4000)}", "scene"),
                ("scene=%ff", "scene"), (f"exclude={'e' * 257}", "exclude"),
                ("exclude=" + "&exclude=".join(["a"] * 101), "exclude"),
            ]
        )  # fmt: skip
        return Bad("parameter", request("GET", f"/v1/users/ann/recommendations?{wrong}"), field)

    def offset(self) -> Bad:
        wrong = self._draw.choice(
            [
                "x", "clicks", "clicks/0", "clicks/0:", "clicks/0:-1", "clicks/a:1", "clicks/0:1e3", "clicks/0:" + "9" * 40,
                "clicks/9999:1", "nothing/0:1", "items/1:1", ",", "clicks/0:1,,", "../0:1", "clicks/0:%D9%A1", "a" * 1025,
                "%00/0:1",
            ]
        )  # fmt: skip
        return Bad("min_offset", request("GET", f"/v1/users/ann/recommendations?min_offset={wrong}"), "min_offset")

    def header(self) -> Bad:
        draw = self._draw
        wrong = draw.choice(
            [
                [b"X: " + b"a" * draw.randrange(20_000, 30_000)],
                [b"X-%d: a" % number for number in range(3000)],
                [b"Bad Name: a"],
                [b"X: a\x00b"],
                [b": empty"],
            ]
        )
        return Bad("header", request("GET", "/v1/popular", None, JSON, *wrong))

    def host(self) -> Bad:
        host = self._draw.choice(
            [b"evil.example", b"localhost.evil.example", b"", b"\xff\xfe", b"a" * 300, b"127.0.0.1.evil.example:80"]
        )
        if self._draw.random() < 0.3:
            return Bad("host", request("GET", "/v1/popular", None, JSON, b"Host: localhost"), "Host")
        if self._draw.random() < 0.3:
            return Bad("host", request("GET", "/v1/popular", None, JSON, b"Origin: http://evil.example"), "Origin")
        return Bad("host", request("GET", "/v1/popular", host=host), "Host")

    def media(self) -> Bad:
        media = self._draw.choice(
            ["text/plain", "application/xml", "", "application/jsonx", "multipart/form-data", "\xff"]
        )
        return Bad("media type", request("POST", "/v1/events", b"{}", media), "Content-Type")

    def encoding(self) -> Bad:
        if self._draw.random() < 0.5:
            coded = self._draw.choice([b"gzip", b"br", b"deflate, gzip", b"x" * 50])
            raw = request("POST", "/v1/rerank", self._draw.randbytes(50), JSON, b"Content-Encoding: " + coded)
            return Bad("encoding", raw, "Content-Encoding")
        text = '{"user":"ann","candidates":["item-1"]}'
        body = self._draw.choice(
            [text.encode("utf-16"), text.encode("utf-32"), b"\xff" + text.encode(),
             text.replace("ann", "a\x00").encode("utf-16-be"),
             text.replace("ann", "\\ud800").encode(), text.encode().replace(b"ann", b"\xed\xa0\x80")]
        )  # fmt: skip
        return Bad("encoding", request("POST", "/v1/rerank", body))

    def syntax(self) -> Bad:
        good = json.dumps({"user": "ann", "candidates": ["item-1", "item-2"]}).encode()
        path = self._draw.choice(
            ["/v1/rerank", "/v1/sessions/recommendations", "/v1/users/ann/recommendations", "/v1/events"]
        )
        cut = good[: self._draw.randrange(1, len(good))]
        wrong = [
            cut,
            b"",
            b" ",
            good + b"}",
            good[:-1] + b",}",
            b"{'user': 1}",
            b"NaN",
            b"\x00",
            b'{"n": 01}',
            b"/* */ {}",
        ]
        return Bad("JSON syntax", request("POST", path, self._draw.choice(wrong)))

    def depth(self) -> Bad:
        deep = self._draw.randrange(40, 20_000)
        opened, closed = self._draw.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'{"user":[', b"]}")])
        path = self._draw.choice(["/v1/rerank", "/v1/events", "/v1/sessions/recommendations"])
        return Bad("depth", request("POST", path, opened * deep + b"1" + closed * deep))

    def body_type(self) -> Bad:
        document: Any = self._draw.choice([1, "x", None, True, [], [[]], 1.5, {"x": 1}, {"": ""}, {"user": "ann"}])
        return Bad("body type", post(self._draw.choice(["/v1/rerank", "/v1/sessions/recommendations"]), document))

    def body_field(self) -> Bad:
        draw = self._draw
        wrong: Any = draw.choice([0, -1, 1.5, 10**30, "", "x" * 2000, None, True, [], {}, [1], [None], {"a": [1]}])
        field = draw.choice(["n", "user", "candidates"])
        path = "/v1/rerank"
        document: dict[str, Any] = {"user": "ann", "candidates": ["item-1"]}
        if field == "n":
            path, document = "/v1/sessions/recommendations", {"events": []}
            wrong = draw.choice([0, -1, 1.5, 101, 10**30, "1", True, [], {}])
        elif field == "user" and wrong == "":
            wrong = 7
        return Bad("body field", post(path, document | {field: wrong}), field)

    def event(self) -> Bad:
        draw = self._draw
        good: dict[str, Any] = {"type": "rating", "user": "ann", "item": "item-1", "time": NOW, "value": 3}
        field = draw.choice(["type", "user", "item", "time", "value"])
        wrong: dict[str, list[Any]] = {
            "type": ["", "clicks", 1, None, [], "CLICK"],
            "user": ["", 1, None, [], "u" * 257],
            "item": ["", 1, None, {}, "i" * 257],
            "time": [-1, "x", None, 1e30, NOW * 1000, NOW // 1000, 10**25, True],
            "value": [None, "3", [], 1e300, -1e9, 10**30],
        }
        changed = good | {field: draw.choice(wrong[field])}
        if draw.random() < 0.2:
            del changed[field]
        return Bad("event", post("/v1/events", changed), field)

    def item(self) -> Bad:
        choices: list[tuple[dict[str, Any], str]] = [
            ({"item": "other"}, "item"), ({"item": 1}, "item"), ({"item": None}, "item"), ({"text": 1}, "text"),
            ({"categories": "Drama"}, "categories"), ({"available": "no"}, "available"), ({"title": 1}, "title"),
        ]  # fmt: skip
        wrong, field = self._draw.choice(choices)
        return Bad(
            "item", request("PUT", "/v1/items/a", json.dumps({"item": "a", "title": "A"} | wrong).encode()), field
        )

    def size(self) -> Bad:
        draw = self._draw
        click = {"type": "click", "user": "ann", "item": "item-1", "time": NOW}
        wrong = draw.choice(
            [
                request("POST", "/v1/events", b" " * ((1 << 20) + draw.randrange(1, 1000))),
                request("POST", "/v1/events", json.dumps([click] * 1001).encode()),
                request("GET", "/v1/popular?scene=" + "a" * draw.randrange(9000, 14_000)),
                b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % draw.randrange(1 << 21, 1 << 60),
                request("GET", "/v1/popular", b"{}"),
                request("GET", "/" + "a" * draw.randrange(33_000, 60_000)),
            ]
        )
        return Bad("size", wrong)

    def framing(self) -> Bad:
        head = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
        wrong = self._draw.choice(
            [
                b"Content-Length: -1\r\n\r\n", b"Content-Length: x\r\n\r\n", b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
                b"Content-Length: 99999999999999999999999\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
                b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                b"Content-Length: 1 2\r\n\r\n{}",
            ]
        )  # fmt: skip
        return Bad("framing", head + wrong)
