"""Tokens, hosts, origins and rates: who may ask what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stream.core.errors import SettingsError
from stream.gateway.auth import ADMIN, READ, WRITE, Tokens
from stream.gateway.hosts import Hosts, is_local
from stream.gateway.problems import ProblemError
from stream.gateway.rates import MOST, Rates
from stream.settings import load

SHOP = "shop-token-of-thirty-two-characters-"
OPS = "ops-token-of-thirty-two-characters-."
LINES = f"# who may do what\n\nshop read,write {SHOP}\nops read,write,admin {OPS}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "tokens"
    found.write_text(LINES)
    return found


def test_without_a_file_everybody_may_do_everything() -> None:
    tokens = Tokens(None)
    assert not tokens.required
    assert tokens.caller(None, "127.0.0.1", ADMIN).name == "127.0.0.1"


def test_a_token_has_the_scopes_of_its_line(file: Path) -> None:
    tokens = Tokens(file)
    assert tokens.caller(f"Bearer {SHOP}".encode(), "::1", WRITE).name == "token shop"
    assert tokens.caller(f"bearer {OPS}".encode(), "::1", ADMIN).scopes == {READ, WRITE, ADMIN}
    assert tokens.caller(None, "::1", "").name == "::1"
    with pytest.raises(ProblemError, match="lacks the scope admin") as raised:
        tokens.caller(f"Bearer {SHOP}".encode(), "::1", ADMIN)
    assert raised.value.problem.status == 403


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer x", b"Basic " + SHOP.encode(), SHOP.encode()])
def test_no_valid_token_is_401_with_a_challenge(file: Path, header: bytes | None) -> None:
    with pytest.raises(ProblemError) as raised:
        Tokens(file).caller(header, "::1", READ)
    assert raised.value.problem.status == 401
    assert raised.value.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no token"),
        ("# nothing\n", "holds no token"),
        (f"shop read {SHOP} more", "line 1: found 4 words"),
        (f"shop read,sing {SHOP}", "line 1: found the scope 'sing'"),
        ("shop read short", "at least 32"),
        (f"shop read {SHOP}\nops admin {SHOP}", "line 2: the token of shop again"),
    ],
)
def test_a_bad_file_is_refused_with_its_line_and_without_a_token(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message) as raised:
        Tokens(file)
    assert SHOP not in str(raised.value)


def test_a_changed_file_is_read_again_and_a_bad_one_is_not_used(file: Path) -> None:
    tokens = Tokens(file)
    file.write_text(f"other read {OPS}\n")
    os.utime(file, ns=(1, 1))
    tokens.refresh()
    assert tokens.caller(f"Bearer {OPS}".encode(), "::1", READ).name == "token other"
    with pytest.raises(ProblemError):
        tokens.caller(f"Bearer {SHOP}".encode(), "::1", READ)
    file.write_text("broken")
    tokens.refresh()
    assert tokens.caller(f"Bearer {OPS}".encode(), "::1", READ).name == "token other"


def test_hosts_of_this_machine() -> None:
    assert is_local("127.0.0.1")
    assert is_local("::1")
    assert is_local("localhost")
    assert not is_local("0.0.0.0")  # noqa: S104
    assert not is_local("192.0.2.1")


def test_a_page_of_another_host_cannot_ask() -> None:
    hosts = Hosts(load())
    assert hosts.check([b"127.0.0.1:8080"], []) == ""
    assert hosts.check([b"LOCALHOST"], [b"http://localhost"]) == ""
    for host, origin, status in (
        (b"evil.example", None, 421),
        (b"localhost:1", b"http://evil.example", 403),
        (b"localhost:1", b"null", 403),
        (b"localhost:1", b"http://localhost:2", 403),
    ):
        with pytest.raises(ProblemError) as raised:
            hosts.check([host], [origin] if origin else [])
        assert raised.value.problem.status == status
    for several in ([], [b"localhost", b"localhost"]):
        with pytest.raises(ProblemError, match="headers Host, expected one"):
            hosts.check(several, [])


def test_an_origin_that_is_set_may_read(file: Path) -> None:
    hosts = Hosts(load(serve_origins=["https://shop.example/"], serve_hosts=["api.shop.example"]))
    assert hosts.check([b"api.shop.example:443"], [b"https://shop.example"]) == "https://shop.example"
    with pytest.raises(ProblemError):
        hosts.check([b"localhost"], [])
    assert Hosts(load(serve_tokens=str(file))).check([b"anything.example"], []) == ""


def test_a_client_gets_its_rate_and_others_their_own() -> None:
    now = [0.0]
    rates = Rates(2, lambda: now[0])
    for _ in range(2):
        rates.take("a")
    with pytest.raises(ProblemError, match="at most 2 requests per second") as raised:
        rates.take("a")
    assert (raised.value.problem.status, raised.value.headers["Retry-After"]) == (429, "1")
    rates.take("b")
    now[0] += 0.5
    rates.take("a")
    for number in range(2 * MOST):
        rates.take(f"one of many {number}")
    assert len(rates._buckets) <= MOST
    for _ in range(100):
        Rates(0).take("a")
