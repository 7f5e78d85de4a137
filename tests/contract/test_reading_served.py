"""A bundle that reads ratings: the worker's values are torch's, depend on the text alone, and training has the same ones."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from aiokafka.partitioner import murmur2 as kafka_hash

from export.publish import build, publish
from models.data.dataset import event_messages
from models.data.generated import DISLIKED, LIKED, generate
from models.network.network import InterestNetwork, NetworkSize
from models.network.text import TextEncoder, load_bert
from models.text_rating.head import HeadSettings, RatingHead
from models.text_rating.histories import read_histories
from models.text_rating.reading import Reading
from models.text_rating.tuned import TunedReader, TuneSettings
from models.training.run import DataInfo, Run, load_run, save_run
from stream.catalogue.catalogue import Catalogue
from stream.core.decoder import EventDecoder
from stream.core.errors import BundleError, DataError
from stream.core.features import InputSpec
from stream.core.fold import advance, apply_events
from stream.core.messages import SOURCE_TOPICS, SourceEvent
from stream.inference.bundle import MANIFEST, RATING, Bundle, load
from stream.inference.models import open_models
from stream.inference.text_encoder import Encoder, open_encoder
from tests.trained import last_states

SCALE = (0.5, 5.0)
CLASSES = (1.0, 2.0, 3.0, 4.0, 5.0)


class World(NamedTuple):
    run: Run
    files: dict[str, bytes]
    bundle: Bundle
    encoder: Encoder


def untaught(frozen: int = 4) -> Reading:
    """A reader whose upper layers differ from the text network's, with a random head: what it says is no rating."""
    torch.manual_seed(1)
    bert = load_bert()
    for layer in bert.encoder.layer[frozen:]:
        for parameter in layer.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
    head = RatingHead(384, CLASSES, (1.0, 5.0), HeadSettings())
    head.out.weight.data *= 30
    reader = TunedReader(bert, head).requires_grad_(False).eval()
    return Reading(reader, TuneSettings(frozen=frozen), CLASSES, (1.0, 5.0))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    data = generate(users=6, items=30, events=20, seed=4)
    torch.manual_seed(5)
    vectors = torch.nn.functional.normalize(torch.randn(31, 384), dim=-1)
    vectors[0] = 0
    size = NetworkSize(items=30, scenes=len(data.scenes), item=32, width=32)
    run = Run(
        network=InterestNetwork(size, vectors).eval().requires_grad_(False),
        spec=InputSpec(SCALE, data.scenes, 384),
        item_ids=tuple(item.item for item in data.items),
        popularity=np.zeros(31, np.float32),
        text=vectors.numpy(),
        data=DataInfo("generated", "0" * 64, len(data.events)),
        metrics={},
        reading=untaught(),
    )
    files = build(run)
    bundle = load(publish(files, tmp_path_factory.mktemp("bundles")))
    return World(run, files, bundle, open_encoder(bundle, "cpu"))


def reading_of(world: World) -> Reading:
    if world.run.reading is None:
        raise AssertionError
    return world.run.reading


def test_values_are_those_of_torch_on_the_bundles_scale(world: World) -> None:
    texts = [*LIKED, *DISLIKED, "word " * 200, "ä😀", "x"]
    expected = reading_of(world).values(texts, SCALE)
    found = [world.encoder.encode_and_read(text)[1] for text in texts]
    assert found == pytest.approx(expected.tolist(), abs=1e-3)
    assert np.ptp(expected) > 0.1
    assert all(SCALE[0] <= value <= SCALE[1] for value in found)


def test_a_value_depends_on_its_text_alone_and_the_vector_is_the_same(world: World) -> None:
    texts = [*LIKED, *DISLIKED]
    first = {text: world.encoder.encode_and_read(text) for text in texts}
    for text in reversed(texts):
        vector, value = world.encoder.encode_and_read(text)
        assert value == first[text][1]
        assert np.array_equal(vector, first[text][0])
        assert np.array_equal(vector, world.encoder.encode(text))


def test_the_empty_text_has_no_value(world: World) -> None:
    vector, value = world.encoder.encode_and_read("")
    assert math.isnan(value)
    assert not vector.any()


def test_a_bundle_without_reads_nothing(bundles: Path) -> None:
    from stream.inference.bundle import current

    encoder = open_encoder(load(current(bundles)), "cpu")
    assert not encoder.reads
    assert math.isnan(encoder.encode_and_read("fine")[1])


def test_the_same_states_as_in_training(world: World) -> None:
    data = generate(users=6, items=30, events=20, seed=4)
    events = data.events.with_columns(value=pl.when(pl.col("text") != "").then(math.nan).otherwise(pl.col("value")))
    run = world.run
    rows = read_histories(events, None, run.item_ids, run.spec, TextEncoder(None).encode, run.reading)
    with torch.inference_mode():
        expected = last_states(run.network, rows, run.network.item_matrix()).numpy()
    decoder = EventDecoder(kafka_hash, 1, SCALE)
    own: dict[bytes, list[SourceEvent]] = defaultdict(list)
    for offset, message in enumerate(event_messages(events)):
        event = decoder.decode(SOURCE_TOPICS.index(message.topic), 0, offset, 2**42, message.key, message.value)
        if event.text:
            assert math.isnan(event.value)
            event.vector, event.read = world.encoder.encode_and_read(event.text)
        own[event.user].append(event)
    models = open_models(world.bundle, "cpu")
    snapshot = Catalogue(world.bundle, world.encoder.item_vectors).snapshot

    def fold(some: dict[bytes, list[SourceEvent]]) -> dict[str, Any]:
        batches = [
            apply_events(user, 0, None, mine, SOURCE_TOPICS, world.bundle.state_model, world.bundle.hidden)
            for user, mine in some.items()
        ]
        advance(batches, models, snapshot, world.bundle.spec)
        return {batch.user.decode(): batch.state for batch in batches}

    found = fold(own)
    for row, user in enumerate(rows.users):
        assert np.abs(found[user].h.astype(np.float32) - expected[row]).max() < 4e-3
        comments = [recent for recent in found[user].recents() if recent.behaviour == 2]
        assert all(math.isnan(recent.value) for recent in comments), "the record keeps what was sent, not what was read"
    for mine in own.values():
        for event in mine:
            event.read = math.nan
    without = fold(own)
    assert any(not np.array_equal(without[user].h, found[user].h) for user in found), "the read value reaches the state"


def test_the_run_keeps_its_reader(world: World, tmp_path: Path) -> None:
    save_run(world.run, tmp_path)
    again = load_run(tmp_path)
    assert again.reading is not None
    # To the last bits: the export wrote attention out in full.
    assert again.reading.values([*LIKED]) == pytest.approx(reading_of(world).values([*LIKED]), abs=1e-5)
    save_run(replace(world.run, reading=None), tmp_path)
    assert load_run(tmp_path).reading is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.pop("reading"), r"extra \['rating.onnx'\]"),
        (lambda about: about["files"].pop(RATING), r"missing \['rating.onnx'\]"),
        (lambda about: about["parity"].pop("rating"), r"parity is missing for \['rating'\]"),
    ],
)
def test_half_a_reader_is_refused(
    world: World, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    import json
    from hashlib import sha256

    about = json.loads(world.files[MANIFEST])
    change(about)
    raw = json.dumps(about).encode()
    folder = tmp_path / sha256(raw).hexdigest()
    folder.mkdir()
    (folder / MANIFEST).write_bytes(raw)
    with pytest.raises(BundleError, match=message):
        load(folder)


def test_another_reader_than_the_golden_one_is_refused(world: World, tmp_path: Path) -> None:
    import json
    from hashlib import sha256

    from export.graphs import serialise
    from export.text_rating import rating_graph

    reading = reading_of(world)
    head = RatingHead(384, CLASSES, (1.0, 5.0), HeadSettings()).requires_grad_(False).eval()
    other = replace(reading, reader=TunedReader(reading.reader.bert, head).eval())
    files = dict(world.files)
    files[RATING] = serialise(rating_graph(other, SCALE))
    about = json.loads(files[MANIFEST])
    about["files"][RATING] = {"sha256": sha256(files[RATING]).hexdigest(), "bytes": len(files[RATING])}
    files[MANIFEST] = json.dumps(about).encode()
    with pytest.raises(BundleError, match=r"rating\.onnx: .* of a rating away from its golden vectors"):
        publish(files, tmp_path)


def test_a_reader_that_shares_nothing_is_not_exported(world: World) -> None:
    with pytest.raises(DataError, match="shares no layers"):
        build(replace(world.run, reading=replace(reading_of(world), settings=TuneSettings(frozen=0))))
