"""A new user's first slates lean on popularity, an old user's do not; an item unseen in training is ranked by its text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from export.publish import build, publish
from models.network.blend import Blend
from stream.catalogue.catalogue import Catalogue
from stream.core.fold import UserBatch, advance, apply_events, rank
from stream.core.messages import CLICK, NAN, SourceEvent
from stream.inference.bundle import Bundle, load
from stream.inference.models import Models, open_models
from stream.inference.text_encoder import open_encoder
from tests.bundles import text_onnx, tiny_run

ITEMS = 50
TOPICS = ("clicks", "ratings", "comments")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Models, Catalogue]:
    """The tiny bundle, whose item-1 is the most popular and item-50 the least, with much weight on popularity."""
    run = tiny_run(ITEMS, blend=Blend(last=5, fade=0.6, neighbour=0.2, prior=30.0, evidence=1.0))
    bundle = load(publish(build(run, text=text_onnx()), tmp_path_factory.mktemp("bundles")))
    catalogue = Catalogue(bundle, open_encoder(bundle, "cpu").item_vectors)
    names = [*bundle.item_ids, "new-1", "new-2"]
    catalogue.apply(
        [
            (at, name.encode(), json.dumps({"item": name, "title": f"About {name}"}).encode())
            for at, name in enumerate(names)
        ]
    )
    return bundle, open_models(bundle, "cpu"), catalogue


def after(served: tuple[Bundle, Models, Catalogue], items: list[str]) -> UserBatch:
    bundle, models, catalogue = served
    events = [
        SourceEvent(CLICK, 0, at, at, b"u", item, 1000 * at, NAN, "", "", "", b"%d" % at)
        for at, item in enumerate(items)
    ]
    batch = apply_events(b"u", 0, None, events, TOPICS, bundle.state_model, bundle.hidden)
    advance([batch], models, catalogue.snapshot, bundle.spec)
    return batch


def share_of_popular(served: tuple[Bundle, Models, Catalogue], batch: UserBatch) -> float:
    """How many of the ten best are among the ten most popular that the user has not had."""
    _, models, catalogue = served
    slate = {one.item for one in rank([batch], models, catalogue.snapshot, 10, filter_seen=False)[0]}
    return len(slate & {f"item-{row}" for row in range(1, 11)}) / 10


def test_popularity_leads_after_one_event_and_not_after_fifty(served: tuple[Bundle, Models, Catalogue]) -> None:
    draw = np.random.default_rng(1)
    few, many = [], []
    for _ in range(10):
        items = [f"item-{row}" for row in draw.integers(11, ITEMS + 1, 50)]
        few.append(share_of_popular(served, after(served, items[:1])))
        many.append(share_of_popular(served, after(served, items)))
    assert min(few) >= 0.8
    assert np.mean(many) < np.mean(few) - 0.3


def test_a_new_item_is_ranked_and_may_be_what_the_user_had(served: tuple[Bundle, Models, Catalogue]) -> None:
    _, models, catalogue = served
    snapshot = catalogue.snapshot
    batch = after(served, ["item-20", "new-1"])
    slate = rank([batch], models, snapshot, ITEMS + 2, filter_seen=True)[0]
    assert {one.item for one in slate} == {*snapshot._ids[1:]} - {"item-20", "new-1"}
    product = float(models_query(served, batch) @ snapshot.items[snapshot.row("new-2")])
    assert next(one.score for one in slate if one.item == "new-2") == pytest.approx(product, abs=1e-3), "its text alone"


def models_query(served: tuple[Bundle, Models, Catalogue], batch: UserBatch) -> np.ndarray:
    """query(h), found by scoring the unit vectors behind the bundle's rows: those have neither neighbours nor popularity."""
    bundle, models, _ = served
    items = np.concatenate((bundle.items, np.eye(bundle.item_dim, dtype=np.float32)))
    bias = np.full(len(items), -np.inf, np.float32)
    bias[len(bundle.items) :] = 0
    none = np.empty((0, 2), np.int64), np.empty((0, 3), np.int64)
    scores, rows = models.score(batch.state.h[None], items, bias, *none, np.ones(1, np.int64), bundle.item_dim)
    query: np.ndarray = scores[0][np.argsort(rows[0])]
    return query
