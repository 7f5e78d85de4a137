"""The private names of Faust, mode and aiokafka: all there, checked at start, and used in two places only."""

from __future__ import annotations

import ast

import pytest
from faust.transport.drivers import aiokafka as driver

from stream.core.errors import SettingsError
from stream.kafka import private_api
from stream.kafka.private_api import check_private_names
from tests.conftest import ROOT

ALLOWED = ("stream/kafka/", "stream/process/supervision.py")


def test_everything_relied_on_is_there() -> None:
    assert private_api.missing_names() == []
    check_private_names()


def test_each_listed_name_is_missed_when_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in private_api.METHODS:
        with monkeypatch.context() as patch:
            for base in owner.__mro__[:-1]:
                if name in vars(base):
                    patch.delattr(base, name)
            assert private_api.missing_names(), f"{owner.__name__}.{name} is listed and not checked"


def test_a_missing_name_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(driver.AIOKafkaConsumerThread, "_fetch_records")
    with pytest.raises(SettingsError, match="_fetch_records"):
        check_private_names()


def test_an_untested_version_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(private_api.PINNED, "aiokafka", "0.1")
    with pytest.raises(SettingsError, match="aiokafka"):
        check_private_names()


def test_private_names_are_used_in_stream_kafka_and_supervision_only() -> None:
    private = {name for _, name in (*private_api.METHODS, *private_api.ATTRIBUTES) if name.startswith("_")}
    private |= {text.removeprefix("self.") for texts in private_api.SOURCES.values() for text in texts}
    outside = [
        f"{path}:{node.lineno} .{node.attr}"
        for room in ("stream", "deploy", "models", "export")
        for path in sorted((ROOT / room).rglob("*.py"))
        if not str(path.relative_to(ROOT)).startswith(ALLOWED)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in private
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]
    assert outside == []


def test_every_private_name_in_use_is_listed() -> None:
    listed = {name for _, name in (*private_api.METHODS, *private_api.ATTRIBUTES)}
    listed |= {
        text.removeprefix("self.").removesuffix(" = ") for texts in private_api.SOURCES.values() for text in texts
    }
    own = {
        node.attr
        for path in sorted((ROOT / "stream/kafka").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        # self._x may be ours or inherited; what is read from another object is never ours
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert own - listed == set()
