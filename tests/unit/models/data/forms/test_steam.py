"""Steam: what becomes what, of reviews, of users and of owned games."""

from __future__ import annotations

from pathlib import Path

from stream.core.messages import CLICK, COMMENT, Item
from tests.unit.models.data.forms.published import read, rows, sample


def test_steam_reviews(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "steam reviews"), "steam reviews")
    assert rows(data) == [
        ("Chaos S", "725280", COMMENT, 1_513_468_800_000, 1.0, 'Not "new" ♥ 😀'),
        ("Ha'rat", "328100", COMMENT, 1_515_110_400_000, 1.0, "looks like facebook"),
        ("steam:*", "328100", COMMENT, 1_515_196_800_000, 1.0, ""),
    ]
    assert data.items == (
        Item("725280", "Lost Summoner Kitty", categories=("Action", "Indie", "Strategy")),
        Item("200260", "Arkham City", categories=()),
        Item("328100", ""),
    )
    assert data.rating_scale == (0.0, 1.0)


def test_steam_users(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "steam users"), "steam users")
    assert rows(data) == [
        ("76561197970982479", "1250", COMMENT, 1_320_451_200_000, 1.0, "Simple yet 'great'"),
        ("76561197970982479", "22200", COMMENT, 1_466_726_400_000, 0.0, "no"),
    ]
    assert [(one.item, one.title) for one in data.items] == [
        ("10", "Counter-Strike"),
        ("1250", "Killing Floor"),
        ("22200", ""),
    ]
    assert data.timed


def test_steam_owned_games_without_reviews(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "steam owned"), "steam owned")
    assert [(row[1], row[2]) for row in rows(data)] == [("10", CLICK), ("1250", CLICK)]
    assert not data.timed
