"""How `freshet recommendations` shows a slate on a terminal."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from deploy.cli.commands import recommendations as command
from deploy.clients import slate_items, slate_reader
from deploy.clients.slate_items import ItemsNow
from stream.core.messages import Item
from stream.settings import load

ITEMS = ItemsNow({"K-03": Item("K-03", "Wooden spoon, red"), "B-10": Item("B-10", "")}, 9)


def slate(user: str, seq: int, *items: str) -> dict[str, Any]:
    scored = [{"item": item, "score": 0.5} for item in items]
    return {
        "user": user, "seq": seq, "time": time.time() * 1000, "strategy": "interest", "items": scored, "catalogue": 9,
    }  # fmt: skip


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on these slates of users, with these items."""

    def show(slates: dict[str, dict[str, Any]], items: ItemsNow | None, *arguments: str) -> Any:
        monkeypatch.setattr(
            slate_reader,
            "SlateReader",
            lambda _, user, placement="default": SimpleNamespace(latest=lambda: slates.get(user), close=lambda: None),
        )
        look = SimpleNamespace(found=lambda: items, why="the topic is large")
        monkeypatch.setattr(slate_items, "Look", lambda _: look)
        monkeypatch.setenv("COLUMNS", "120")
        app = typer.Typer()
        app.command()(command.recommendations)
        done = CliRunner().invoke(app, list(arguments), obj=load())
        assert done.exit_code == 0, done.output
        return done

    return show


def test_titles_are_shown_where_they_are_known(shown: Any) -> None:
    done = shown({"ada": slate("ada", 1, "K-03", "B-10")}, ITEMS, "--user", "ada")
    assert "ada after 1 event, " in done.stdout
    assert "Wooden spoon, red" in done.stdout
    assert "title" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("items", [None, ItemsNow({"K-03": Item("K-03", "")}, 9)])
def test_no_column_of_titles_without_a_title(shown: Any, items: ItemsNow | None) -> None:
    done = shown({"ada": slate("ada", 2, "K-03")}, items, "--user", "ada")
    assert "ada after 2 events, " in done.stdout
    assert "title" not in done.stdout
    assert ("titles are left out" in done.stderr) == (items is None)


def test_an_unknown_user_is_called_so(shown: Any) -> None:
    slates = {"*": slate("*", 0, "K-03")}
    done = shown(slates, ITEMS, "--user", "no\x1bbody")
    assert done.stderr == (
        "freshet: no slate of user 'no\\x1bbody' yet, as no event of this user was processed: popular items\n"
    )
    assert "popular items, " in done.stdout
    assert shown(slates, ITEMS, "--user", "*").stderr == ""
    assert shown(slates, ITEMS, "--user", "nobody", "--json").stderr == ""
