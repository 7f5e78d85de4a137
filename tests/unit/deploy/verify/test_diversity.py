"""What verify computes once more about a re-ranked slate: it accepts the worker's slates, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.verify.recompute import diversity as again
from deploy.verify.recompute.diversity import Pool, wrong_place
from stream.core import diversity
from stream.core.diversity import Items, numbered_categories, reranked

N, K, SIZE = 60, 8, 40
NAMES = tuple("abcdefgh")


def made(seed: int) -> tuple[Pool, list[frozenset[str]], Items]:
    draw = np.random.default_rng(seed)
    scores = -np.sort(-draw.normal(size=N).astype(np.float32))
    vectors = draw.normal(size=(N, 5)).astype(np.float32)
    vectors[3] = vectors[0]
    sets = [frozenset(draw.choice(NAMES, int(draw.integers(0, 4)), replace=False).tolist()) for _ in range(N + 12)]
    sets[3] = sets[0]
    numbers = numbered_categories([tuple(one) for one in sets])
    items = Items(vectors[None, :SIZE], numbers[None, :SIZE], numbers[N:], np.zeros(12, np.int64))
    return Pool(scores.astype(np.float64), vectors, sets[:N], SIZE), sets[N:], items


def worker(pool: Pool, items: Items, strength: float) -> list[int]:
    found: list[int] = reranked(pool.scores[None, :SIZE].astype(np.float32), items, strength, K)[0].tolist()
    return found


def test_both_have_the_same_constants() -> None:
    for name in ("CALIBRATION", "SMOOTHING", "LEAST"):
        assert getattr(again, name) == getattr(diversity, name)


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(8))
def test_a_workers_slate_is_right(seed: int, strength: float) -> None:
    pool, own, items = made(seed)
    assert wrong_place(worker(pool, items, strength), pool, own, strength) == (-1, 0.0)


def test_a_slate_of_another_strength_is_wrong() -> None:
    pool, own, items = made(1)
    assert wrong_place(list(range(K)), pool, own, 0.7)[0] > 0
    assert wrong_place(worker(pool, items, 0.9), pool, own, 0.1)[0] >= 0


def test_two_places_exchanged_are_wrong() -> None:
    pool, own, items = made(2)
    shown = worker(pool, items, 0.5)
    shown[1], shown[5] = shown[5], shown[1]
    assert wrong_place(shown, pool, own, 0.5)[0] == 1


def test_an_item_beyond_the_candidates_is_wrong() -> None:
    pool, own, items = made(3)
    shown = worker(pool, items, 0.5)
    shown[2] = N - 1
    assert wrong_place(shown, pool, own, 0.5)[0] == 2


def test_an_item_at_the_border_may_be_shown_or_not() -> None:
    pool, own, items = made(4)
    strength = 1.0
    pool.scores[SIZE] = pool.scores[SIZE - 1]  # another batch may have had this one among the candidates
    assert wrong_place(worker(pool, items, strength), pool, own, strength) == (-1, 0.0)
    exchanged = Items(
        np.concatenate((items.vectors[:, :-1], pool.vectors[None, SIZE : SIZE + 1]), 1), items.categories, items.history,
        items.users,
    )  # fmt: skip
    exchanged.categories[0, -1] = numbered_categories([tuple(one) for one in (*pool.categories, *own)])[SIZE]
    shown = [SIZE if one == SIZE - 1 else one for one in worker(pool, exchanged, strength)]
    assert wrong_place(shown, pool, own, strength) == (-1, 0.0)
