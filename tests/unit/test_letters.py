"""What goes back to a source topic when a dead letter is sent back."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.commands.deadletters import _corrections
from deploy.letters import FIELDS, Correction, Letter, outgoing
from deploy.producer import Sent
from stream.errors import DataError
from stream.settings import load

SETTINGS = load(prefix="p-")


def letter(
    topic: str = "p-ratings", key: bytes | None = b"alice", value: bytes | None = b"{", truncated: str = "false"
) -> Letter:
    said = dict.fromkeys(FIELDS, "") | {"topic": topic, "partition": "1", "offset": "7", "truncated": truncated}
    return Letter(Sent("p-dead-letters", 0, 3), key, value, said, (("trace", b"t"), ("replay", b"old")))


def test_it_goes_back_as_it_came_with_a_replay_header() -> None:
    assert outgoing(SETTINGS, letter()) == (
        "p-ratings", b"alice", b"{", [("trace", b"t"), ("replay", b"p-dead-letters/0/3")],
    )  # fmt: skip


def test_a_correction_replaces_what_it_names() -> None:
    assert outgoing(SETTINGS, letter(), Correction(value=b"{}"))[:3] == ("p-ratings", b"alice", b"{}")
    assert outgoing(SETTINGS, letter(key=None), Correction(key=b"bob"))[:3] == ("p-ratings", b"bob", b"{")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (letter(topic="ratings"), "none of our topics"),
        (letter(truncated="true"), "truncated"),
        (letter(key=None, value=None), "neither key nor value"),
    ],
)
def test_what_cannot_go_back(bad: Letter, said: str) -> None:
    with pytest.raises(DataError, match=said):
        outgoing(SETTINGS, bad)


def test_a_truncated_one_goes_back_with_its_whole_value() -> None:
    assert outgoing(SETTINGS, letter(truncated="true"), Correction(value=b"whole")).value == b"whole"


def test_an_item_goes_back_to_the_items() -> None:
    assert outgoing(SETTINGS, letter(topic="p-items")).topic == "p-items"


def test_corrections_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "corrected.jsonl"
    file.write_text(
        '{"topic": "p-ratings", "partition": 1, "offset": 7, "value": {"user": "\u00fc"}}\n\n'
        '{"topic": "p-clicks", "partition": "0", "offset": "2", "key": "bob", "value": "raw"}\n',
        encoding="utf-8",
    )
    assert _corrections(file) == {
        ("p-ratings", "1", "7"): Correction(None, '{"user": "\u00fc"}'.encode()),
        ("p-clicks", "0", "2"): Correction(b"bob", b"raw"),
    }


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"topic": "t", "partition": 1}'])
def test_a_bad_correction_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "corrected.jsonl"
    file.write_text("\n" + line + "\n")
    with pytest.raises(DataError, match="line 2"):
        _corrections(file)
