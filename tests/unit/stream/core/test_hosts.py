"""Hosts and origins that a request may name."""

from __future__ import annotations

import pytest

from stream.core.hosts import HostError, Names, check, without_port


def test_a_port_is_no_part_of_a_name() -> None:
    assert [without_port(one) for one in ("a:80", "a", "[::1]:80", "[::1]")] == ["a", "a", "[::1]", "[::1]"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9464", "10.1.2.3:9464", "192.0.2.1", "[::1]:9464", "[2001:db8::1]", "localhost", "worker:9464", "Worker-1",
        "freshet-0.freshet.shop.svc:9464", "freshet-0.freshet.shop.svc.cluster.local", "kafka.internal", "laptop.local",
        "metrics.example.org:9464", "METRICS.EXAMPLE.ORG",
    ],
)  # fmt: skip
def test_how_a_scraper_names_a_worker_is_accepted(host: str) -> None:
    assert check([host.encode()], [], Names(["metrics.example.org"], private=True)) == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:9464", "metrics.example.org.evil.example", "127.0.0.1.evil.example", "local.evil.example",
        "", ":9464", "evil.example.", "1.2.3.4.5", "[evil.example]", "[::1].evil.example", "metrics.example.org@evil.example",
        "\xe9vil", "localhost.evil.example:80:80", "svc.shop",
    ],
)  # fmt: skip
def test_a_name_that_a_stranger_can_own_is_not(host: str) -> None:
    with pytest.raises(HostError) as raised:
        check([host.encode("latin-1")], [], Names(["metrics.example.org"], private=True))
    assert raised.value.field == "Host"


def test_without_private_only_the_names_themselves_are_accepted() -> None:
    for host in (b"10.1.2.3", b"worker", b"a.local"):
        with pytest.raises(HostError):
            check([host], [], Names(["localhost"]))
    assert check([b"anything.example"], [], Names(["*"])) == ""


def test_pages_of_other_origins_are_refused() -> None:
    names = Names(["a.example"])
    assert check([b"a.example"], [b"http://a.example"], names) == ""
    assert check([b"a.example"], [b"https://B.example"], names, {"https://b.example"}) == "https://B.example"
    for origins in (
        [b"null"],
        [b"http://a.example:1"],
        [b"http://a.example", b"http://a.example"],
        [b"http://b.example"],
    ):
        with pytest.raises(HostError) as raised:
            check([b"a.example"], origins, names)
        assert raised.value.field == "Origin"
    for hosts in ([], [b"a.example", b"a.example"]):
        with pytest.raises(HostError):
            check(hosts, [], names)
