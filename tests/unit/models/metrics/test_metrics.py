"""Figures of ranked lists: hand-worked cases, and scikit-learn and scipy as independent judges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, precision_recall_fscore_support
from sklearn.metrics.pairwise import cosine_similarity

from models.data import generate
from models.data.histories import Floats, Rows
from models.evaluation.protocols import make_tasks
from models.interfaces import EvalTask
from models.metrics.bootstrap import drawn_means, ends
from models.metrics.metrics import (
    ACCURACY,
    CUTS,
    POPULARITY,
    accuracy,
    activity_groups,
    diversity,
    gini,
    novelty,
    popularity_groups,
    recommended_times,
    spread,
)
from models.metrics.ranks import MISSED, ranks
from models.metrics.top_k import TOP, first, recommended
from models.network.text import TEXT_DIM


def test_one_place_at_a_time_by_hand() -> None:
    found = accuracy(np.array([0, 2, 4, 5, 9, 10, 19, 20, MISSED]))
    assert tuple(found) == ACCURACY
    assert found["HR@5"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert found["HR@10"].tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert found["HR@20"].tolist() == [1, 1, 1, 1, 1, 1, 1, 0, 0]
    assert found["NDCG@10"] == pytest.approx(
        [1, 0.5, 1 / math.log2(6), 1 / math.log2(7), 1 / math.log2(11), 0, 0, 0, 0]
    )
    assert found["MRR@10"] == pytest.approx([1, 1 / 3, 1 / 5, 1 / 6, 1 / 10, 0, 0, 0, 0])
    assert found["precision@10"] == pytest.approx([0.1] * 5 + [0] * 4)
    assert found["F1@10"] == pytest.approx([2 / 11] * 5 + [0] * 4)
    assert all(values.dtype == np.float64 for values in found.values())


@pytest.mark.parametrize("k", CUTS)
def test_against_scikit_learn(k: int) -> None:
    draw = np.random.default_rng(k)
    scores = draw.permutation(40)[None] + draw.permuted(np.tile(np.arange(40), (30, 1)), axis=1) * 100.0  # no ties
    taken = draw.integers(40, size=30)
    rank = (scores > np.take_along_axis(scores, taken[:, None], 1)).sum(1)
    relevant = np.eye(40, dtype=int)[taken]
    found = accuracy(rank)
    for position in range(30):
        truth, score = relevant[position : position + 1], scores[position : position + 1]
        assert found[f"NDCG@{k}"][position] == pytest.approx(ndcg_score(truth, score, k=k))
        reciprocal = label_ranking_average_precision_score(truth, score)  # of one relevant item: 1 / rank
        assert found[f"MRR@{k}"][position] == pytest.approx(reciprocal if rank[position] < k else 0)
        chosen = np.zeros(40, int)
        chosen[np.argsort(-score[0])[:k]] = 1
        precision, recall, f1, _ = precision_recall_fscore_support(truth[0], chosen, average="binary", zero_division=0)
        assert found[f"precision@{k}"][position] == pytest.approx(precision)
        assert found[f"HR@{k}"][position] == pytest.approx(recall)
        assert found[f"F1@{k}"][position] == pytest.approx(f1)


def test_diversity_is_one_less_the_mean_cosine_of_pairs() -> None:
    draw = np.random.default_rng(0)
    text = draw.normal(size=(9, 5)).astype(np.float32)
    text[0] = text[8] = 0  # item 8 has no text
    lists = np.array([[1, 2, 3, 8, 0], [4, 5, 6, 7, 0]], np.int32)

    def of(rows: list[int]) -> float:
        cosine = cosine_similarity(text[rows])
        return float(1 - cosine[~np.eye(len(rows), dtype=bool)].mean())

    assert diversity(lists, text) == pytest.approx((of([1, 2, 3]) + of([4, 5, 6, 7])) / 2, abs=1e-6)
    same = np.tile(text[1], (9, 1))
    assert diversity(lists, same) == pytest.approx(0, abs=1e-6)
    assert math.isnan(diversity(lists, np.zeros((9, 5), np.float32)))
    assert math.isnan(diversity(np.array([[1, 0], [8, 2]], np.int32), text))  # no pair with texts


def test_novelty_by_hand() -> None:
    counts = np.array([0, 3, 1, 0])  # shares with one added each: 4/7, 2/7, 1/7
    lists = np.array([[1, 2], [3, 0]], np.int32)
    first = -(math.log2(4 / 7) + math.log2(2 / 7)) / 2
    assert novelty(lists, counts) == pytest.approx((first - math.log2(1 / 7)) / 2)
    assert math.isnan(novelty(np.zeros((2, 3), np.int32), counts))


def test_gini_by_hand() -> None:
    assert gini(np.array([5, 5, 5, 5])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)
    assert gini(np.array([1, 3])) == pytest.approx(1 / 4)
    values = np.random.default_rng(0).integers(0, 50, 30)
    pairs = np.abs(values[:, None] - values[None]).sum() / (2 * 30 * 30 * values.mean())  # the definition
    assert gini(values) == pytest.approx(pairs)
    assert math.isnan(gini(np.zeros(4, np.int64)))


def test_lists_as_a_whole() -> None:
    top = np.array([[1, 2, 0], [2, 3, 0]], np.int32)
    assert recommended_times(top, 4).tolist() == [1, 2, 1, 0]
    found = spread(top, np.eye(5, dtype=np.float32), np.array([0, 1, 1, 1, 1]))
    assert found == {
        "coverage@10": pytest.approx(0.75),
        "diversity@10": pytest.approx(1.0),
        "novelty@10": pytest.approx(2.0),
        "Gini@10": pytest.approx(3 / 8),
    }
    wide = np.tile(np.arange(1, 21, dtype=np.int32), (2, 1))  # only the first ten count
    assert spread(wide, np.zeros((41, 3), np.float32), np.ones(41, np.int64))["coverage@10"] == 0.25


def test_groups_of_users_by_their_training_events() -> None:
    group, names = activity_groups(np.array([1, 2, 3, 4, 5, 6, 7, 8]))
    assert group.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert names == ("1-2 events", "3-4 events", "5-6 events", "7-8 events")
    group, names = activity_groups(np.array([3, 3, 3, 3, 9]))
    assert names == ("3 events", "9 events")
    assert group.tolist() == [0, 0, 0, 0, 1]
    assert activity_groups(np.zeros(0, np.int64))[1] == ()


def test_groups_of_items_by_their_share_of_choices() -> None:
    counts = np.array([0, 10, 10, 30, 30, 10, 6, 4, 0])
    names = [POPULARITY[group] for group in popularity_groups(counts)[1:]]
    assert names == ["mid", "mid", "head", "mid", "tail", "tail", "tail", "unseen"]
    assert set(popularity_groups(np.zeros(3, np.int64)).tolist()) == {3}


def test_intervals_agree_with_scipy_where_every_user_has_one_place() -> None:
    values = np.random.default_rng(1).normal(2.0, 1.0, 300)
    low, high = ends(drawn_means(values[:, None], np.arange(300))[:, 0])
    other = scipy_bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=1).confidence_interval
    assert (low, high) == pytest.approx((other.low, other.high), abs=0.02)


def test_intervals_draw_users_and_not_places() -> None:
    """Twenty copies of every place of a user say no more than one."""
    values = np.random.default_rng(2).normal(size=100)
    once = drawn_means(values[:, None], np.arange(100))
    copied = drawn_means(np.repeat(values, 20)[:, None], np.repeat(np.arange(100), 20))
    assert copied == pytest.approx(once)
    assert drawn_means(values[:, None], np.arange(100), seed=1) != pytest.approx(once)


def test_a_user_with_more_places_weighs_more() -> None:
    values, owners = np.array([[1.0], [1.0], [1.0], [0.0]]), np.array([7, 7, 7, 9])
    assert set(np.round(drawn_means(values, owners)[:, 0], 6).tolist()) == {0.0, 0.75, 1.0}


def test_differences_are_paired() -> None:
    """Two columns that differ by a constant differ by it in every draw, however much they vary."""
    values = np.random.default_rng(3).normal(size=200)
    means = drawn_means(np.stack([values + 0.1, values], 1), np.random.default_rng(3).integers(50, size=200))
    assert means[:, 0] - means[:, 1] == pytest.approx(0.1)


@pytest.fixture(scope="module")
def task() -> EvalTask:
    def encode(texts: Sequence[str]) -> Floats:
        return np.zeros((len(texts), TEXT_DIM), np.float32)

    return make_tasks("leave-one-out", generate(users=80, items=90, events=24), encode)[0]


def score(positions: Rows) -> torch.Tensor:
    """Whole numbers, so that many are equal."""
    items = torch.arange(91)[None]
    return ((items * 7919 + torch.from_numpy(positions)[:, None] * 31) % 40).float()


def test_the_first_are_those_of_a_stable_sort() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).integers(0, 6, (50, 40))).float()
    scores[:, 5:] = torch.where(scores[:, 5:] < 3, -torch.inf, scores[:, 5:])
    assert torch.equal(first(scores, 20), scores.sort(dim=1, descending=True, stable=True).indices[:, :20])


@pytest.mark.parametrize("filter_seen", [True, False])
def test_lists_and_ranks_are_those_of_the_plain_form(task: EvalTask, filter_seen: bool) -> None:
    found = recommended(task.rows, task.positions, score, filter_seen=filter_seen)
    assert (found.rank == ranks(task.rows, task.positions, score, filter_seen=filter_seen)).all()
    assert found.top.shape == (len(task.positions), TOP)
    assert found.top.dtype == np.int32
    owner = task.rows.owner()
    for position, rank, top in zip(task.positions[:40].tolist(), found.rank[:40].tolist(), found.top[:40], strict=True):
        if rank < TOP:  # the rank is that of the last item of this score
            scores = score(np.array([position]))[0]
            assert scores[int(top[rank])] == scores[int(task.rows.item[position])]
            assert int(task.rows.item[position]) in top[: rank + 1]
        if filter_seen:
            assert not set(top.tolist()) & set(task.rows.item[task.rows.starts[owner[position]] : position].tolist())


def test_equal_scores_are_listed_in_the_order_of_their_rows_and_rank_last(task: EvalTask) -> None:
    found = recommended(task.rows, task.positions, lambda some: torch.zeros(len(some), 91), filter_seen=False)
    assert (found.rank == 89).all()
    assert (found.top == np.arange(1, TOP + 1)).all()


def test_only_candidates_are_ranked(task: EvalTask) -> None:
    few = np.zeros(91, np.bool_)
    few[[3, 5, 8]] = True
    found = recommended(task.rows, task.positions, score, filter_seen=False, candidates=few)
    wanted = few[task.rows.item[task.positions]]
    assert (found.rank[wanted] < 3).all()
    assert (found.rank[~wanted] == MISSED).all()
    assert set(found.top.ravel().tolist()) == {0, 3, 5, 8}
    assert (found.top[:, 3:] == 0).all()
    groups = np.arange(len(task.positions)) % 2
    by_group = recommended(
        task.rows, task.positions, score, filter_seen=False, candidates=np.stack([few, ~few]), groups=groups
    )
    assert (by_group.rank[groups == 0] == found.rank[groups == 0]).all()
    assert not set(by_group.top[groups == 1].ravel().tolist()) & {3, 5, 8}


def test_intervals_are_over_users_not_events() -> None:
    def between(values: list[float], owners: list[int]) -> tuple[float, float]:
        low, high = ends(drawn_means(np.array(values)[:, None], np.array(owners)))
        return low, high

    assert between([0.25] * 50, [at // 5 for at in range(50)]) == (0.25, 0.25)
    low, high = between([1.0, 0.0] * 500, list(range(1000)))
    assert 0.46 < low < 0.48 < 0.52 < high < 0.54
    low, high = between([1.0] * 500 + [0.0] * 500, [at // 50 for at in range(1000)])  # 20 users
    assert high - low > 0.3
