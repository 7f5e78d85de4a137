"""Logs of shops: what becomes what, and which actions clicks keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data.forms import shops
from stream.core.errors import DataError
from stream.core.messages import CLICK, Item
from tests.unit.models.data.forms.published import DAY, read, rows, sample


def test_retailrocket(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "retailrocket"), "retailrocket")
    assert [row[:4] for row in rows(data)] == [
        ("257597", "355908", CLICK, 1_433_221_332_117),
        ("599528", "356475", CLICK, 1_433_222_276_276),
        ("257597", "355908", CLICK, 1_433_224_214_164),
    ]
    assert data.items == (Item("355908", "", categories=("1016", "213")), Item("356475", ""))
    assert shops.ACTIONS == {"view": "view", "addtocart": "cart", "transaction": "purchase"}


def test_yoochoose(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "yoochoose"), "yoochoose")
    assert [row[:4] for row in rows(data)] == [
        ("1", "214536502", CLICK, 1_396_867_869_277),
        ("1", "214536500", CLICK, 1_396_868_049_868),
        ("2", "214536502", CLICK, 1_396_878_997_614),
        ("2", "214536502", CLICK, 1_396_879_200_000),
    ]
    assert data.items == (Item("214536502", "", categories=("11",)), Item("214536500", ""))
    folder = tmp_path / "purchases"
    folder.mkdir()
    (tmp_path / "yoochoose-buys.dat").rename(folder / "yoochoose-buys.dat")
    assert rows(read(folder, "yoochoose"))[0][:2] == ("2", "214536502")
    (folder / "yoochoose-buys.dat").rename(tmp_path / "mine.dat")
    assert len(read(tmp_path / "mine.dat", "yoochoose").events) == 1


def test_diginetica(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "diginetica"), "diginetica")
    at = 1_462_752_000_000
    assert [row[:4] for row in rows(data)] == [
        ("1", "81766", CLICK, at + 526_309),
        ("1", "31331", CLICK, at + 1_031_018),
        ("7", "32118", CLICK, at + DAY + 244_541),
        ("7", "32118", CLICK, at + DAY + 300_000),
    ]
    assert data.items[:2] == (Item("81766", "", categories=("1096",)), Item("32118", "", categories=("330",)))


def test_a_field_may_stand_in_quotes(tmp_path: Path) -> None:
    path = sample(tmp_path, "retailrocket") / "events.csv"
    plain = read(tmp_path, "retailrocket").events
    path.write_text(path.read_text().replace("257597,view", '"257597",view'))
    assert '"' in path.read_text()
    assert read(tmp_path, "retailrocket").events.equals(plain, null_equal=True)


def test_no_events_are_told(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(",".join(shops.RETAIL) + "\n")
    with pytest.raises(DataError, match="found no events"):
        read(tmp_path, "retailrocket")


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        ("retailrocket", ["view", "purchase", "cart"]),
        ("yoochoose", ["view", "view", "view", "purchase"]),
        ("diginetica", ["view", "view", "view", "purchase"]),
    ],
)
def test_tables_keep_actions(tmp_path: Path, name: str, actions: list[str]) -> None:
    assert read(sample(tmp_path, name), name).events["action"].to_list() == actions
