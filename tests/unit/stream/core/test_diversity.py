"""The re-ranking against the plainest possible reference: determinants, sets and divergences, one user at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.core.diversity import CALIBRATION, LEAST, SMOOTHING, Items, Method, reranked

NEAR = 2e-4
"""Sums that differ by less count as equal: the reference computes in another order."""


class Case(NamedTuple):
    """Candidates of several users, in the form of the reference and of the function."""

    scores: np.ndarray
    items: Items
    categories: list[list[set[int]]]
    history: list[list[set[int]]]


def padded(sets: Sequence[set[int]], width: int, draw: np.random.Generator) -> np.ndarray:
    out = np.zeros((len(sets), width), np.int32)
    for row, one in zip(out, sets, strict=True):
        row[: len(one)] = draw.permutation(sorted(one))
    return out


def make_case(seed: int, users: int, n: int, labels: int = 8, empty: int = 0, twins: bool = True) -> Case:
    draw = np.random.default_rng(seed)
    width, dim = 4, 6
    vectors = draw.normal(size=(users, n, dim)).astype(np.float32)
    vectors[draw.random((users, n)) < 0.1] = 0.0
    names = draw.choice(100_000, labels, replace=False) + 1 if labels else np.zeros(0, np.int64)

    def some() -> set[int]:
        count = min(int(draw.integers(0, width + 1)), labels)
        return set(draw.choice(names, count, replace=False).tolist()) if count else set()

    categories = [[some() for _ in range(n)] for _ in range(users)]
    history = [[some() for _ in range(int(draw.integers(0, 7)))] for _ in range(users)]
    if twins and n > 1:
        vectors[:, -1] = vectors[:, 0]
        for of_user in categories:
            of_user[-1] = of_user[0]
    scores = -np.sort(-draw.normal(size=(users, n)).astype(np.float32) * 3, axis=1)
    if empty:
        scores[:, n - empty :] = -np.inf
    flat = [one for of_user in history for one in of_user]
    items = Items(
        vectors,
        np.stack([padded(of_user, width, draw) for of_user in categories])
        if n
        else np.zeros((users, 0, width), np.int32),
        padded(flat, width, draw) if flat else np.zeros((0, width), np.int32),
        np.repeat(np.arange(users), [len(of_user) for of_user in history]),
    )
    return Case(scores, items, categories, history)


def similarity(case: Case, user: int) -> Any:
    vectors = case.items.vectors[user].astype(np.float64)
    length = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(length > 0, length, 1.0)[:, None]
    cosine = unit @ unit.T
    sets = case.categories[user]
    jaccard = np.array([[len(a & b) / max(1, len(a | b)) for b in sets] for a in sets])
    both = (cosine + jaccard) / 2 if any(sets) else cosine
    np.fill_diagonal(both, 1.0)  # an item is itself, whatever is known of it
    return both


def divergence(mix: dict[int, float], shown: Sequence[set[int]]) -> float:
    total = 0.0
    for label, share in mix.items():
        part = sum(1 / len(one) for one in shown if label in one) / len(shown)
        total += share * math.log(share / ((1 - SMOOTHING) * part + SMOOTHING * share))
    return total


def mix_of(history: Sequence[set[int]]) -> dict[int, float]:
    found: dict[int, float] = {}
    for one in history:
        for label in one:
            found[label] = found.get(label, 0.0) + 1 / len(one)
    return {label: weight / sum(found.values()) for label, weight in found.items()}


def left_of(similar: np.ndarray, taken: Sequence[int], item: int) -> float:
    """By how much the determinant of the similarities grows, with near-duplicates left out."""
    kept: list[int] = []
    for one in taken:
        if ratio(similar, kept, one) >= LEAST:
            kept.append(one)
    return max(LEAST, ratio(similar, kept, item))


def ratio(similar: np.ndarray, kept: Sequence[int], item: int) -> float:
    every = [*kept, item]
    before = np.linalg.det(similar[np.ix_(kept, kept)]) if kept else 1.0
    return float(np.linalg.det(similar[np.ix_(every, every)]) / before)


def worth(case: Case, user: int, taken: Sequence[int], item: int, strength: float, method: Method) -> float:
    scores = case.scores[user].astype(np.float64)
    real = scores[np.isfinite(scores)]
    spread = real.std() or 1.0
    similar = similarity(case, user)
    novelty = math.log(left_of(similar, taken, item))
    if method == "mmr":
        novelty = -max((similar[item, one] for one in taken), default=0.0)
    mix, sets = mix_of(case.history[user]), case.categories[user]
    calibration = -divergence(mix, [sets[one] for one in (*taken, item)])
    return float((1 - strength) * (scores[item] - real[0]) / spread + strength * (novelty + CALIBRATION * calibration))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    users=st.integers(1, 3),
    n=st.integers(1, 12),
    labels=st.sampled_from((0, 3, 8, 200)),
    strength=st.floats(0.01, 1.0),
    method=st.sampled_from(("dpp", "mmr")),
    data=st.data(),
)
def test_each_item_taken_is_the_best_one_by_the_reference(
    seed: int, users: int, n: int, labels: int, strength: float, method: Method, data: st.DataObject
) -> None:
    case = make_case(seed, users, n, labels)
    k = data.draw(st.integers(1, n))
    chosen = reranked(case.scores, case.items, strength, k, method)
    for user in range(users):
        taken: list[int] = []
        for item in chosen[user].tolist():
            every = [worth(case, user, taken, one, strength, method) for one in range(n) if one not in taken]
            assert worth(case, user, taken, item, strength, method) >= max(every) - NEAR
            taken.append(item)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 20),
    empty=st.integers(0, 20),
    strength=st.floats(0.0, 1.0),
    method=st.sampled_from(("dpp", "mmr")),
)
def test_every_item_is_taken_once_and_empty_places_last(
    seed: int, n: int, empty: int, strength: float, method: Method
) -> None:
    empty = min(empty, n)
    case = make_case(seed, 3, n, empty=empty)
    chosen = reranked(case.scores, case.items, strength, n, method)
    assert np.array_equal(np.sort(chosen, axis=1), np.broadcast_to(np.arange(n), (3, n)))
    assert np.array_equal(chosen[:, n - empty :], np.broadcast_to(np.arange(n - empty, n), (3, empty)))


@pytest.mark.parametrize("method", ["dpp", "mmr"])
def test_strength_0_takes_the_first(method: Method) -> None:
    case = make_case(1, 4, 20)
    assert np.array_equal(reranked(case.scores, case.items, 0.0, 10, method), np.broadcast_to(np.arange(10), (4, 10)))


@pytest.mark.parametrize("method", ["dpp", "mmr"])
def test_a_shorter_slate_is_the_beginning_of_a_longer_one(method: Method) -> None:
    case = make_case(2, 8, 30)
    longer = reranked(case.scores, case.items, 0.4, 12, method)
    assert np.array_equal(reranked(case.scores, case.items, 0.4, 5, method), longer[:, :5])


@pytest.mark.parametrize("method", ["dpp", "mmr"])
def test_a_user_has_the_same_slate_alone_and_in_a_batch(method: Method) -> None:
    case = make_case(3, 9, 40)
    together = reranked(case.scores, case.items, 0.5, 10, method)
    for user in range(9):
        one, own = slice(user, user + 1), case.items.users == user
        alone = Items(
            case.items.vectors[one],
            case.items.categories[one],
            case.items.history[own],
            np.zeros(int(own.sum()), np.int64),
        )
        assert np.array_equal(reranked(case.scores[one], alone, 0.5, 10, method)[0], together[user])


@pytest.mark.parametrize("method", ["dpp", "mmr"])
def test_a_twin_waits_behind_what_is_new(method: Method) -> None:
    vectors = np.array([[[1, 0], [1, 0], [0, 1]]], np.float32)
    scores = np.array([[3.0, 2.9, 2.8]], np.float32)
    items = Items(vectors, np.zeros((1, 3, 0), np.int32), np.zeros((0, 0), np.int32), np.zeros(0, np.int64))
    assert reranked(scores, items, 0.8, 3, method).tolist() == [[0, 2, 1]]


def test_a_slate_follows_the_shares_of_the_users_own_categories() -> None:
    n = 40
    vectors = np.random.default_rng(0).normal(size=(1, n, 64)).astype(np.float32)
    categories = np.where(np.arange(n) < 20, 1, 2).astype(np.int32).reshape(1, n, 1)  # all of category 1 score higher
    scores = np.linspace(2, 1, n, dtype=np.float32)[None]
    shown = []
    for ones in (18, 10, 2):
        history = np.array([[1]] * ones + [[2]] * (20 - ones), np.int32)
        chosen = reranked(scores, Items(vectors, categories, history, np.zeros(20, np.int64)), 0.9, 10)
        shown.append(int((categories[0, chosen[0], 0] == 1).sum()))
    assert shown == sorted(shown, reverse=True)
    assert shown[0] > shown[2]


# caps


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    users=st.integers(1, 3),
    n=st.integers(1, 12),
    labels=st.sampled_from((0, 3, 8, 2000)),
    most=st.integers(0, 3),
    strength=st.floats(0.01, 1.0),
    method=st.sampled_from(("dpp", "mmr")),
)
def test_within_caps_each_item_taken_is_the_best_one_that_fits(
    seed: int, users: int, n: int, labels: int, most: int, strength: float, method: Method
) -> None:
    """Each category has its own cap, from none of it to any number; where nothing fits, the place stays empty."""
    case = make_case(seed, users, n, labels, empty=n // 4)
    draw = np.random.default_rng(seed)
    caps = {label: int(draw.integers(0, most + 1)) for sets in case.categories for one in sets for label in one}
    room = np.vectorize(lambda label: caps.get(label, 99), otypes=[np.int64])(case.items.categories)
    chosen = reranked(case.scores, case.items, strength, n, method, room=room)
    for user in range(users):
        sets, taken = case.categories[user], [one for one in chosen[user].tolist() if one >= 0]
        assert chosen[user].tolist() == taken + [-1] * (n - len(taken))
        assert len(set(taken)) == len(taken)

        def fitting(shown: Sequence[int], sets: Sequence[set[int]] = sets, user: int = user) -> list[int]:
            return [
                one for one in range(n)
                if one not in shown and np.isfinite(case.scores[user, one])
                and all(sum(label in sets[other] for other in shown) < caps[label] for label in sets[one])
            ]  # fmt: skip

        for place, item in enumerate(taken):
            free = fitting(taken[:place])
            assert item in free
            every = [worth(case, user, taken[:place], one, strength, method) for one in free]
            assert worth(case, user, taken[:place], item, strength, method) >= max(every) - NEAR
        assert not fitting(taken)


@pytest.mark.parametrize("method", ["dpp", "mmr"])
def test_caps_that_are_never_reached_change_nothing(method: Method) -> None:
    case = make_case(9, 100, 30)
    free = reranked(case.scores, case.items, 0.6, 10, method)
    wide = reranked(case.scores, case.items, 0.6, 10, method, room=np.full(case.items.categories.shape, 99))
    assert np.array_equal(free, wide)
