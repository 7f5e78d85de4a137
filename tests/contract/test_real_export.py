"""The real data set, trained for a moment, exported and served: the very slates that torch would give."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from aiokafka.partitioner import murmur2 as kafka_hash
from typer.testing import CliRunner

from deploy.cli.main import app
from models.data.dataset import event_messages, item_messages
from models.data.folders import read
from models.data.histories import histories
from models.network.text import TextEncoder
from models.training.run import load_run
from stream.catalogue.catalogue import Catalogue
from stream.core.decoder import EventDecoder
from stream.core.fold import advance, apply_events, rank
from stream.core.messages import SOURCE_TOPICS, SourceEvent
from stream.inference.bundle import current, load
from stream.inference.models import open_models
from stream.inference.text_encoder import open_encoder
from tests.trained import blended, last_states

USERS = 40
TOP = 10


@pytest.mark.slow
def test_movielens_served_as_trained(movielens: Path, tmp_path: Path) -> None:
    run_folder, bundles = tmp_path / "run", tmp_path / "bundles"
    for arguments in (
        [
            "train",
            str(movielens),
            "--min-time",
            "1990-01-01",
            "--out",
            str(run_folder),
            "--epochs",
            "1",
            "--max-minutes",
            "1.5",
            "--json",
        ],
        ["export", str(run_folder), "--out", str(bundles), "--json"],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (result.output, result.exception)
    assert json.loads(result.stdout)["dims"]["items"] == 9742

    data, run, bundle = read(movielens), load_run(run_folder), load(current(bundles))
    models, encoder = open_models(bundle, "cpu"), open_encoder(bundle, "cpu")
    catalogue = Catalogue(bundle, encoder.item_vectors)
    assert catalogue.apply([(at, item.key, item.value) for at, item in enumerate(item_messages(data.items))]) == []
    assert catalogue.snapshot.live == 9742

    users = sorted(data.events["user"].unique().to_list())[:USERS]
    events = data.events.filter(pl.col("user").is_in(users))
    rows = histories(events, None, run.item_ids, run.spec, TextEncoder().encode)
    with torch.inference_mode():
        items = run.network.item_matrix()
        scores = blended(run, rows, run.network.query(last_states(run.network, rows, items)) @ items.T)
    scores[:, 0] = -np.inf

    decoder = EventDecoder(kafka_hash, 1, bundle.spec.rating_scale)
    own: dict[bytes, list[SourceEvent]] = defaultdict(list)
    for offset, message in enumerate(event_messages(events)):
        event = decoder.decode(SOURCE_TOPICS.index(message.topic), 0, offset, 2**42, message.key, message.value)
        event.vector = encoder.encode(event.text) if event.text else None
        own[event.user].append(event)
    batches = [
        apply_events(user, 0, None, some, SOURCE_TOPICS, bundle.state_model, bundle.hidden)
        for user, some in own.items()
    ]
    advance(batches, models, catalogue.snapshot, bundle.spec)
    slates = dict(zip(own, rank(batches, models, catalogue.snapshot, TOP, filter_seen=True), strict=True))

    shared = 0
    for index, user in enumerate(rows.users):
        line = scores[index]
        line[rows.item[rows.starts[index] : rows.starts[index + 1]]] = -np.inf
        best = np.argsort(-line, kind="stable")[:TOP]
        slate = slates[user.encode()]
        assert [one.score for one in slate] == pytest.approx(line[best].tolist(), abs=5e-2)
        shared += len({run.item_ids[row - 1] for row in best} & {one.item for one in slate})
    assert shared >= 0.97 * TOP * USERS
