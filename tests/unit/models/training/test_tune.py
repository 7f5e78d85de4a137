"""The weights of the sum: validation gives the text term a weight where texts tell what comes next, and none elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from models.data.dataset import Event, dataset
from models.data.histories import Doubles, Floats, histories
from models.interfaces import TrainingData
from models.network.blend import Blend, Texts, no_neighbours
from models.network.network import InterestNetwork, NetworkSize
from models.network.projection import fit_projection
from models.training import unseen
from models.training.sequential.freshet import BlendRanker, tune
from models.training.sequential.network_model import NetworkRanker
from models.training.tuning import validation_gain
from stream.core.features import InputSpec
from stream.core.messages import CLICK, Item

pytestmark = pytest.mark.usefixtures("one_thread")

USERS, EACH, WIDTH = 60, 5, 16


def training_of(text: Floats) -> TrainingData:
    """Every user clicks items of his own that nobody else has; the last is watched and is new."""
    names = [f"{user}-{at}" for user in range(USERS) for at in range(EACH)]
    events = [Event(name.split("-")[0], name, CLICK, 1000 * at) for at, name in enumerate(names)]
    data = dataset("made up", events, [Item(name, "") for name in names], (0.5, 5.0))
    spec = InputSpec(data.rating_scale, (), WIDTH)

    def nothing_read(texts: Sequence[str]) -> Floats:
        return np.zeros((len(texts), WIDTH), np.float32)

    rows = histories(data.events, None, names, spec, nothing_read)
    use = np.ones(len(rows.item), np.bool_)
    use[rows.starts[1:] - 1] = False
    return TrainingData(data.items, spec, text, rows, use, rows.starts[1:] - 1)


def ranker_of(training: TrainingData) -> BlendRanker:
    """A network that has learned nothing."""
    items = len(training.items)
    torch.manual_seed(0)
    size = NetworkSize(items=items, scenes=0, item=16, width=16, text=WIDTH)
    network = InterestNetwork(size, torch.from_numpy(training.text)).eval().requires_grad_(False)
    network.ids.weight *= torch.from_numpy(training.known)[:, None]  # as in training
    projection = fit_projection(training.text, training.known, WIDTH)
    return BlendRanker(
        NetworkRanker(network),
        no_neighbours(items),
        Blend(20),
        np.zeros(items + 1, np.float32),
        projection,
        Texts(projection.apply(training.text), ~training.known),
    )


def texts_of(themes: Doubles) -> Floats:
    """Each user's items have his theme, with something of their own."""
    own = np.random.default_rng(1).normal(scale=0.2, size=(USERS * EACH, WIDTH))
    text = np.concatenate((np.zeros((1, WIDTH)), themes.repeat(EACH, axis=0) + own))
    return cast(Floats, text.astype(np.float32))


@pytest.fixture(scope="module")
def themes() -> TrainingData:
    return training_of(texts_of(np.random.default_rng(2).normal(size=(USERS, WIDTH))))


def test_new_items_are_found_by_texts_like_those_of_the_last_choices(themes: TrainingData) -> None:
    assert not themes.known[themes.rows.item[themes.watched]].any(), "training has none of them"
    plain = ranker_of(themes)
    chosen = tune(themes, plain)
    assert 0 < chosen.blend.text <= chosen.blend.text_new
    assert validation_gain(themes, plain) < 0.1
    assert validation_gain(themes, chosen) > 0.6


def test_known_items_are_ranked_as_if_they_were_new(themes: TrainingData) -> None:
    """The last but one event of each user is watched: an item of training, whose vector its text alone gives."""
    watched = replace(themes, watched=themes.rows.starts[1:] - 2)
    assert watched.known[watched.rows.item[watched.watched]].all()
    ranker = ranker_of(watched)
    pools = unseen.pools(watched, ranker.interest.network, 20)
    assert sum(len(pool.wanted) for pool in pools) == USERS
    assert len(np.unique(np.concatenate([pool.items[1:] for pool in pools]))) == watched.known.sum()
    gains = [unseen.gain(pools, Blend(20, text_new=text), ranker.texts) for text in (0.0, 40.0)]
    assert gains[1] > gains[0] + 0.1, "pools are small, and even a random text tower keeps themes together"


def test_an_item_does_not_decide_its_own_vector(themes: TrainingData) -> None:
    """Nobody has it among the events before a watched one, so that it could change a score only by its own vector."""
    watched = replace(themes, watched=themes.rows.starts[1:] - 2)
    ranker, other = ranker_of(watched), ranker_of(watched)
    item = int(watched.rows.item[watched.watched[0]])
    other.interest.network.ids.weight[item] += 5.0
    one, two = (unseen.pools(watched, made.interest.network, 20) for made in (ranker, other))
    for before, after in zip(one, two, strict=True):
        if item in before.items:
            assert torch.equal(before.scores, after.scores)
        else:
            assert not torch.equal(before.scores, after.scores), "it counts for the vectors of the others"


def test_too_few_choices_choose_nothing(themes: TrainingData) -> None:
    few = replace(themes, watched=themes.watched[:20])
    assert unseen.pools(few, ranker_of(few).interest.network, 20) == []


def test_texts_that_are_all_the_same_have_no_weight() -> None:
    text = np.ones((1 + USERS * EACH, WIDTH), np.float32)
    text[0] = 0
    chosen = tune(training_of(text), ranker_of(training_of(text)))
    assert chosen.projection.width == 0
    assert chosen.blend == Blend(20)
