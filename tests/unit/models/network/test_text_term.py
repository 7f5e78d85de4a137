"""The text term of the sum: the projection of texts, and what the last choices' texts add to every item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.data.histories import Floats
from models.network.blend import Blend, Neighbours, Texts, blend_scores, mean_texts, no_neighbours, scaled_texts
from models.network.projection import fit_projection, no_projection

WIDTH = 12
COUNT = np.array([2, 1, 0])
RECENT = np.array([(0, 1, 0), (0, 5, 1), (1, 2, 0)])
"""User 0 chose item 1 last, before it item 5, which came after training; user 1 chose item 2, user 2 nothing."""
BLEND = Blend(last=3, text=4.0, text_fade=0.5, text_new=4.0)


def some_texts(rows: int, seed: int = 0) -> Floats:
    """Texts of unit length; row 0 and the last one are empty."""
    texts = np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    texts[[0, -1]] = 0
    return texts


def none_new(texts: Floats) -> Texts:
    return Texts(texts, np.zeros(len(texts), np.bool_))


def known(rows: int) -> np.ndarray:
    return np.arange(rows) > 0


@pytest.mark.parametrize("width", [1, 5, WIDTH, 40])
def test_projected_texts_have_unit_length_and_no_text_has_none(width: int) -> None:
    texts = some_texts(30)
    projection = fit_projection(texts, known(30), width)
    found = projection.apply(texts)
    assert found.dtype == np.float32
    assert found.shape == (30, min(width, WIDTH)) == (30, projection.width)
    assert np.linalg.norm(found[1:-1], axis=1) == pytest.approx(np.ones(28), abs=1e-6)
    assert not found[[0, -1]].any()


def test_only_items_of_the_training_part_decide_the_projection() -> None:
    texts, use = some_texts(30), known(30)
    use[20:] = False
    other = texts.copy()
    other[20:] = some_texts(10, seed=1)
    one, two = fit_projection(texts, use, 5), fit_projection(other, use, 5)
    assert np.array_equal(one.mean, two.mean)
    assert np.array_equal(one.matrix, two.matrix)


def test_directions_that_all_texts_share_weigh_less_but_not_nothing() -> None:
    """The variance of a component is the root of what it was, relative to the others."""
    texts = some_texts(2000, seed=2) * np.linspace(4, 1, WIDTH, dtype=np.float32)
    projection = fit_projection(texts, known(2000), 3)
    before = np.linalg.eigvalsh(np.cov(texts[1:-1].T))[::-1][:3]
    after = ((texts[1:-1] - projection.mean) @ projection.matrix).var(0)
    assert after / after[0] == pytest.approx(np.sqrt(before / before[0]), rel=0.01)


@pytest.mark.parametrize("rows", [2, 3])
def test_too_few_texts_make_no_term(rows: int) -> None:
    """Of these rows the first and the last have no text."""
    assert fit_projection(some_texts(rows), known(rows), 5).width == 0
    assert fit_projection(some_texts(9) * 0, known(9), 5).width == 0
    assert no_projection(WIDTH).apply(some_texts(4)).shape == (4, 0)


def test_the_term_is_the_decayed_mean_of_the_last_texts_against_each_item() -> None:
    texts = some_texts(7)
    scores = torch.zeros(3, 7)
    found = blend_scores(
        scores, RECENT, COUNT, BLEND, no_neighbours(4), np.zeros(5, np.float32), none_new(texts)
    ).numpy()
    users = np.stack(((texts[1] + 0.5 * texts[5]) / 1.5, texts[2], 0 * texts[0]))
    assert found == pytest.approx(4.0 * users @ texts.T, abs=1e-6)
    assert not found[:, 0].any(), "no text, no part"
    assert not scores.any(), "the given scores stay"


def test_a_choice_after_training_has_a_text_and_no_neighbours() -> None:
    near = Neighbours(np.full((5, 1), 4), np.ones((5, 1), np.float32))
    blend = replace(BLEND, neighbour=1.0, fade=0.5)
    plain = blend_scores(
        torch.zeros(3, 7), RECENT, COUNT, replace(blend, text=0.0, text_new=0.0), near, np.zeros(5, np.float32)
    )
    assert plain[:, 4].tolist() == [1.5, 1.0, 0.0], "unknown rows are row 0"
    both = blend_scores(torch.zeros(3, 7), RECENT, COUNT, blend, near, np.zeros(5, np.float32), none_new(some_texts(7)))
    alone = blend_scores(
        torch.zeros(3, 7), RECENT, COUNT, BLEND, no_neighbours(4), np.zeros(5, np.float32), none_new(some_texts(7))
    )
    assert (both - plain).numpy() == pytest.approx(alone.numpy(), abs=1e-6)


@pytest.mark.parametrize("texts", [None, none_new(np.zeros((7, 0), np.float32)), none_new(some_texts(7))])
def test_without_a_weight_the_sum_has_the_same_bits(texts: Texts | None) -> None:
    scores = torch.from_numpy(np.random.default_rng(3).normal(size=(3, 7)).astype(np.float32))
    near = Neighbours(np.full((5, 2), 3), np.full((5, 2), 0.1, np.float32))
    blend = Blend(last=3, neighbour=2.0, prior=0.5)
    popular = np.linspace(-1, 1, 5, dtype=np.float32)
    expected = blend_scores(scores, RECENT, COUNT, blend, near, popular)
    assert torch.equal(blend_scores(scores, RECENT, COUNT, blend, near, popular, texts), expected)


def test_a_user_is_not_changed_by_the_others() -> None:
    texts, many = some_texts(7), np.concatenate([RECENT + np.array((3 * at, 0, 0)) for at in range(50)])
    alone, together = mean_texts(RECENT, 3, BLEND, texts), mean_texts(many, 150, BLEND, texts)
    assert torch.equal(together.reshape(50, 3, WIDTH), alone.expand(50, 3, WIDTH))


def test_new_items_have_a_weight_of_their_own() -> None:
    texts, new = some_texts(7), np.arange(7) > 4
    blend = replace(BLEND, text_new=10.0)
    found = blend_scores(
        torch.zeros(3, 7), RECENT, COUNT, blend, no_neighbours(4), np.zeros(5, np.float32), Texts(texts, new)
    )
    users = mean_texts(RECENT, 3, blend, texts).numpy()
    assert found.numpy() == pytest.approx(users @ texts.T * np.where(new, 10.0, 4.0), abs=1e-5)
    scaled = scaled_texts(Texts(texts, new), blend)
    assert 4.0 * users @ scaled.T == pytest.approx(found.numpy(), abs=1e-5), "what score.onnx multiplies"
