"""The replay of the last days: what each arm may have learned from, the figures by day, and that it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from models.data import DataSet, generate
from models.data.histories import Floats
from models.evaluation.gate import DAY, day_of
from models.network.text import TEXT_DIM
from models.training.run import load_run
from models.training.train import TrainSettings
from scripts import learning
from scripts.learning import ARMS, Plan, draw, replay

pytest.importorskip("matplotlib")
SETTINGS = TrainSettings(holdout=0, epochs=1, preset="dense", diversity_budget=0.0)
DAYS = 5


class Encoder:
    """Stands for models.network.text.TextEncoder where texts do not matter."""

    def encode(self, texts: Sequence[str], progress: Any = None) -> Floats:
        return np.zeros((len(texts), TEXT_DIM), np.float32)


ENCODER: Any = Encoder()


def last_day(data: DataSet) -> int:
    return int(data.events["time"][-1]) // DAY


@pytest.fixture(scope="module")
def world() -> DataSet:
    """A generated world whose last day but two is empty."""
    whole = generate(users=40, items=40, events=16)
    empty = last_day(whole) - 2
    return replace(whole, events=whole.events.filter(pl.col("time") // DAY != empty))


@pytest.fixture(scope="module")
def found(world: DataSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What a replay says, with a full update every second day, and where its runs are."""
    out = tmp_path_factory.mktemp("replay")
    return replay(world, Plan(DAYS, SETTINGS, SETTINGS, full_days=2), out, ENCODER), out


def test_every_day_with_choices_has_figures_of_each_arm_and_the_others_are_named(
    found: tuple[dict[str, Any], Path], world: DataSet
) -> None:
    said, _ = found
    newest = last_day(world)
    days = [day_of(day * DAY) for day in range(newest - DAYS + 1, newest + 1)]
    assert sorted([*(one["day"] for one in said["days"]), *said["days_without_choices"]]) == days
    assert day_of((newest - 2) * DAY) in said["days_without_choices"]
    for one in said["days"]:
        assert one["choices"] >= one["users"] > 0
        assert all(0 <= one[name] <= 1 for name in ARMS)
    first = said["days"][0]
    assert first["frozen"] == first["head"] == first["full"], "nothing has come since the first training"


def test_the_figures_over_all_days_are_those_of_the_days(found: tuple[dict[str, Any], Path]) -> None:
    said, _ = found
    assert said["all"]["choices"] == sum(one["choices"] for one in said["days"])
    for name in ARMS:
        mean = sum(one[name] * one["choices"] for one in said["days"]) / said["all"]["choices"]
        assert said["all"][name]["NDCG@10"] == pytest.approx(mean, abs=2e-5)
        if name != "frozen":
            low, high = said["all"][name]["less frozen"]
            assert low <= said["all"][name]["NDCG@10"] - said["all"]["frozen"]["NDCG@10"] + 1e-4
            assert low <= high


def test_an_update_knows_what_came_before_its_day_and_no_more(
    found: tuple[dict[str, Any], Path], world: DataSet
) -> None:
    said, out = found
    begin = last_day(world) - DAYS + 1
    assert load_run(out / "first").data.events == len(world.events.filter(pl.col("time") < begin * DAY))
    heads = [one for one in said["updates"] if one["arm"] == "head"]
    fulls = [one for one in said["updates"] if one["arm"] == "full"]
    assert len(heads) >= len(fulls) > 0
    for one in said["updates"]:
        run = load_run(out / f"{one['arm']}-{one['before']}")
        before = world.events.filter(pl.col("time") // DAY < begin + _after(one["before"], begin))
        assert run.data.events == len(before)
        assert run.network.size.untied == (one["arm"] == "head")
    numbers = [_after(one["before"], begin) for one in fulls]
    assert all(two - one >= 2 for one, two in zip([0, *numbers], numbers, strict=False))


def _after(day: str, begin: int) -> int:
    return next(number for number in range(DAYS) if day_of((begin + number) * DAY) == day)


def test_what_is_trained_is_not_trained_again(
    found: tuple[dict[str, Any], Path], world: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, out = found
    monkeypatch.setattr(learning, "train", None)
    assert replay(world, Plan(DAYS, SETTINGS, SETTINGS, full_days=2), out, ENCODER) == said


def test_no_update_is_made_of_few_events(
    found: tuple[dict[str, Any], Path], world: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = found
    monkeypatch.setattr(learning, "train", None)
    said = replay(world, Plan(DAYS, SETTINGS, SETTINGS, events=10**6), out, ENCODER)
    assert said["updates"] == []
    assert said["all"]["head"]["NDCG@10"] == said["all"]["frozen"]["NDCG@10"]


def test_the_picture_is_drawn(found: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    draw(json.loads(json.dumps(found[0])), tmp_path / "learning.png")
    assert (tmp_path / "learning.png").read_bytes().startswith(b"\x89PNG")
