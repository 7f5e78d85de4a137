"""Run the demo from beginning to end, step by step. Everything it starts is stopped in any case."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from deploy.clients import admin
from deploy.demo.client import Feed
from deploy.demo.closed_loop import ClosedLoop
from deploy.demo.folders import KAFKA, run_folder
from deploy.demo.hit_rate import HitCounter, HitRate, by_count
from deploy.demo.holdout import held_events, spot_user
from deploy.demo.page import FIGURES, needed_packages, write_figures
from deploy.demo.processes import Process
from deploy.demo.progress import Board, Figures
from deploy.demo.replay import Replay
from deploy.demo.trained import Prepared, prepare
from deploy.demo.warmup import send_all, warm_up
from deploy.embedded_kafka import EmbeddedKafka
from deploy.verify import Report
from deploy.verify import run as verify
from models.data import DataSet, Split, event_messages, item_messages, split_last
from models.training.run import Run
from models.training.train import TrainSettings
from stream.core.errors import DataError
from stream.settings import Settings, load

SHOWN: Final = 5  # maximum number of violations that are named
COMMIT_LIMIT: Final = 30.0  # seconds until the worker must have committed what it has applied

Watch = Callable[[Settings, Replay, Callable[[], None], str], None]
"""(settings of the running worker, the replay, a check that raises if a process has ended, the page's address or "")"""


@dataclass(frozen=True)
class Options:
    """Options of the demo.

    Attributes:
        home: Folder below which everything is kept.
        rate: Maximum number of replayed events/s; 0 for as fast as slates arrive.
        width: Number of users at a time.
    """

    home: Path
    rate: float = 0.0
    width: int = 32


@dataclass(frozen=True)
class Result:
    """The demo's result, in the form of its last line. hit10_interval: 95 % interval of hit10 - hit10_popularity."""

    source: str
    events: int
    warmup: int
    applied: int
    lost: int
    double: int
    uncovered: int
    p50_ms: float
    p99_ms: float
    hit10: float
    hit10_popularity: float
    hit10_interval: tuple[float, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(
    data: DataSet,
    base: Settings,
    training: TrainSettings,
    options: Options,
    board: Board,
    watch: Watch | None = None,
) -> tuple[Result, int]:
    """Run all steps.

    Args:
        data: The data set.
        base: Settings to start from.
        training: Settings of the training.
        options: Options of the demo.
        board: Shows the progress.
        watch: Called at the end, while everything still runs.

    Returns:
        The figures and the exit code (0: nothing lost, double or uncovered).

    Raises:
        FreshetError: A step fails.
    """
    split = split_last(data, training.holdout)
    if not len(split.held):
        raise DataError(f"{data.name}: no user has enough choices to hold out the last {training.holdout}")
    users = data.events["user"].n_unique()
    board.title = f"{data.name}: {len(data.events):,} events of {users:,} users on {len(data.items):,} items"
    with ExitStack() as stack:
        folder = stack.enter_context(run_folder(options.home))
        board.begin("broker", "starting Apache Kafka")
        broker = stack.enter_context(EmbeddedKafka(folder / KAFKA))
        board.done(f"Apache Kafka at {broker.bootstrap}")
        settings = demo_settings(base, broker.bootstrap, folder, data)
        board.begin("topics")
        board.done(f"{len(admin.create(settings))} created, {settings.partitions} partitions each")
        prepared = _prepare(data, training, options, board)
        settings = settings.model_copy(update={"bundles": prepared.bundles})
        feed = stack.enter_context(Feed(settings))
        board.begin("items")
        board.done(f"{send_all(feed, item_messages(data.items)):,} items sent")
        board.begin("worker", "loading the bundle, joining the group, recovering states")
        worker = stack.enter_context(Process("worker", "worker", settings, folder / "worker.log"))
        worker.wait_ready()
        board.done("ready")
        processes, page = [worker], ""
        board.begin("page", "loading the bundle, following the states")
        if missing := needed_packages():
            board.done(f"not served: {missing} is not installed (the extra serve)")
        else:
            gateway = stack.enter_context(Process("serve", "gateway", settings, folder / "gateway.log"))
            processes.append(gateway)
            page = f"{gateway.wait_ready()}/demo"
            board.done(page)

        def alive() -> None:
            for process in processes:
                process.check()

        replay, figures = _events(data, split, prepared, feed, alive, options, board, folder / FIGURES)
        report = _verify(settings, board)
        result = _result(data, split, figures, report)
        alive()
        if watch is not None:
            watch(settings, replay, alive, page)
    return result, report.exit_code


def demo_settings(base: Settings, bootstrap: str, folder: Path, data: DataSet) -> Settings:
    """Return `base` with the settings that the demo itself decides: the broker, the names, the folders."""
    given = {name: getattr(base, name) for name in base.model_fields_set if not name.startswith(("sasl", "ssl"))}
    decided = {
        "brokers": bootstrap,
        "security_protocol": "PLAINTEXT",
        "prefix": "",
        "app_id": "freshet-demo",
        "data_dir": folder / "state",
        "web_port": 0,
        "serve_host": "127.0.0.1",
        "serve_port": 0,
        "serve_partitions": (),
        "serve_tokens": None,  # this machine alone can reach it
        "serve_hosts": (),
        "replica_dir": folder / "replica",
        "serve_figures": folder / FIGURES,
        "rating_scale": data.rating_scale,
        "min_time": "off",  # public data sets are often from before 2000
    }
    return load(**{"provider": "cpu", "micro_batch": 2000} | given | decided)


def _prepare(data: DataSet, training: TrainSettings, options: Options, board: Board) -> Prepared:
    board.begin("train", "training the interest network; BERT reads the items first")

    def report(stage: str, done: int, total: int, text: str) -> None:
        if stage == "validation":
            board.line(text)
        else:
            board.note(f"{stage}: {done:,} of {total:,}  {text}")

    def exporting(run: Run) -> None:
        board.done(_trained(run))
        board.begin("export", "exporting to ONNX, checking against torch")

    prepared = prepare(data, options.home, training, report, exporting)
    board.done("bundle published" if prepared.fresh else "found the bundle of an earlier demo")
    return prepared


def _trained(run: Run) -> str:
    found = run.metrics.get("validation HR@10", math.nan)
    floor = run.metrics.get("validation popularity HR@10", math.nan)
    epochs = run.settings.get("epochs_run", 0)
    return f"{epochs} epochs, validation HR@10 {found:.3f} (popularity {floor:.3f})"


def _events(
    data: DataSet,
    split: Split,
    prepared: Prepared,
    feed: Feed,
    alive: Callable[[], None],
    options: Options,
    board: Board,
    shared: Path,
) -> tuple[Replay, Figures]:
    """Send all events. shared: file in which the gateway finds the hit rate."""
    live = {item.item for item in data.items if item.available}
    counts = dict(zip(prepared.run.item_ids, prepared.run.popularity[1:].tolist(), strict=True))
    counter = HitCounter([item for item in by_count(list(counts), list(counts.values())) if item in live])
    for user, item in split.train.select("user", "item").iter_rows():
        counter.had(user, item)
    board.begin("warm-up")
    began = time.monotonic()
    total = len(split.train)
    newest = warm_up(
        feed,
        event_messages(split.train),
        alive,
        lambda sent, applied: board.note(f"{sent:,} of {total:,} events sent, {applied:,} applied"),
    )
    board.done(f"{total:,} events applied, {total / max(time.monotonic() - began, 1e-9):,.0f}/s")

    held = held_events(data, split)
    spot = spot_user(split)
    board.begin("replay", "sending the held-out events, closed loop")
    titles = {item.item: item.title for item in data.items}
    loop = ClosedLoop(held, options.width, spot)
    replay = Replay(
        feed, loop, counter, board, newest, titles, spot, options.rate, lambda found: write_figures(shared, found)
    )
    figures = replay.run(alive, sum(event.user == spot for event in held))
    board.done(f"{figures.done:,} events, each shown in a slate, {figures.rate:,.0f}/s")
    return replay, figures


def _verify(settings: Settings, board: Board) -> Report:
    board.begin("verify", "recomputing everything from the topics")
    report = verify(settings, COMMIT_LIMIT)
    verdict = {0: "the promise holds", 1: "the promise is broken"}.get(report.exit_code, "cannot be checked")
    board.done(
        f"{verdict}: {report.applied:,} of {report.input:,} applied, {report.lost} lost, {report.double} double, "
        f"{report.uncovered} uncovered"
    )
    for violation in report.violations[:SHOWN]:
        board.line(str(violation))
    return report


def _result(data: DataSet, split: Split, figures: Figures, report: Report) -> Result:
    hits = figures.hits or HitRate(0, 0.0, 0.0, 0.0, 0.0)
    return Result(
        source=data.name,
        events=figures.done,
        warmup=len(split.train),
        applied=report.applied,
        lost=report.lost,
        double=report.double,
        uncovered=report.uncovered,
        p50_ms=round(figures.p50_ms, 3),
        p99_ms=round(figures.p99_ms, 3),
        hit10=round(hits.freshet, 5),
        hit10_popularity=round(hits.popularity, 5),
        hit10_interval=(round(hits.low, 5), round(hits.high, 5)),
    )
