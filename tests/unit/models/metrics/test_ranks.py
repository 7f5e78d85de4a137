"""The one definition of rank: the worst case for the model, held to a naive sort; and networks whose training diverges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data import DataSet, generate
from models.data.histories import Floats, Histories, Rows
from models.evaluation.evaluate import Question, evaluate
from models.evaluation.protocols import make_tasks
from models.interfaces import EvalTask
from models.metrics.ranks import MISSED, gains, hits, ranks
from models.metrics.top_k import recommended
from models.network.text import TEXT_DIM
from models.training.sequential.freshet import Freshet
from stream.core.errors import DataError

ITEMS = 6
SCORE = st.one_of(st.sampled_from([0.0, -0.0, 1.0, 2.0]), st.floats(width=32))
"""Few values, so that many are equal; and any float: NaN, the infinities, the smallest."""


def encode(texts: Sequence[str]) -> Floats:
    return np.zeros((len(texts), TEXT_DIM), np.float32)


def taken(items: Sequence[int]) -> Histories:
    """One user who took these item rows, oldest first."""
    size = len(items)
    none = np.zeros(size, np.int64)
    flags = np.ones(size, np.bool_)
    return Histories(
        users=("u",), starts=np.array([0, size]), item=np.array(items, np.int64), behaviour=none, scene=none,
        numbers=np.zeros((size, 4), np.float32), comment=none, vectors=np.zeros((1, 4), np.float32), choice=flags,
        judged=flags,
    )  # fmt: skip


def sorted_rank(scores: Sequence[float], wanted: int, hidden: Sequence[int] = ()) -> int:
    """By sorting: the wanted item stands behind all others of its score, and whatever is no number stands above it."""
    own = scores[wanted]
    if wanted == 0 or wanted in hidden or not math.isfinite(own):
        return MISSED
    others = [score for row, score in enumerate(scores) if row not in (0, wanted, *hidden)]
    line = sorted([(-math.inf if math.isnan(score) else -score, 0) for score in others] + [(-own, 1)])
    return line.index((-own, 1))


@settings(deadline=None)
@given(st.lists(SCORE, min_size=ITEMS + 1, max_size=ITEMS + 1), st.integers(0, ITEMS), st.integers(0, ITEMS))
def test_a_rank_is_that_of_a_naive_sort(scores: list[float], before: int, wanted: int) -> None:
    row = torch.tensor([scores])
    rows, positions = taken([before, wanted]), np.array([1])
    for filter_seen in (True, False):
        expected = sorted_rank(row[0].tolist(), wanted, (before,) if filter_seen else ())
        assert ranks(rows, positions, lambda _: row, filter_seen=filter_seen).tolist() == [expected]
        if all(math.isfinite(score) or score == -math.inf for score in scores):
            assert recommended(rows, positions, lambda _: row, filter_seen=filter_seen).rank.tolist() == [expected]


@settings(deadline=None)
@given(st.lists(SCORE, min_size=ITEMS + 1, max_size=ITEMS + 1), st.permutations(range(1, ITEMS + 1)))
def test_the_order_of_the_catalogue_decides_nothing(scores: list[float], order: list[int]) -> None:
    row = torch.tensor([scores])
    moved = row[:, [0, *order]]
    for at, wanted in enumerate(order, start=1):
        one = ranks(taken([1, wanted]), np.array([1]), lambda _: row, filter_seen=False)
        two = ranks(taken([1, at]), np.array([1]), lambda _: moved, filter_seen=False)
        assert one.tolist() == two.tolist()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0])
def test_a_model_that_says_the_same_of_all_items_hits_nothing(task: EvalTask, value: float) -> None:
    """NaN was rank 1 for everything: HR@10 = NDCG@10 = 1."""
    found = ranks(task.rows, task.positions, lambda some: torch.full((len(some), 91), value))
    assert (hits(found).mean(), gains(found).mean()) == (0.0, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_harness_refuses_scores_that_are_no_numbers(task: EvalTask, value: float) -> None:
    def score(some: Rows) -> torch.Tensor:
        scores = torch.zeros(len(some), 91)
        scores[0, 7] = value
        return scores

    with pytest.raises(DataError, match="broken: scores that are not finite numbers"):
        recommended(task.rows, task.positions, score, name="broken")


@pytest.fixture(scope="module")
def world() -> DataSet:
    return generate(users=80, items=90, events=24)


@pytest.fixture(scope="module")
def task(world: DataSet) -> EvalTask:
    return make_tasks("leave-one-out", world, encode)[0]


def test_a_network_that_diverges_at_once_is_refused_by_name(task: EvalTask) -> None:
    """Its NDCG@10 on the validation part was 1, so that its first epoch was the best."""
    with pytest.raises(DataError, match=r"freshet: diverged in epoch 1: .*expected finite"):
        Freshet("dense", network={"width": 16}, fit={"rate": 1e30, "epochs": 3}).fit(task.training, 0)


def test_a_network_that_diverges_later_stops_at_the_best_epoch_before(
    task: EvalTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.training.trainer import Fitting

    whole = Fitting.epoch
    spoilt_at = 2

    def epoch(self: Fitting, report: object) -> float:
        loss = whole(self, report)  # type: ignore[arg-type]
        nonlocal spoilt_at
        spoilt_at -= 1
        if spoilt_at < 0:
            with torch.no_grad():
                next(self.average.parameters()).fill_(math.nan)
        return loss

    monkeypatch.setattr(Fitting, "epoch", epoch)
    ranker = Freshet("dense", network={"width": 16}, fit={"epochs": 9}, collaborative=False).fit(task.training, 0)
    assert len(ranker.curve) == 2
    assert ranker.interest.reason == "epoch 3 diverged; the best epoch before it is kept"
    assert all(bool(torch.isfinite(weight).all()) for weight in ranker.interest.network.parameters())


def test_an_evaluation_in_which_nothing_ran_is_an_error(world: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.baselines.popularity import PopularityRanker

    def broken(self: PopularityRanker, rows: Histories) -> object:
        return lambda positions: torch.full((len(positions), 91), math.nan)

    monkeypatch.setattr(PopularityRanker, "scorer", broken)

    class Encoder:
        def encode(self, texts: Sequence[str], progress: object = None) -> Floats:
            return np.zeros((len(texts), TEXT_DIM), np.float32)

    with pytest.raises(DataError, match="no model ran: popularity: scores that are not finite numbers"):
        evaluate(world, Question("leave-one-out", ("popularity",)), Encoder())  # type: ignore[arg-type]
