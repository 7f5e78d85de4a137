"""One real worker, as its users meet it: slates, a new item, unknown items, duplicates, a clean stop, bad bundles."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as kafka_hash

from deploy.verify import run
from stream.catalogue.catalogue import Catalogue
from stream.core.decoder import EventDecoder
from stream.core.fencing_log import CLAIM_KEY
from stream.core.fold import advance, apply_events
from stream.core.state import decode, encode
from stream.inference.bundle import current, load
from stream.inference.models import open_models
from stream.inference.text_encoder import open_encoder
from stream.settings import Settings
from tests.worker_process import Events, WorkerProcess, read_all, slates, until

pytestmark = pytest.mark.integration


@pytest.fixture
def served(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> Iterator[tuple[Settings, WorkerProcess, Events]]:
    settings = world(partitions=2)
    worker = WorkerProcess(settings, tmp_path, bundles=bundles).start()
    events = Events(settings, seed=9, users=20)
    events.send_items()
    worker.wait_ready()
    yield settings, worker, events
    events.close()
    worker.close()


def test_a_new_user_gets_a_slate_from_the_first_event_on(served: tuple[Settings, WorkerProcess, Events]) -> None:
    settings, worker, events = served
    events.put(*events.one(user="newcomer", kind="click", item="item-3"))
    slate = until(lambda: slates(settings, "newcomer"), 20, "a slate")[0]
    items = [scored["item"] for scored in slate["items"]]
    assert (slate["seq"], slate["replay"], slate["strategy"]) == (1, False, "interest")
    assert len(items) == settings.slate_size
    assert "item-3" not in items  # had already
    assert slate["events"][0][0] == settings.sources[0]
    popular = until(lambda: slates(settings, "*"), 10, "the slate for anyone unknown")[-1]
    assert [scored["item"] for scored in popular["items"]][:3] == ["item-1", "item-2", "item-3"]
    assert worker.metric("freshet_ready") == 1


def test_a_new_item_appears_and_a_removed_one_is_gone(served: tuple[Settings, WorkerProcess, Events]) -> None:
    """Everything else is taken out of the catalogue, so that whatever is live must be recommended."""
    settings, worker, events = served
    for number in range(1, 51):
        events.producer.send(settings.items_topic, key=b"item-%d" % number, value=None)
    events.send_items(["brand-new"])
    sent = time.monotonic()

    def shown() -> bool:
        events.put(*events.one(user="watcher", kind="click", item="item-1"))
        events.producer.flush()
        return any("brand-new" in [s["item"] for s in slate["items"]] for slate in slates(settings, "watcher")[-3:])

    until(shown, 10, "the new item in a slate")
    assert time.monotonic() - sent < 5
    events.producer.send(settings.items_topic, key=b"brand-new", value=None)
    events.producer.flush()
    until(lambda: worker.metric("freshet_catalogue_items", state="live") == 0, 5, "no item live")
    before = len(slates(settings, "watcher"))
    events.put(*events.one(user="watcher", kind="click", item="item-2"))
    last = until(lambda: slates(settings, "watcher")[before:], 10, "another slate")[-1]
    assert last["items"] == []


def test_an_event_on_an_unknown_item_is_applied_and_counted(served: tuple[Settings, WorkerProcess, Events]) -> None:
    settings, worker, events = served
    events.put(*events.one(user="u", kind="click", item="nobody knows this"))
    assert until(lambda: slates(settings, "u"), 20, "a slate")[0]["seq"] == 1
    assert worker.metric("freshet_unknown_items_total") == 1
    assert worker.metric("freshet_dead_letters_total") == 0


def test_the_status_page_and_a_metric_name_the_bundle(
    served: tuple[Settings, WorkerProcess, Events], bundles: Path
) -> None:
    _, worker, _ = served
    bundle = load(current(bundles))
    status, page = worker.get("/")
    assert status == 200
    for text in ("ready", bundle.id, bundle.card.protocol, "Apache-2.0", "0.2500", "0.2000 to 0.3000"):
        assert text in page
    assert worker.metric("freshet_bundle_info", bundle=bundle.id, data="tiny", ndcg10="0.2500") == 1


def test_a_repeated_id_is_folded_once(served: tuple[Settings, WorkerProcess, Events]) -> None:
    settings, worker, events = served
    for _ in range(2):
        events.put(*events.one(user="u", kind="rating", item="item-4", id="order-17"))
        events.producer.flush()
        time.sleep(0.3)  # so that they come in two micro-batches; the result is the same if they do not
    until(lambda: worker.metric("freshet_events_total", outcome="duplicate") == 1, 20, "the duplicate counted")
    report = run(settings, wait=20)
    assert (report.exit_code, report.applied, report.duplicates) == (0, 1, 1)
    assert [slate["seq"] for slate in slates(settings, "u")] == [1, 1]


def test_sigterm_ends_cleanly_and_nothing_is_replayed(served: tuple[Settings, WorkerProcess, Events]) -> None:
    settings, worker, events = served
    events.send(400, rate=400)
    began = time.monotonic()
    assert worker.terminate(30) == 0
    assert time.monotonic() - began < 30
    worker.start().wait_ready()
    report = run(settings, wait=30)
    assert (report.exit_code, report.applied) == (0, 400)
    assert worker.metric("freshet_events_total", outcome="redelivered") == 0


def test_states_equal_the_same_events_folded_one_at_a_time(
    served: tuple[Settings, WorkerProcess, Events], bundles: Path
) -> None:
    """The recorded order, folded through the same graphs one event at a time, gives every h and c bit for bit."""
    settings, _, events = served
    events.send(600)  # at once: large micro-batches
    run_report = run(settings, wait=60)
    assert run_report.exit_code == 0
    bundle = load(current(bundles))
    models, encoder = open_models(bundle, "cpu"), open_encoder(bundle, "cpu")
    snapshot = Catalogue(bundle, lambda texts: np.zeros((len(texts), bundle.item_dim), np.float32)).snapshot
    decoder = EventDecoder(kafka_hash, settings.partitions, settings.rating_scale)
    source = {}
    for behaviour, topic in enumerate(settings.sources):
        for record in read_all(settings, topic):
            event = decoder.decode(
                behaviour, record.partition, record.offset, record.timestamp, record.key, record.value
            )
            event.vector = encoder.encode(event.text) if event.text else None
            source[behaviour, record.partition, record.offset] = event
    alone: dict[bytes, bytes] = {}
    for record in read_all(settings, settings.changelog_topic):
        if record.key == CLAIM_KEY:
            continue
        state = decode(record.value)
        for behaviour, offset in state.folded:
            event = source.pop((behaviour, record.partition, offset))
            batch = apply_events(
                record.key, record.partition, alone.get(record.key), [event], settings.sources, bundle.state_model,
                bundle.hidden,
            )  # fmt: skip
            advance([batch], models, snapshot, bundle.spec)
            alone[record.key] = encode(batch.state)
        mine = decode(alone[record.key])
        assert (mine.h.tobytes(), mine.c.tobytes(), mine.chain) == (state.h.tobytes(), state.c.tobytes(), state.chain)
    assert source == {}


@pytest.mark.parametrize("damage", ["flipped byte", "missing file", "wrong shape"])
def test_the_worker_does_not_start_on_a_bad_bundle(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path, damage: str
) -> None:
    copy = tmp_path / "bundles"
    shutil.copytree(bundles, copy)
    folder = current(copy)
    if damage == "missing file":
        (folder / "score.onnx").unlink()
        named = "score.onnx"
    elif damage == "flipped byte":
        raw = bytearray((folder / "step.onnx").read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / "step.onnx").write_bytes(raw)
        named = "step.onnx"
    else:
        np.save(folder / "items.npy", np.load(folder / "items.npy")[:, :-1])
        named = "items.npy"
    worker = WorkerProcess(world(partitions=2), tmp_path, bundles=copy).start()
    try:
        assert worker.wait(60) == 65
        last = worker.lines()[-1]
        assert last["level"] == "CRITICAL"
        assert named in last["message"]
        assert "Traceback" not in worker.log.read_text()
    finally:
        worker.close()


def test_the_log_is_one_json_object_a_line(served: tuple[Settings, WorkerProcess, Events]) -> None:
    settings, worker, events = served
    events.send(20)
    run(settings, wait=20)
    assert worker.terminate(30) == 0
    lines = worker.log.read_text().splitlines()
    assert all({"time", "level", "logger", "message"} <= json.loads(line).keys() for line in lines)
