"""`freshet learn`: train on what has come, judge the result, and publish it if it is good enough."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.cli import bounds, signals
from deploy.cli.commands.train import DAYS, REPLAY, Days, Epochs, Preset, Replay, Seed
from deploy.cli.data_options import MinTime, RatingScale, oldest, scale_of
from stream.core.errors import BrokerError, FreshetError, TopologyError
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.clients.log_reader import KafkaLog
    from deploy.learning.learn import Learner, Outcome, Serving
    from deploy.learning.metrics import LearnMetrics

log = logging.getLogger("freshet.learn")

UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
SLACK: Final = 2.0
"""A turn is overdue if, beyond `--every`, it takes so many times as long as its training may."""
RETRY: Final = 60.0
"""Seconds after which a turn that failed is tried again, if `--every` is longer."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("learn")(learn)


def _period(text: str, option: str = "--every") -> float:
    """Return a time such as 90s, 15m, 6h or 1d in seconds. Raises typer.BadParameter."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)
    if not match or not 0 < float(match[1]) * UNITS[match[2]] <= bounds.SECONDS:
        raise typer.BadParameter(
            f"{option} {text}: expected a number and s, m, h or d, such as 6h or 1d, at most a year"
        )
    return float(match[1]) * UNITS[match[2]]


def learn(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Data to learn from. It is first captured into, unless --no-capture.")],
    runs: Annotated[Path, typer.Option(help="Folder of the runs. It is made if it is not there.")],
    bundles: Annotated[Path | None, typer.Option(help="Folder for bundles. Default: the setting `bundles`.")] = None,
    to: Annotated[
        str,
        typer.Option(help="Also copy bundles to this address, such as s3://bucket/bundles (fsspec; extra `remote`)."),
    ] = "",
    activate: Annotated[
        bool,
        typer.Option(
            "--activate",
            help="Have workers take a bundle while they run, by an activation (docs/swap.md), in place of CURRENT.",
        ),
    ] = False,
    every: Annotated[str, typer.Option(help="Time from one turn to the next: 90s, 15m, 6h, 1d.")] = "1d",
    once: Annotated[bool, typer.Option("--once", help="One turn.")] = False,
    no_capture: Annotated[
        bool,
        typer.Option("--no-capture", help="Do not capture the source topics into the folder first: others fill it."),
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on although Kafka has deleted records that were not captured.")
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="The run that the bundle in use was exported from, if it is not among the runs."),
    ] = None,
    seed: Seed = 0,
    preset: Preset = "auto",
    epochs: Epochs = None,
    max_minutes: Annotated[
        float,
        typer.Option(min=0.1, max=bounds.MINUTES, callback=bounds.number, help="Limit of a training, in minutes."),
    ] = 60.0,
    update: Annotated[
        str,
        typer.Option(
            help="head: keep the step, so that states stay valid; full: train all; auto: full if the last full one is "
            "--full-every old, else head."
        ),
    ] = "auto",
    full_every: Annotated[str, typer.Option(help="See --update auto.")] = "7d",
    days: Days = DAYS,
    replay: Replay = REPLAY,
    judge_days: Annotated[
        int,
        typer.Option(min=1, max=3650, help="Newest days that are judged and not learned from. More, if users are few."),
    ] = 1,
    judge_users: Annotated[
        int, typer.Option(min=1, max=bounds.EVENTS, help="Least number of users in these days.")
    ] = 30,
    judge_most_days: Annotated[int, typer.Option(min=1, max=3650, help="Most days that are judged.")] = 30,
    ratio: Annotated[
        float, typer.Option(min=0, max=10, callback=bounds.number, help="Least lower end of NDCG@10, new over served.")
    ] = 0.99,
    fall: Annotated[
        float, typer.Option(min=0, max=1, callback=bounds.number, help="Largest fall of NDCG@10 on older choices.")
    ] = 0.02,
    keep: Annotated[int, typer.Option(min=2, max=100_000, help="Runs, and their bundles, that stay.")] = 5,
    min_time: MinTime = None,
    rating_scale: RatingScale = None,
    metrics_port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of /metrics; 0: none.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per turn on standard output.")] = False,
) -> None:
    """Capture, train, judge, export and publish, again and again. Training starts from the run of the bundle in use.

    A new bundle takes its place only if it passes the gate (docs/learn.md). One process at a time. One that was killed goes
    on where it was. Needs the extra `export`.

    Exit codes of --once: 0 published, or nothing new; 1 refused by the gate; 65 data, run or bundle cannot be used, 69 no
    broker, 74 a folder cannot be written, 76 records were deleted before they were captured, 78 topic missing.
    """
    signals.release()
    if not once:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    period, settings = _period(every), context.obj
    since, scale = oldest(min_time, settings), scale_of(rating_scale)

    from deploy.learning.learn import REFUSED, UPDATES, Learner, LearnSettings
    from deploy.learning.metrics import LearnMetrics
    from deploy.learning.remote import Remote
    from models.evaluation.gate import Limits
    from models.evaluation.registry import require_preset

    require_preset(preset)
    if update not in UPDATES:
        raise typer.BadParameter(f"--update {update}: expected one of {', '.join(UPDATES)}")
    learner = Learner(
        LearnSettings(
            folder=folder,
            runs=runs,
            bundles=bundles or settings.bundles,
            start=start,
            seed=seed,
            update=update,
            full_days=_period(full_every, "--full-every") / UNITS["d"],
            preset=preset,
            epochs=epochs,
            max_minutes=max_minutes,
            days=days,
            replay=replay,
            limits=Limits(ratio=ratio, fall=fall, days=judge_days, users=judge_users, most_days=judge_most_days),
            keep=keep,
            oldest=since,
            rating_scale=scale,
        ),
        None if no_capture else _capture(settings, folder, accept_loss, activate),
        serving=_by_topic(settings, bundles or settings.bundles) if activate else None,
        remote=Remote(to) if to else None,
        report=_report,
    )
    metrics = LearnMetrics(period + SLACK * UNITS["m"] * max_minutes)
    with learner.alone():
        if metrics_port:
            metrics.serve(settings.web_host, metrics_port)
        if once:
            outcome = learner.turn()
            _say(outcome, as_json)
            raise typer.Exit(1 if outcome.outcome == REFUSED else 0)
        while True:
            time.sleep(_turn(learner, metrics, period, as_json))


def _turn(learner: Learner, metrics: LearnMetrics, period: float, as_json: bool) -> float:
    """Do a turn, and return how long to wait for the next one. An error is logged and counted; the next turn tries again."""
    began = time.monotonic()
    try:
        outcome = learner.turn()
    except FreshetError as error:
        log.error("the turn failed: %s", error)
        metrics.failed()
        return min(period, RETRY)
    metrics.ended(outcome)
    _say(outcome, as_json)
    return max(0.0, period - (time.monotonic() - began))


def _capture(settings: Settings, folder: Path, accept_loss: bool, activate: bool) -> Callable[[], None]:
    """Return what captures the source topics into the folder. activate: Whether a bundle is published by an activation."""

    def capture() -> None:
        from deploy.clients.log_reader import KafkaLog
        from deploy.learning.capture import Capture

        reader = KafkaLog(settings)
        try:
            done = Capture(settings, folder, reader, accept_loss=accept_loss).run()
            if not activate:
                _warn_of_activation(reader, settings)
        finally:
            reader.close()
        log.info("captured", extra={"records": sum(done.records.values()), "refused": done.refused.total()})

    return capture


def _warn_of_activation(reader: KafkaLog, settings: Settings) -> None:
    """Log that CURRENT no longer decides what is served, if so."""
    from deploy.clients import activations

    try:
        newest = activations.followed(reader, settings).newest
    except (BrokerError, TopologyError):
        return  # there is no such topic, or no right to read it
    if newest is not None:
        log.warning(
            "a bundle was activated, so workers do not take what is published as CURRENT: use --activate",
            extra={"bundle": newest.bundle, "activation": newest.number},
        )


def _by_topic(settings: Settings, bundles: Path) -> Serving:
    from deploy.learning.activation import ByTopic

    return ByTopic(settings, bundles)


def _report(stage: str, done: int, total: int, text: str) -> None:
    """Log the notes and the end of each epoch."""
    if stage in ("note", "validation"):
        log.info("%s", text)


def _say(outcome: Outcome, as_json: bool) -> None:
    """Log what a turn did. With as_json, print it too."""
    about = {"outcome": outcome.outcome, "bundle": outcome.bundle, "run": outcome.run, "seconds": outcome.seconds}
    for name, text in outcome.reasons:
        log.warning("refused: %s: %s", name, text, extra={"reason": name, "run": outcome.run})
    log.info("turn: %s", outcome.outcome, extra=about)
    if as_json:
        print(json.dumps(outcome.plain()), flush=True)
