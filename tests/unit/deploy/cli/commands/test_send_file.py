"""`freshet send ... --file` with a file that is no JSON lines: what is expected, and what to do with a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.commands import send
from deploy.cli.commands.send import _checked, _lines
from deploy.cli.main import app
from stream.core.errors import DataError, RecordError
from tests.conftest import ROOT
from tests.unit.synthetic import settings

CSV = {
    "item": b"item,title\nSKU-1,Kettle\n",
    "click": b"user,item,time\nann,SKU-1,1700000000000\n",
    "rating": b"user,item,value,time\nann,SKU-1,4,1700000000000\n",
    "comment": b"user,item,text,time\nann,SKU-1,good,1700000000000\n",
}
NOT_LINES = [b"[\n{}\n]\n", b"[]\n", b"5\n", b'"a"\n', b"null\n", b"\xff\xfe\n", b'{"item": "a",\n"title": "b"}\n']
TABLE = {
    "item": "to send a CSV of items, use `freshet replay FOLDER` with items.csv and the events (clicks.csv, ratings.csv or "
    "comments.csv) in the folder; --limit 0 sends only the items",
    "click": "to send a CSV, use `freshet replay FOLDER` with clicks.csv in the folder",
    "rating": "to send a CSV, use `freshet replay FOLDER` with ratings.csv in the folder",
    "comment": "to send a CSV, use `freshet replay FOLDER` with comments.csv in the folder",
}


def refused(kind: str, file: Path) -> str:
    with pytest.raises(RecordError) as error:
        list(_checked(kind, settings(), _lines(file)))
    return str(error.value)


@pytest.mark.parametrize("kind", CSV)
@pytest.mark.parametrize("text", [None, *NOT_LINES])
def test_a_file_that_is_no_json_lines(tmp_path: Path, kind: str, text: bytes | None) -> None:
    file = tmp_path / "given"
    file.write_bytes(CSV[kind] if text is None else text)
    output = refused(kind, file)
    assert output.startswith(f"{file}, line 1: ")
    assert ": :" not in output
    assert output.endswith(f"; expected JSON lines, one {kind} per line as in docs/schemas/{kind}.json; {TABLE[kind]}")


def test_a_field_that_is_wrong_is_named_alone(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"item": "a", "title": "A"}\n{"item": "b", "title": 7}\n')
    assert (
        refused("item", file)
        == f"{file}, line 2: title: found 7 (a whole number), expected a text of 0 to 1024 characters"
    )


def test_the_schemas_that_are_named_are_there() -> None:
    for kind in CSV:
        assert (ROOT / "docs" / "schemas" / f"{kind}.json").is_file()


@pytest.mark.parametrize("kind", CSV)
@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_an_empty_file_is_an_error(tmp_path: Path, kind: str, content: str) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text(content)
    done = CliRunner().invoke(app, ["send", kind, "--file", str(file)])
    assert isinstance(done.exception, DataError)
    assert str(done.exception) == (
        f"{file}: empty, nothing sent; expected JSON lines, one message per line as in docs/schemas"
    )
    assert done.exception.exit_code == 65


def test_items_with_an_empty_title_are_sent_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[object] = []
    monkeypatch.setattr(send, "_deliver", lambda settings, topic, records, *_: sent.extend(records))
    file = tmp_path / "items.jsonl"
    titles = ["Kettle", "", " ", "", ""]
    file.write_text("".join(json.dumps({"item": f"i{at}", "title": title}) + "\n" for at, title in enumerate(titles)))
    send._send(settings(), "item", {}, file, False)
    assert len(sent) == 5
    assert capsys.readouterr().err.startswith(
        "freshet: 4 items have an empty title: 'i1', 'i2', 'i3' and 1 more. Slates"
    )
    send._send(settings(), "item", {"item": "i0", "title": "Kettle"}, None, False)
    assert capsys.readouterr().err == ""
