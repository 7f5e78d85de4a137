"""Ctrl-C in `freshet train` and `recommendations --follow`: what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.interrupted import Interrupted
from models.train import CutOff


def said(*words: str) -> str:
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, Interrupted), (done.exception, done.output)
    assert done.exception.exit_code == 130
    return str(done.exception)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CutOff(3), "interrupted: the checkpoint of epoch 3 is kept in .cache/train; the same command goes on from it"),
        (CutOff(0), "interrupted before the first epoch was kept; the same command begins again"),
        (
            KeyboardInterrupt(),
            "interrupted; the same command begins again, or goes on from the checkpoint that an earlier one left in "
            ".cache/train",
        ),
    ],
)
def test_train_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, line: str
) -> None:
    def stop(*_: Any) -> None:
        raise error

    monkeypatch.setattr("models.train.train", stop)
    (tmp_path / "clicks.jsonl").write_text('{"user": "ann", "item": "a", "time": 1700000000000}\n')
    assert said("train", str(tmp_path), "--out", str(tmp_path / "run")) == line


@pytest.mark.parametrize(("count", "line"), [(0, "0 slates"), (1, "1 slate"), (2, "2 slates")])
def test_following_says_how_many_slates_came(monkeypatch: pytest.MonkeyPatch, count: int, line: str) -> None:
    from deploy import itemsnow, slates

    slate = {"user": "ann", "seq": 1, "items": [], "catalogue": 0}

    class Reader:
        def __init__(self, *_: object) -> None: ...

        def latest(self) -> None:
            return None

        def follow(self, seq: int) -> Any:
            yield from [slate] * count
            raise KeyboardInterrupt

        def close(self) -> None: ...

    class Look:
        def __init__(self, *_: object) -> None: ...

        def found(self) -> Any:
            return itemsnow.ItemsNow({}, 1)

    monkeypatch.setattr(slates, "SlateReader", Reader)
    monkeypatch.setattr(itemsnow, "Look", Look)
    words = ("recommendations", "--user", "ann", "--follow", "--json")
    assert said(*words) == f"interrupted: {line} shown; the same command goes on from the newest"
