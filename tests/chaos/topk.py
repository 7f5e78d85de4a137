"""Fault 43: a GPU's TopK, which gives its own padding back where fewer items are left than a slate has places."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

from stream.core.keys import ANYONE_KEY
from stream.inference.bundle import CURRENT
from stream.inference.bundle import current as current_bundle
from stream.settings import Settings
from tests.chaos.trial import Trial
from tests.contract.test_bundle import resealed
from tests.padding import as_exported_before, padded
from tests.worker_process import WorkerProcess, read_all, until

ITEMS = 50


def few_left(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Users have nearly everything, then everything; then most items are removed. The score graph pads as CUDA's does; with an
    odd seed it masks by -inf, as bundles of earlier versions do."""
    before = bool(seed % 2)
    own = folder / "bundles"
    padding(bundles, own, before=before)
    with Trial(43, "few items left", seed, settings, own, folder, workers=2, users=20, allowed=()) as trial:
        until(lambda: trial.applied() > 20 * ITEMS * 3, 60, "most users have had nearly everything")
        events = trial.traffic.events
        gone = trial.draw.sample(range(1, ITEMS + 1), ITEMS - 5)
        for number in gone:
            events.producer.send(settings.items_topic, key=f"item-{number}".encode(), value=None)
        events.producer.flush()
        trial.works(500)
        for worker in trial.workers:
            until(partial(has_live, worker, 5), 20, f"{worker.name} has 5 live items")
        for number in range(40):  # users who have had nothing
            trial.traffic.put(*events.one(user=f"new{number}", kind="click"))
        trial.works(300)
    lengths: Counter[int] = Counter()
    for record in read_all(settings, settings.recommendations_topic):
        if record.key == ANYONE_KEY:
            continue
        items = json.loads(record.value)["items"]
        lengths[len(items)] += 1
        names = {item["item"] for item in items}
        assert len(names) == len(items), items
        assert names <= {f"item-{number + 1}" for number in range(ITEMS)}, items
        assert all(abs(item["score"]) < 1e6 for item in items), items
    few = sum(lengths[length] for length in range(1, settings.slate_size))
    assert min(lengths[0], few, lengths[settings.slate_size]) > 0, lengths


def has_live(worker: WorkerProcess, items: int) -> bool:
    return worker.metric("freshet_catalogue_items", state="live") == items


def padding(bundles: Path, own: Path, *, before: bool) -> None:
    """A bundles folder whose score graph pads as CUDA's TopK does; before: and masks by -inf."""
    good = current_bundle(bundles)
    copy = own / good.name
    shutil.copytree(good, copy, copy_function=os.link)
    score = (copy / "score.onnx").read_bytes()
    made = resealed(copy, score_onnx=padded(as_exported_before(score) if before else score))
    (own / CURRENT).write_text(made.name + "\n")
