"""MIND: what becomes what."""

from __future__ import annotations

from pathlib import Path

from stream.core.messages import CLICK, Item
from tests.unit.models.data.forms.published import read, rows, sample


def test_mind(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "mind"), "mind")
    first, later, other = 1_573_344_000_000, 1_573_463_158_000, 1_573_582_290_000
    found = [row[:4] for row in rows(data)]
    assert found[:3] == [
        ("U13740", "N55189", CLICK, first - 120_000),
        ("U13740", "N42782", CLICK, first - 60_000),
        ("U13740", "N55689", CLICK, later),
    ]
    assert sorted(found[3:]) == [("U91836", "N39317", CLICK, other), ("U91836", "N58114", CLICK, other)]
    assert data.items[0] == Item("N55689", 'Charles "Chuck" Rogers', "A fired fan.", ("sports", "football_nfl"))
    (tmp_path / "behaviors.tsv").write_text("1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\tN3 N4\n")
    assert [row[1] for row in rows(read(tmp_path, "mind"))] == ["N1", "N2"]
