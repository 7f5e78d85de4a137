"""Slips on a command line and in its files: what is said names the place, what was found, what was expected and what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli import main as cli
from deploy.cli import signals
from deploy.cli.output_paths import require_file, require_folder
from deploy.verify.check import check
from deploy.verify.scope import Scope
from stream.catalogue.catalogue import Catalogue
from stream.core.envelopes import explained_item
from stream.core.errors import DataError, DiskError, RecordError, SettingsError
from stream.settings import load
from tests.unit.synthetic import World


def ended(*words: str) -> Any:
    return CliRunner().invoke(cli.app, words)


def test_a_settings_file_of_notepad_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "freshet.toml").write_bytes(b"\xef\xbb\xbfslate_size = 7\r\n")
    monkeypatch.setenv("FRESHET_CONFIG", str(tmp_path / "freshet.toml"))
    assert load().slate_size == 7


@pytest.mark.parametrize("kind", [("rating",), ("comment", "--text", "fine")])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_value_that_is_no_number_is_named(kind: tuple[str, ...], value: str) -> None:
    found = ended("send", *kind, "--user", "u", "--item", "i", "--value", value)
    assert found.exit_code == 2, found.exception
    assert f"--value: found {value}, expected a number from 0.5 to 5" in found.stderr


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ((float("nan"), float("inf")), "found [nan, inf], expected two numbers within 1e+09"),
        ((1, float("inf")), "found [1, inf], expected two numbers within 1e+09"),
        ((1, 1e10), "expected two numbers within 1e+09"),
        ((5, 1), "found [5, 1], expected the smallest rating below the largest: swap the two"),
        ((3, 3), "found [3, 3], expected the smallest rating below the largest: give two different numbers"),
    ],
)
def test_a_rating_scale_is_of_two_numbers(scale: tuple[float, float], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(rating_scale=scale)
    assert message in str(raised.value)


@pytest.mark.parametrize("scale", ["1,inf", "nan,5", "5,1"])
def test_a_former_rating_scale_is_of_two_numbers(scale: str) -> None:
    world = World()
    with pytest.raises(DataError, match="both within"):
        check(world.log, world.settings, scope=Scope(rating_scale_before=(f"ratings/0/1={scale}",)))


# where a long command writes


@pytest.mark.parametrize(
    "command",
    [
        ("train", "generated", "--out"), ("read-ratings", "generated", "--out"), ("evaluate", "generated", "--report"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["/proc/x", "file", "file/below"])
def test_what_cannot_be_written_is_said_before_the_work(
    command: tuple[str, ...], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("reached")

    monkeypatch.setattr("models.training.train.train", reached)
    monkeypatch.setattr("models.evaluation.evaluate.evaluate", reached)
    monkeypatch.setattr("models.text_rating.protocol.reading_protocol", reached)
    monkeypatch.setattr("models.network.text.TextEncoder", lambda: SimpleNamespace(encode=None))
    (tmp_path / "file").write_text("kept")
    found = ended(*command, where if where.startswith("/") else str(tmp_path / where))
    assert isinstance(found.exception, DiskError), found.exception
    assert str(found.exception).startswith(f"{command[-1]}: found ")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_is_looked_at_and_left_as_it_was(tmp_path: Path) -> None:
    require_folder("--out", tmp_path / "a" / "b")
    require_file("--svg", tmp_path / "c" / "d.svg")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    require_folder("--out", tmp_path / "run")
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]
    with pytest.raises(DiskError, match=r"--svg: found .*run, a folder, expected a file to write"):
        require_file("--svg", tmp_path / "run")


@pytest.mark.parametrize("models", [",", " ", " , ,"])
def test_models_without_a_name_are_refused(models: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("reached")

    monkeypatch.setattr("models.evaluation.evaluate.evaluate", reached)
    found = ended("evaluate", "generated", "--models", models)
    assert found.exit_code == 2, found.exception
    assert "found no name" in found.stderr


# items in an envelope


CONNECT = json.dumps({"schema": {"type": "struct"}, "payload": {"item": "i", "title": "t"}}).encode()
EVENT = json.dumps({"specversion": "1.0", "id": "1", "source": "s", "data": {"item": "i"}}).encode()
NEVER = "items are never taken out of an envelope, whatever the setting `envelope` says: send the item itself"


@pytest.mark.parametrize(("value", "kind"), [(CONNECT, "Kafka Connect's JsonConverter"), (EVENT, "a CloudEvent")])
def test_an_item_in_an_envelope_says_that_items_have_none(value: bytes, kind: str, tmp_path: Path) -> None:
    from stream.core.json_body import JsonDecoder
    from stream.core.messages import Item

    catalogue: Any = object.__new__(Catalogue)
    catalogue._decoder = JsonDecoder(Item)
    with pytest.raises(RecordError) as raised:
        catalogue._decode(b"i", value)
    assert kind in str(raised.value)
    assert NEVER in str(raised.value)
    assert raised.value.reason == "missing_field"
    (tmp_path / "items.jsonl").write_bytes(value)
    found = ended("send", "item", "--file", str(tmp_path / "items.jsonl"))
    assert isinstance(found.exception, RecordError)
    assert NEVER in str(found.exception)


def test_an_item_without_an_envelope_keeps_its_error() -> None:
    error = RecordError("validate", "missing_field", "item", "`item` is missing")
    assert explained_item(error, b'{"title": "t"}') is error


# what a usage error repeats


@pytest.mark.parametrize(
    "words",
    [("send", "click", "--\u202e\u2066x"), ("\u202e\u2066x",), ("topics", "check", "\u202e\u2066x")],
)
def test_usage_errors_show_no_direction_controls(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signals, "release", lambda: None)
    monkeypatch.setattr(sys, "argv", ["freshet", *words])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    assert raised.value.code == 2
    output = capsys.readouterr().err
    assert "\\u202e\\u2066x" in output
    assert not {"\u202e", "\u2066"} & set(output)
