"""500 users of a real data set get the same items and scores from the harness, a worker's slate and the API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from deploy.demo.client import Feed
from deploy.verify import run as verify
from deploy.verify.scope import Scope
from export.publish import build, publish
from models.data import DataSet, Split, event_messages, item_messages, read, split_last
from models.evaluation.run_task import RunModel, run_task
from models.metrics.ranks import scored
from models.network.text import TextEncoder
from models.training.diversity import Chosen
from models.training.run import Run
from models.training.train import TrainSettings, train
from stream.settings import Settings
from tests.gateway_process import GatewayProcess
from tests.real_data import first_raters
from tests.worker_process import Events, WorkerProcess, all_committed, slates, until

pytestmark = [pytest.mark.integration, pytest.mark.long]

USERS = 500
TOLERANCE = 1e-3
STRENGTH = 0.5


@dataclass
class Served:
    settings: Settings
    split: Split
    data: DataSet
    run: Run
    bundles: Path
    folder: Path
    worker: WorkerProcess
    gateway: GatewayProcess

    def start_again(self, **more: Any) -> None:
        """Start worker and gateway again, with other settings."""
        for process in (self.worker, self.gateway):
            assert process.terminate() == 0
        self.worker = WorkerProcess(self.settings, self.folder, bundles=self.bundles, **more)
        self.gateway = GatewayProcess(self.settings, self.folder, bundles=self.bundles, **more)
        for process in (self.worker, self.gateway):
            process.start()
        for process in (self.worker, self.gateway):
            process.wait_ready()

    def newest(self) -> dict[str, dict[str, Any]]:
        """Each user's newest slate in the topic."""
        return {slate["user"]: slate for slate in slates(self.settings) if slate["user"] != "*"}

    def answer(self, slate: dict[str, Any]) -> dict[str, Any]:
        """The API's answer for the user, from the state of which the slate was made."""

        def same() -> Any:
            found = self.gateway.slate(slate["user"]).body
            return found if found["chain"] == slate["chain"] and found.get("rules") == slate.get("rules") else None

        return dict(until(same, 20, f"the state of {slate['user']}"))


@pytest.fixture
def served(movielens: Path, world: Callable[..., Settings], tmp_path: Path) -> Iterator[Served]:
    data = first_raters(read(movielens), USERS)
    training = TrainSettings(epochs=1, max_minutes=1.5)
    trained = train(data, training, TextEncoder()).run
    run = replace(trained, diversity=Chosen())
    bundles = tmp_path / "bundles"
    publish(build(run), bundles)
    settings = world(partitions=2, rating_scale=data.rating_scale, min_time="off", micro_batch=2000)
    worker = WorkerProcess(settings, tmp_path, bundles=bundles)
    gateway = GatewayProcess(settings, tmp_path, bundles=bundles)
    split = split_last(data, training.holdout)
    with Feed(settings) as feed:
        for message in item_messages(data.items):
            feed.send_bulk(message)
        worker.start().wait_ready()
        for future in [feed.send_bulk(message) for message in event_messages(split.train)]:
            feed.position(future)
    gateway.start().wait_ready()
    all_committed(settings, worker, 120)
    found = Served(settings, split, data, run, bundles, tmp_path, worker, gateway)
    yield found
    found.gateway.close()
    found.worker.close()


@pytest.mark.timeout(1500)
def test_the_harness_the_worker_and_the_api_rank_alike(served: Served) -> None:
    newest = served.newest()
    expected = harness(served)
    assert len(newest) == len(expected) == USERS
    for user, scores in expected.items():
        slate = newest[user]
        assert alike(scores, slate["items"]), user
        assert same_slate(slate, served.answer(slate)), user

    # with rules and re-ranking, API and worker show the same, and so does what verify computes
    before = served.newest()
    put_rules(served)
    served.start_again(diversity=STRENGTH)
    with Feed(served.settings) as feed:
        for message in event_messages(next_event_of_each(served.split)):
            feed.position(feed.send(message))
    all_committed(served.settings, served.worker, 60)
    newest = served.newest()
    assert sum(newest[user]["seq"] > before[user]["seq"] for user in newest) == USERS
    for user, slate in newest.items():
        assert (slate["diversity"], slate["rules"] >= 0) == (STRENGTH, True)
        assert same_slate(slate, served.answer(slate)), user
    report = verify(served.settings, scope=Scope(bundle=served.bundles, users=0))
    assert report.exit_code == 0, report.violations[:5]
    assert report.ranked >= USERS


def harness(served: Served) -> dict[str, dict[str, float]]:
    """What `freshet evaluate --run` ranks each user's first held-out choice by: item -> score, without seen items."""
    task = run_task(served.data, served.run, TextEncoder())
    owner = task.rows.owner()[task.positions]
    _, first = np.unique(owner, return_index=True)
    positions = task.positions[first]
    score = RunModel(served.run).fit(task.training, 0).scorer(task.rows)
    ids = served.run.item_ids
    found = {}
    for batch, scores in scored(task.rows, positions, score):
        for at, line in zip(positions[batch], scores.numpy()[:, 1:], strict=True):
            user = task.rows.users[task.rows.owner()[at]]
            found[user] = {ids[row]: float(line[row]) for row in np.flatnonzero(np.isfinite(line))}
    return found


def alike(scores: dict[str, float], items: Sequence[dict[str, Any]]) -> bool:
    """Whether these are the best items with their scores; items whose scores are closer than the tolerance may change places."""
    listed = [one["item"] for one in items]
    if len(items) != 10 or not all(abs(scores.get(one["item"], np.inf) - one["score"]) <= TOLERANCE for one in items):
        return False
    order = [scores[item] for item in listed]
    best_left = max(score for item, score in scores.items() if item not in set(listed))
    return all(a >= b - TOLERANCE for a, b in zip(order, [*order[1:], best_left], strict=True))


def same_slate(slate: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether two slates show the same; neighbours whose scores are closer than the tolerance may change places."""
    first, second = slate["items"], answer["items"]
    if [one["score"] for one in first] != pytest.approx([one["score"] for one in second], abs=TOLERANCE):
        return False
    known = {one["item"]: one["score"] for one in first}
    return all(
        a["item"] == b["item"] or abs(known.get(b["item"], b["score"]) - a["score"]) <= TOLERANCE
        for a, b in zip(first, second, strict=True)
    )


def put_rules(served: Served) -> None:
    """A rule of each kind, about the items that are in most slates."""
    shown = pl.Series([one["item"] for slate in served.newest().values() for one in slate["items"]])
    often = shown.value_counts(sort=True).to_series().to_list()
    rules: dict[str, dict[str, Any]] = {
        "recall": {"kind": "block", "filter": {"item": often[:2]}},
        "offer": {"kind": "boost", "factor": 1.5, "filter": {"item": often[2:12]}},
        "front": {"kind": "pin", "item": often[20], "place": 2},
        "few": {"kind": "cap", "most": 3},
    }
    events = Events(served.settings)
    for name, rule in rules.items():
        events.producer.send(
            served.settings.rules_topic, key=name.encode(), value=json.dumps(rule | {"rule": name}).encode()
        ).get(30)
    events.close()


def next_event_of_each(split: Split) -> pl.DataFrame:
    return split.held.group_by("user", maintain_order=True).first().select(split.held.columns)
