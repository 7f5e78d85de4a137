"""KuaiRec: what becomes what."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.core.messages import RATING, Item
from tests.unit.models.data.forms.published import read, rows, sample


def test_kuairec(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = read(sample(tmp_path, "kuairec"), "kuairec")
    assert rows(data) == [
        ("0", "3649", RATING, 1_593_878_903_438, 1.273396521579093, ""),
        ("0", "9598", RATING, 1_593_879_221_297, 2.0, ""),
        ("14", "148", RATING, 1_593_898_068_378, 0.722, ""),
    ]
    assert "small_matrix.csv: 1 rows without a time are left out" in caplog.text
    items = {one.item: one for one in data.items}
    assert items["0"] == Item("0", "first line second line", categories=("喜剧", "搞笑互动"))
    assert items["148"].title == "精神小伙路难走 , 程哥你狗粮慢点撒"
    assert items["3649"] == Item("3649", "封面", categories=("高新数码",))
    (tmp_path / "kuairec_caption_category.csv").unlink()
    assert {one.item: one.categories for one in read(tmp_path, "kuairec").items}["148"] == ("27", "9")
