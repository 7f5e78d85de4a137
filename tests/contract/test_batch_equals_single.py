"""With the real ONNX graphs: micro-batches and one event at a time give bit-identical states and the same slates."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from stream.catalogue.catalogue import Catalogue
from stream.core import state
from stream.core.fold import advance, apply_events, rank
from stream.core.messages import CLICK, COMMENT, NAN, RATING, SourceEvent
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import Models, open_models

TOPICS = ("clicks", "ratings", "comments")
USERS = 40


def made_up(seed: int, count: int, items: int, text_dim: int) -> list[SourceEvent]:
    """Events of USERS users, a few of them busy; comments carry a unit text vector, as the comment stage sets it."""
    draw = random.Random(seed)
    vectors = np.random.default_rng(seed)
    events = []
    for offset in range(count):
        behaviour = draw.choices((CLICK, RATING, COMMENT), (6, 3, 1))[0]
        user = b"u%d" % min(draw.randrange(USERS), draw.randrange(USERS))
        payload = json.dumps([seed, offset]).encode()
        event = SourceEvent(
            behaviour, 0, offset, offset, user, f"item-{draw.randrange(items + 3)}", 1_000 * draw.randrange(10**6),
            draw.randrange(1, 11) / 2 if behaviour != CLICK else NAN, draw.choice(("", "home", "search", "new")), "", "",
            payload,
        )  # fmt: skip
        if behaviour == COMMENT:
            vector = vectors.standard_normal(text_dim).astype(np.float32)
            event.vector = vector / np.linalg.norm(vector)
        events.append(event)
    return events


def folded(bundle: Bundle, models: Models, events: list[SourceEvent], sizes: list[int]) -> dict[bytes, bytes]:
    """Records of all users after the events, folded in micro-batches of these sizes."""
    snapshot = Catalogue(bundle, lambda texts: np.zeros((len(texts), bundle.item_dim), np.float32)).snapshot
    records: dict[bytes, bytes] = {}
    at = 0
    for size in sizes:
        groups: dict[bytes, list[SourceEvent]] = {}
        for event in events[at : at + size]:
            groups.setdefault(event.user, []).append(event)
        at += size
        batches = [
            apply_events(user, 0, records.get(user), mine, TOPICS, bundle.state_model, bundle.hidden)
            for user, mine in groups.items()
        ]
        advance(batches, models, snapshot, bundle.spec)
        for batch in batches:
            batch.state.folded = []
            records[batch.user] = state.encode(batch.state)
    assert at >= len(events)
    return records


@pytest.fixture(scope="module")
def opened(bundles: Path) -> tuple[Bundle, Models]:
    bundle = load(current(bundles))
    return bundle, open_models(bundle, "cpu")


@pytest.mark.parametrize("seed", range(5))
def test_states_are_bit_identical(opened: tuple[Bundle, Models], seed: int) -> None:
    bundle, models = opened
    events = made_up(seed, 300, len(bundle.item_ids), bundle.spec.text_dim)
    draw = random.Random(seed)
    sizes: list[int] = []
    while sum(sizes) < len(events):
        sizes.append(draw.choice((1, 2, 3, 7, 16, 33, 64, 150)))
    single = folded(bundle, models, events, [1] * len(events))
    assert folded(bundle, models, events, sizes) == single
    assert folded(bundle, models, events, [len(events)]) == single


def test_slates_are_equal_but_for_ties(opened: tuple[Bundle, Models]) -> None:
    bundle, models = opened
    catalogue = Catalogue(bundle, lambda texts: np.zeros((len(texts), bundle.item_dim), np.float32))
    catalogue.apply(
        [
            (n, name.encode(), json.dumps({"item": name, "title": name}).encode())
            for n, name in enumerate(bundle.item_ids)
        ]
    )
    events = made_up(11, 200, len(bundle.item_ids), bundle.spec.text_dim)
    records = folded(bundle, models, events, [200])
    batches = [
        apply_events(user, 0, record, [], TOPICS, bundle.state_model, bundle.hidden) for user, record in records.items()
    ]
    together = rank(batches, models, catalogue.snapshot, 10, filter_seen=True)
    for batch, slate in zip(batches, together, strict=True):
        alone = rank([batch], models, catalogue.snapshot, 10, filter_seen=True)[0]
        for mine, other in zip(slate, alone, strict=True):
            assert mine.item == other.item or abs(mine.score - other.score) < 1e-3
