"""Last.fm: what becomes what."""

from __future__ import annotations

from pathlib import Path

from stream.core.messages import CLICK
from tests.unit.models.data.forms.published import read, rows, sample


def test_lastfm_items_are_artists(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "lastfm"), "lastfm")
    dish = "f1b1cf71-bd35-4e99-8624-24a6e15f133a"
    assert [row[:4] for row in rows(data)] == [
        ("user_000002", dish, CLICK, 1_158_161_525_000),
        ("user_000001", '坂本 "龍一"', CLICK, 1_241_445_250_000),
        ("user_000001", dish, CLICK, 1_241_478_537_000),
    ]
    assert {one.item: one.title for one in data.items} == {dish: "Deep Dish", '坂本 "龍一"': '坂本 "龍一"'}
