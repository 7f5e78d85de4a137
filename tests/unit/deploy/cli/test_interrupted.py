"""Ctrl-C in `freshet train` and `recommendations --follow`: what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli.interrupted import Interrupted
from deploy.cli.main import app
from models.training.train import CutOff


def output(*words: str) -> str:
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, Interrupted), (done.exception, done.output)
    assert done.exception.exit_code == 130
    return str(done.exception)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            CutOff(3),
            "interrupted: the checkpoint of epoch 3 is in .cache/train; run the same command to continue from it",
        ),
        (CutOff(0), "interrupted before the first epoch was saved; run the same command to start again"),
        (
            KeyboardInterrupt(),
            "interrupted; run the same command to start again, or to continue from the checkpoint of an earlier run in "
            ".cache/train",
        ),
    ],
)
def test_train_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, line: str
) -> None:
    def stop(*_: Any) -> None:
        raise error

    monkeypatch.setattr("models.training.train.train", stop)
    (tmp_path / "clicks.jsonl").write_text('{"user": "ann", "item": "a", "time": 1700000000000}\n')
    assert output("train", str(tmp_path), "--out", str(tmp_path / "run")) == line


@pytest.mark.parametrize(("count", "line"), [(0, "0 slates"), (1, "1 slate"), (2, "2 slates")])
def test_following_says_how_many_slates_came(monkeypatch: pytest.MonkeyPatch, count: int, line: str) -> None:
    from deploy.clients import slate_items, slate_reader

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
            return slate_items.ItemsNow({}, 1)

    monkeypatch.setattr(slate_reader, "SlateReader", Reader)
    monkeypatch.setattr(slate_items, "Look", Look)
    words = ("recommendations", "--user", "ann", "--follow", "--json")
    assert output(*words) == f"interrupted: {line} shown; run the same command to continue from the newest"
