"""What is served is what was trained: the same events give the same slates through messages, fold and ONNX as in torch.

A made-up world with clicks, ratings, comments and scenes goes both ways: as columns through models.data.histories and the torch
network, and as JSON messages through the decoder, the fold, the encoder and the exported graphs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from aiokafka.partitioner import murmur2 as kafka_hash

from export.publish import build, publish
from models.data.dataset import DataSet, event_messages, item_messages
from models.data.generated import generate
from models.data.histories import Histories, histories
from models.network.blend import Blend
from models.network.network import InterestNetwork, NetworkSize
from models.network.projection import fit_projection
from models.network.text import TextEncoder
from models.training.run import DataInfo, Run
from stream.catalogue.catalogue import Catalogue
from stream.core.decoder import EventDecoder
from stream.core.features import CHOICES, InputSpec, item_text
from stream.core.fold import UserBatch, advance, apply_events, rank
from stream.core.messages import CLICK, SOURCE_TOPICS, Scored, SourceEvent
from stream.inference.bundle import Bundle, load
from stream.inference.models import Models, open_models
from stream.inference.text_encoder import Encoder, open_encoder
from tests.bundles import ring, text_onnx
from tests.trained import blended, last_states

UNTRAINED = 8  # items that come after training
TOP = 10


class World(NamedTuple):
    """One data set and everything made of it."""

    data: DataSet
    run: Run
    bundle: Bundle
    models: Models
    encoder: Encoder
    catalogue: Catalogue


def acting(data: DataSet) -> DataSet:
    """Two clicks in three say what the user did, one of them a thing that the network does not know."""
    names = ("purchase", "", "skip", "share", "")
    drawn = [names[(7 * row) % 5] for row in range(len(data.events))]
    clicked = pl.when(pl.col("behaviour") == CLICK).then(pl.Series("action", drawn)).otherwise(pl.lit(""))
    return replace(data, events=data.events.with_columns(action=clicked))


@pytest.fixture(
    scope="module",
    params=[
        (CHOICES, (), 0.0),
        (("clicks", "comments"), (), 0.0),
        (CHOICES, ("purchase", "skip"), 0.0),
        (CHOICES, (), 9.0),
    ],
    ids=lambda given: ",".join(given[0] + given[1]) + (",texts" if given[2] else ""),
)
def world(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> World:
    """With every choice; with some of them, ratings are inputs only then; with actions that the network reads; with texts."""
    choices, actions, text = request.param
    data = generate(users=12, items=80, events=40, seed=3)
    data = acting(data) if actions else data
    trained = data.items[:-UNTRAINED]
    texts = [item_text(item.title, item.text, item.categories) for item in trained]
    vectors = np.concatenate((np.zeros((1, 384), np.float32), TextEncoder(cache=None).encode(texts)))
    torch.manual_seed(5)
    size = NetworkSize(items=len(trained), scenes=len(data.scenes), item=32, width=32, actions=len(actions))
    network = InterestNetwork(size, torch.from_numpy(vectors)).eval().requires_grad_(False)
    if network.action is not None:
        torch.nn.init.normal_(network.action.weight[1:])
    run = Run(
        network=network,
        spec=InputSpec(data.rating_scale, data.scenes, 384, choices, actions=actions),
        item_ids=tuple(item.item for item in trained),
        popularity=np.arange(len(trained) + 1, dtype=np.float32),
        text=vectors,
        data=DataInfo(data.name, "0" * 64, len(data.events)),
        metrics={},
        blend=Blend(
            last=6, fade=0.7, neighbour=1.5, prior=0.8, evidence=3.0, text=text, text_fade=0.5, text_new=2 * text
        ),
        neighbours=ring(len(trained), 5),
        new=np.zeros(len(vectors), np.bool_),
        projection=fit_projection(vectors, np.arange(len(vectors)) > 0, 32),
    )
    bundle = load(publish(build(run, text=text_onnx()), tmp_path_factory.mktemp("bundles")))
    encoder = open_encoder(bundle, "cpu")
    catalogue = Catalogue(bundle, encoder.item_vectors)
    messages = [(at, message.key, message.value) for at, message in enumerate(item_messages(data.items))]
    assert catalogue.apply(messages) == []
    return World(data, run, bundle, open_models(bundle, "cpu"), encoder, catalogue)


def served(world: World, k: int = TOP) -> dict[str, tuple[UserBatch, list[Scored]]]:
    """User -> state and slate after all events, by the serving side's own code."""
    decoder = EventDecoder(kafka_hash, 1, world.bundle.spec.rating_scale)
    events: dict[bytes, list[SourceEvent]] = defaultdict(list)
    for offset, message in enumerate(event_messages(world.data.events)):
        event = decoder.decode(SOURCE_TOPICS.index(message.topic), 0, offset, 2**42, message.key, message.value)
        if event.text:
            event.vector = world.encoder.encode(event.text)
        events[event.user].append(event)
    batches = [
        apply_events(user, 0, None, own, SOURCE_TOPICS, world.bundle.state_model, world.bundle.hidden)
        for user, own in events.items()
    ]
    snapshot = world.catalogue.snapshot
    advance(batches, world.models, snapshot, world.bundle.spec)
    slates = rank(batches, world.models, snapshot, k, filter_seen=True)
    return {batch.user.decode(): (batch, slate) for batch, slate in zip(batches, slates, strict=True)}


def trained(world: World) -> tuple[InterestNetwork, Histories, torch.Tensor, tuple[str, ...], Any]:
    """Network, rows, item matrix with the late items, the ids of its rows, and the late items' BERT vectors."""
    network, data = world.run.network, world.data
    late = data.items[-UNTRAINED:]
    encoder = TextEncoder(cache=None)
    texts = encoder.encode([item_text(item.title, item.text, item.categories) for item in late])
    items = torch.cat((network.item_matrix(), network.item_vector(torch.from_numpy(texts))))
    ids = (*world.run.item_ids, *(item.item for item in late))
    return network, histories(data.events, None, ids, world.run.spec, encoder.encode), items, ids, texts


def test_the_same_states_and_slates(world: World) -> None:
    network, rows, items, ids, late = trained(world)
    with torch.inference_mode():
        h = last_states(network, rows, items)
        scores = blended(world.run, rows, network.query(h) @ items.T, late if world.run.text_width else None)
    scores[:, 0] = -math.inf
    found = served(world)
    assert set(found) == set(rows.users)
    shared = 0
    for index, user in enumerate(rows.users):
        batch, slate = found[user]
        own = scores[index].copy()
        own[rows.item[rows.starts[index] : rows.starts[index + 1]]] = -math.inf
        best: Any = np.argsort(-own, kind="stable")[:TOP]
        expected_h = h[index].numpy()
        assert np.abs(batch.state.h.astype(np.float32) - expected_h).max() < 4e-3, "float16 after each event, no more"
        assert [one.score for one in slate] == pytest.approx(own[best].tolist(), abs=2e-2)
        shared += len({ids[row - 1] for row in best} & {one.item for one in slate})
    assert shared >= 0.97 * TOP * len(rows.users)


def test_items_that_came_after_training_are_ranked_by_their_text(world: World) -> None:
    late = {item.item for item in world.data.items[-UNTRAINED:]}
    everything = served(world, k=len(world.data.items))
    for user, (_, slate) in everything.items():
        had = set(world.data.events.filter(user=user)["item"])
        assert {one.item for one in slate} & late == late - had


def test_nothing_seen_is_in_a_slate(world: World) -> None:
    had = defaultdict(set)
    for user, item in world.data.events.select("user", "item").iter_rows():
        had[user].add(item)
    for user, (_, slate) in served(world).items():
        assert len(slate) == TOP
        assert not had[user] & {one.item for one in slate}


def test_the_action_of_a_click_moves_the_state(world: World) -> None:
    decoder = EventDecoder(kafka_hash, 1, world.bundle.spec.rating_scale)

    def after(action: str) -> Any:
        body = b'{"user": "u", "item": "item1", "time": 1, "action": "%s"}' % action.encode()
        event = decoder.decode(0, 0, 0, 2, b"u", body)
        batch = apply_events(b"u", 0, None, [event], SOURCE_TOPICS, world.bundle.state_model, world.bundle.hidden)
        advance([batch], world.models, world.catalogue.snapshot, world.bundle.spec)
        return batch.state.h.tobytes()

    expected = 3 if world.run.spec.actions else 1
    assert len({after(action) for action in ("purchase", "skip", "share", "view")}) == expected


def test_the_text_of_a_comment_moves_the_state(world: World) -> None:
    decoder = EventDecoder(kafka_hash, 1, world.bundle.spec.rating_scale)

    def after(text: str) -> Any:
        body = b'{"user": "u", "item": "item1", "time": 1, "text": "%s"}' % text.encode()
        event = decoder.decode(2, 0, 0, 2, b"u", body)
        event.vector = world.encoder.encode(text)
        batch = apply_events(b"u", 0, None, [event], SOURCE_TOPICS, world.bundle.state_model, world.bundle.hidden)
        advance([batch], world.models, world.catalogue.snapshot, world.bundle.spec)
        return batch.state.h

    assert not np.array_equal(after("I loved every minute"), after("the worst film of the year"))
