"""Tables that follow the stream are worth live what the harness says: worker and tally on a real Kafka, fed a real data set."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from deploy.demo.client import Feed, Slate
from deploy.demo.closed_loop import ClosedLoop, Held
from deploy.demo.warmup import send_all, warm_up
from export.publish import build, publish
from models.data import DataSet, read
from models.data.dataset import event_messages, item_messages
from models.data.histories import Rows
from models.evaluation.protocols.held import time_split
from models.interfaces import EvalTask
from models.metrics.ranks import MISSED, Ranks, gains, hits, ranks
from models.network.blend import Blend, Neighbours, Texts
from models.network.projection import fit_projection
from models.network.text import TextEncoder
from models.training.neighbours import NeighbourSettings, neighbours
from models.training.run import DataInfo
from models.training.sequential.freshet import BlendRanker, Freshet, Tables
from models.training.tables import LiveView, TableSettings, arrivals, live_tables
from models.training.train import run_of
from stream.core.messages import RATING
from stream.settings import Settings
from tests.bundles import text_onnx
from tests.tally_process import TallyProcess, closings
from tests.worker_process import WorkerProcess, until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EVERY = 1000  # events of an epoch
STALL = 120.0  # seconds
SHAPE = NeighbourSettings(shrink=60.0, half_life=1095)
PRIOR = 1095
BLEND = Blend(last=20, fade=0.6, neighbour=500.0, prior=0.6, evidence=4.0, text=40.0, text_fade=0.8, text_new=40.0)
"""SHAPE, PRIOR and BLEND: as `freshet train --tables streamed` chose them on these data."""


class Judged(NamedTuple):
    """Choices, and all events in the order in which the harness has them arrive.

    positions: rows of choices whose user had another event in the live part; order: rows of all events; begin: place in
    `order` of the first live event, a multiple of EVERY."""

    positions: Rows
    order: Rows
    begin: int


@pytest.fixture(scope="module")
def data(movielens: Path) -> DataSet:
    """The ratings. Kafka keeps the order within a topic only: with tags the worker might fold in another order."""
    found = read(movielens)
    return replace(found, events=found.events.filter(pl.col("behaviour") == RATING))


@pytest.fixture(scope="module")
def task(data: DataSet) -> EvalTask:
    (found,) = time_split(data, TextEncoder().encode)
    return found


@pytest.fixture(scope="module")
def ranker(task: EvalTask) -> BlendRanker:
    """The whole sum with tables that are renewed every EVERY events; its network has two epochs."""
    training = task.training
    plain = Freshet(fit={"epochs": 2, "max_minutes": 5.0}, collaborative=False).fit(training, 0)
    projection = fit_projection(training.text, training.known, plain.interest.network.size.item)
    return replace(
        plain,
        neighbours=Neighbours(*neighbours(training, SHAPE)),
        shape=SHAPE,
        blend=BLEND,
        projection=projection,
        texts=Texts(projection.apply(training.text), ~training.known),
        live=live_tables(training, TableSettings(f"epochs:{EVERY}", SHAPE, PRIOR)),
    )


@pytest.fixture(scope="module")
def judged(task: EvalTask) -> Judged:
    rank = arrivals(task.rows, f"epochs:{EVERY}").rank
    begin = int(rank[task.positions].min()) // EVERY * EVERY
    positions = task.positions[rank[task.positions - 1] >= begin]  # the event before it is of the same user
    return Judged(positions, np.argsort(rank), begin)


def evaluated(task: EvalTask, ranker: BlendRanker, judged: Judged, at_the_slate: bool) -> Ranks:
    """Ranks by the harness: with the tables as of each choice, or as of the slate that its user had, which is as old as the
    user's event before."""
    assert ranker.live is not None
    view = ranker.live.of(task.rows)
    if at_the_slate:
        view = SlateView(ranker.live, task.rows)

    class Following(BlendRanker):
        def tables(self, rows: object) -> Tables:
            return Tables(view.near, view.log_popularity)

    following = Following(**{name: getattr(ranker, name) for name in ranker.__dataclass_fields__})
    return ranks(task.rows, judged.positions, following.scorer(task.rows))


class SlateView(LiveView):
    """The tables as they were at the event before each position."""

    def seen(self, positions: Rows) -> Rows:
        found: Rows = self._at.rank[positions - 1] // EVERY * EVERY
        return found


@pytest.mark.timeout(2400)
def test_the_stream_is_worth_live_what_the_harness_says(
    data: DataSet, task: EvalTask, ranker: BlendRanker, judged: Judged, world: Callable[..., Settings], tmp_path: Path
) -> None:
    training = task.training
    run = run_of(data, training, ranker, DataInfo(data.name, "0" * 64, int(training.use.sum())), {})
    bundles = tmp_path / "bundles"
    publish(build(run, text=text_onnx()), bundles)
    settings = world(partitions=4, rating_scale=data.rating_scale, min_time="off")
    worker = WorkerProcess(settings, tmp_path, bundles=bundles, micro_batch=2000)
    tally = TallyProcess(settings, tmp_path, bundles=bundles, tally_epoch_seconds=86_400, tally_epoch_events=EVERY)
    try:
        worker.start().wait_ready()
        with Feed(settings) as feed:
            served = Live(data, task, judged, feed, worker, tally).ranks()
    finally:
        worker.close()
        tally.close()
    assert {one.near_half_life for one in closings(settings)} == {
        SHAPE.half_life * 86_400_000
    }  # the bundle's, not the default
    figures = {}
    for name, of in (
        ("served", served),
        ("evaluated", evaluated(task, ranker, judged, at_the_slate=False)),
        ("evaluated, tables as of the slate", evaluated(task, ranker, judged, at_the_slate=True)),
        ("frozen", ranks(task.rows, judged.positions, replace(ranker, live=None).scorer(task.rows))),
    ):
        figures[name] = float(gains(of).mean())
        print(f"{name}: {len(of)} choices, HR@10 {hits(of).mean():.5f}, NDCG@10 {figures[name]:.5f}")
    assert figures["served"] == pytest.approx(figures["evaluated, tables as of the slate"], abs=1e-3)
    assert figures["served"] == pytest.approx(figures["evaluated"], abs=1e-3)
    assert figures["served"] > figures["frozen"]


class Live:
    """Sends the events as the harness orders them, a user's next one when the slate of the one before is there, and waits at each
    epoch until the worker uses it."""

    def __init__(
        self, data: DataSet, task: EvalTask, judged: Judged, feed: Feed, worker: WorkerProcess, tally: TallyProcess
    ) -> None:
        self._judged, self._feed, self._worker, self._tally = judged, feed, worker, tally
        self._items = [item.item for item in data.items]
        self._catalogue = data.items
        rows = task.rows
        table = data.events.with_row_index("at")
        at = table.with_columns(owner=pl.col("user").rank("dense")).sort("owner", maintain_order=True)["at"].to_numpy()
        assert len(at) == len(rows.item)
        messages = list(event_messages(data.events))
        users = data.events["user"].to_list()
        self._events = [
            Held(users[place], self._items[rows.item[row] - 1], False, messages[place], str(row))
            for row in judged.order.tolist()
            for place in [int(at[row])]
        ]
        self._wanted = {row: number for number, row in enumerate(judged.positions.tolist())}
        self._ranks = np.full(len(judged.positions), MISSED)
        self._newest: dict[str, Slate] = {}

    def ranks(self) -> Ranks:
        """The ranks of the choices in the slates that their users had; MISSED where it is not among ten."""
        send_all(self._feed, item_messages(self._catalogue))
        before, live = self._events[: self._judged.begin], self._events[self._judged.begin :]
        warm_up(self._feed, (one.message for one in before), self._alive, lambda sent, applied: None)
        self._tally.once(600)
        self._tally.command = ["deploy.cli", "tally"]
        self._tally.start().wait_ready()
        for epoch, begin in enumerate(range(0, len(live), EVERY), start=1):
            until(partial(self._uses, epoch), 300, "the worker has the epoch")
            self._send(live[begin : begin + EVERY])
        return self._ranks

    def _send(self, events: list[Held]) -> None:
        loop = ClosedLoop(events, width=200)
        moved = time.monotonic()
        while not loop.finished:
            for event in loop.take(len(events)):
                number = self._wanted.get(int(event.words))
                if number is not None:
                    shown = self._newest[event.user].items
                    self._ranks[number] = shown.index(event.item) if event.item in shown else MISSED
                loop.landed(event.user, *self._feed.position(self._feed.send(event.message)))
            for slate in self._feed.slates(1.0):
                moved = time.monotonic()
                self._newest[slate.user] = slate
                loop.shown(slate.user, slate.applied)
            assert time.monotonic() < moved + STALL, f"no slate for {STALL:g} s: {self._worker.tail()}"

    def _uses(self, epoch: int) -> bool:
        return self._worker.metric("freshet_tables_epoch") == epoch

    def _alive(self) -> None:
        assert self._worker.runs(), self._worker.tail()
