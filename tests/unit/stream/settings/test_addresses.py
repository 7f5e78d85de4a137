"""Addresses of brokers and of the health server: what is none is refused at once, and no password in one is shown."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from deploy.clients.arguments import client_arguments
from stream.core.errors import SettingsError
from stream.settings import load

SECRET = "canary-7731"
GOOD_BROKERS = [
    "kafka-1.example.org:9092",
    "10.0.0.1:1,10.0.0.2:65535",
    "[::1]:9092",
    "[fe80::1%eth0]:9092",
    "a_b:9092",
    "küche:9092",
    "kafka.:9092",
]


@pytest.mark.parametrize("brokers", GOOD_BROKERS)
def test_addresses_of_brokers(brokers: str) -> None:
    assert load(brokers=brokers).brokers == brokers


def test_spaces_around_addresses_reach_no_client() -> None:
    assert client_arguments(load(brokers=" a:1 , b:2\n"))["bootstrap_servers"] == ["a:1", "b:2"]


@pytest.mark.parametrize(
    ("brokers", "found"),
    [
        ("", "''"),
        (" ", "''"),
        (",", "''"),
        ("a:1,", "''"),
        ("a:1,,b:2", "''"),
        (":9092", "':9092'"),
        ("[]:9092", "'[]:9092'"),
        ("kafka", "'kafka'"),
        ("kafka:", "'kafka:'"),
        ("kafka:x", "'kafka:x'"),
        ("kafka:-1", "'kafka:-1'"),
        ("kafka:0", "'kafka:0'"),
        ("kafka:65536", "'kafka:65536'"),
        ("kafka:1e3", "'kafka:1e3'"),
        ("kafka:" + "9" * 5000, "'kafka:999"),
        ("kafka:९", "'kafka:"),
        ("kafka:9092;b:9092", "'kafka:9092;b:9092'"),
        ("kafka:9092 b:9092", "'kafka:9092 b:9092'"),
        ("::1:9092", "'::1:9092'"),
        ("[::x]:9092", "'[::x]:9092'"),
        ("kafka://k:9092", "'kafka://k:9092'"),
        ("a b:1", "'a b:1'"),
        ("a\nb:1", r"'a\nb:1'"),
        ("a\0b:1", r"'a\x00b:1'"),
        ("a..b:1", "'a..b:1'"),
        ("x" * 64 + ":1", "'xxx"),
        ("a:1,b", "'b'"),
        ("'a':1", "\"'a':1\""),
    ],
)
def test_what_is_no_address_of_a_broker_is_refused_at_once(brokers: str, found: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(brokers=brokers)
    text = str(raised.value)
    assert text.startswith(f"brokers: found {found}")
    assert "expected host:port[,host:port...]" in text
    assert "\n" not in text
    assert len(text) < 300
    assert raised.value.exit_code == 78


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"brokers: found '\.\.\.@kafka:9092'") as raised:
        load(brokers=f"user:{SECRET}@kafka:9092")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("host", ["127.0.0.1", str(IPv4Address(0)), "::", "::1", "localhost", "worker-1.example.org"])
def test_addresses_of_the_health_server(host: str) -> None:
    assert load(web_host=host).web_host == host


@pytest.mark.parametrize(
    "host",
    ["", " ", "0", "0.0", "0x0", "00.0.0.0", "*", "a:1", "http://a", "a b", "a..b", "x" * 64, "a\0b", "<broadcast>"],
)
def test_a_health_server_on_all_interfaces_is_asked_for_by_name(host: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(web_host=host)
    text = str(raised.value)
    assert text.startswith("web_host: found ")
    assert ascii(host)[:20] in text
    assert "expected a host name or address; 0.0.0.0 or :: for all addresses of this machine" in text
