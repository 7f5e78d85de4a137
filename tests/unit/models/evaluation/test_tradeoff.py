"""Diversity as it is evaluated: strengths as text, metrics of lists by hand, the curve, and the strength that a budget buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from models.data import generate
from models.data.histories import Floats, Histories, Rows
from models.evaluation.protocols import make_tasks
from models.evaluation.tradeoff import METHODS, parse_strengths, tradeoff
from models.interfaces import EvalTask, Scorer
from models.metrics.ranks import MISSED, placed
from models.metrics.variety import CATEGORIES, COVERED, DISTANCE, DIVERGENCE, variety
from models.network.text import TEXT_DIM
from models.training.diversity import Chosen, candidates, choose
from stream.core.diversity import numbered_categories
from stream.core.errors import DataError
from stream.core.messages import Item

DATA = generate(users=60, items=80, events=16)


def no_text(texts: Sequence[str]) -> Floats:
    return np.zeros((len(texts), TEXT_DIM), np.float32)


@dataclass
class Fixed:
    """Scores that depend on the item alone, plus `bonus` for the item that is taken."""

    items: int
    bonus: float = 0.0

    def item_vectors(self) -> Floats:
        return np.random.default_rng(3).normal(size=(self.items + 1, 8)).astype(np.float32)

    def scorer(self, rows: Histories) -> Scorer:
        base = torch.from_numpy(np.random.default_rng(4).normal(size=self.items + 1).astype(np.float32))

        def score(positions: Rows) -> torch.Tensor:
            scores = base.repeat(len(positions), 1)
            scores[torch.arange(len(positions)), torch.from_numpy(rows.item[positions])] += self.bonus
            return scores

        return score


@pytest.fixture(scope="module")
def task() -> EvalTask:
    (task,) = make_tasks("last-8", DATA, no_text)
    items = tuple(replace_categories(item, number) for number, item in enumerate(task.training.items))
    return replace(task, training=replace(task.training, items=items))


def replace_categories(item: Item, number: int) -> Item:
    return Item(item.item, item.title, categories=tuple(f"c{one}" for one in {number % 5, number % 3}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,.1,...,1", tuple(round(0.1 * at, 9) for at in range(11))),
        ("0, .25, ..., .75", (0.0, 0.25, 0.5, 0.75)),
        (".5", (0.0, 0.5)),
        ("1,0,.3", (0.0, 0.3, 1.0)),
        ("0,.3,...,1", (0.0, 0.3, 0.6, 0.9, 1.0)),
    ],
)
def test_strengths_are_read(text: str, expected: tuple[float, ...]) -> None:
    assert parse_strengths(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "x", "2", "-1", "nan", "inf", "0,...,1", "...", "0,.1,...", "0,0,...,1", ".5,.1,...,1", "0,1e-9,...,1"]
)
def test_other_strengths_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"expected numbers from 0 to 1"):
        parse_strengths(text)


def test_variety_by_hand() -> None:
    vectors = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    categories = numbered_categories([(), ("a",), ("a", "b"), ()])
    lists = np.array([[1, 2, 3], [1, 0, 0]])
    found = variety(lists, vectors, categories, np.array([1, 2]), np.array([0, 0]))
    half = 1 / math.sqrt(2)
    assert found[DISTANCE] == pytest.approx([1 - (0 + half + half) / 3, math.nan], nan_ok=True)
    assert found[CATEGORIES] == pytest.approx([1 - 1 / 2, math.nan], nan_ok=True)
    assert found[COVERED] == pytest.approx([1.0, 0.5])
    # both have a three times as often as b: the mixes are equal. The second user made no choice.
    assert found[DIVERGENCE] == pytest.approx([0.0, math.nan], nan_ok=True, abs=1e-12)
    other = variety(np.array([[1]]), vectors, categories, np.array([1, 2]), np.array([0, 0]))[DIVERGENCE][0]
    expected = 0.75 * math.log(0.75 / (0.99 + 0.01 * 0.75)) + 0.25 * math.log(0.25 / (0.01 * 0.25))
    assert other == pytest.approx(expected)


def test_places_in_lists() -> None:
    lists = np.array([[3, 2, 1], [3, 2, 1], [0, 0, 0]])
    assert placed(lists, np.array([1, 9, 0])).tolist() == [2, MISSED, MISSED]


def test_candidates_are_what_serving_would_score(task: EvalTask) -> None:
    ranker = Fixed(len(task.training.items))
    found = candidates(
        task.rows, task.positions, ranker.scorer(task.rows), ranker.item_vectors(), task.training.items, most=30
    )
    assert np.array_equal(found.lists(0.0, 10), found.rows[:, :10])
    for line in (0, len(task.positions) - 1):
        position = int(task.positions[line])
        begin = int(task.rows.begins(np.array([position]))[0])
        seen = task.rows.item[begin:position]
        assert not np.isin(found.rows[line], seen).any()
        assert found.own[found.line == line].tolist() == seen[::-1][:64].tolist()
    again = found.lists(0.6, 10)
    assert all(len(set(one)) == 10 for one in again.tolist())
    assert (np.sort(again) != np.sort(found.rows[:, :10])).any()


def test_the_curve_has_every_metric_with_its_interval(task: EvalTask) -> None:
    found: dict[str, Any] = tradeoff(task, Fixed(len(task.training.items), 1.0), (0.0, 0.5, 1.0), 0.3)  # type: ignore[arg-type]
    assert (found["served"], found["judged"]) == (0.3, len(task.positions))
    for method in METHODS:
        points = found[method]["points"]
        assert [point["strength"] for point in points] == [0.0, 0.3, 0.5, 1.0]
        for point in points:
            assert set(point["metrics"]) == {
                "NDCG@10", "HR@10", DISTANCE, CATEGORIES, COVERED, DIVERGENCE, "coverage@10", "Gini@10",
            }  # fmt: skip
            for name, (low, high) in point["intervals"].items():
                assert low <= point["metrics"][name] <= high
        assert set(points[0]["change"].values()) == {0.0}
        assert points[2]["change"][CATEGORIES] > 0
        assert points[2]["change"][DIVERGENCE] < 0
        for kind in ("users", "items"):
            judged = [one["judged"] for one in found[method]["groups"][kind]]
            assert sum(judged) == len(task.positions)
            assert all(len(one["points"]) == 4 for one in found[method]["groups"][kind])


def test_the_strength_that_a_budget_buys(task: EvalTask) -> None:
    training = task.training
    ranker = Fixed(len(training.items), 1.0)
    vectors = ranker.item_vectors()
    assert choose(training, ranker, vectors, 0.0) == Chosen()
    small, large = (choose(training, ranker, vectors, budget) for budget in (0.01, 0.5))
    assert small.strength < large.strength
    assert large.budget == 0.5
    assert large.metrics["NDCG@10"] >= -0.5
    assert large.metrics[CATEGORIES] > 0
    assert choose(training, ranker, vectors, 1.0).strength <= 1.0
    assert choose(replace(training, watched=training.watched[:0]), ranker, vectors, 0.5).strength == 0.0
