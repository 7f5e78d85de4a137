"""`freshet train`: train on a data folder and write a run folder (weights, text vectors, popularity, figures)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from deploy.cli import bounds
from deploy.cli.data_options import (
    NONE_NAMED,
    ONE,
    MinTime,
    NamedColumns,
    RatingScale,
    load,
    note_actions,
    oldest,
    scale_of,
    with_columns,
)
from deploy.cli.interrupted import Interrupted
from deploy.cli.output_paths import require_folder
from deploy.clients.printable import counted, marked
from stream.core.validation import Rules

if TYPE_CHECKING:
    from rich.console import Console

    from models.data import DataSet
    from models.text_rating.reading import Reading
    from models.training.run import Run
    from models.training.train import Trained, TrainSettings

CHECKPOINTS: Final = Path(".cache/train")
DAYS: Final = 30.0
REPLAY: Final = 0.2
"""As in models.training.start, which needs torch."""


Data = Annotated[Path, typer.Argument(help="Data folder or file, or `generated` for a small synthetic data set.")]
Out = Annotated[Path, typer.Option(help="Folder of the run. An existing run in it is replaced.")]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=bounds.SEED,
        help="Random seed. The same seed, data and machine give the same weights with one thread.",
    ),
]
Preset = Annotated[str, typer.Option(help="Settings for the kind of data: auto, sparse or dense.")]
Epochs = Annotated[
    int | None, typer.Option(min=1, max=bounds.EPOCHS, help="Maximum number of epochs; training may stop early.")
]
Choices = Annotated[
    str,
    typer.Option(
        help="Events that count as choices, separated by commas: clicks, ratings, comments (those with a value)."
    ),
]
Action = Annotated[
    list[str] | None,
    typer.Option(
        help="Weight of a click with this action: NAME=WEIGHT. 0 or below: not a choice. May be repeated. "
        "--action-column names the column."
    ),
]
Holdout = Annotated[
    int, typer.Option(min=0, max=bounds.HELD_OUT, help="Number of last choices per user that training never sees.")
]
MaxMinutes = Annotated[
    float,
    typer.Option(min=0.1, max=bounds.MINUTES, callback=bounds.number, help="Maximum total wall time, in minutes."),
]
DiversityBudget = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        callback=bounds.number,
        help="Share of the validation NDCG@10 that more diverse slates may cost. 0: slates by score alone.",
    ),
]
Tables = Annotated[
    str,
    typer.Option(
        help="frozen, or streamed for serving beside `freshet tally`: neighbours, popularity and the weights of the sum are "
        "chosen with tables that follow the stream, and the bundle says how the tally counts them."
    ),
]
ReadingFolder = Annotated[
    Path | None,
    typer.Option(help="Folder from read-ratings. Comments without a value get one, in training and in serving."),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Start from this run: its weights, and its items first. Its choices and rating scale must be the data's.",
    ),
]
Days = Annotated[
    float,
    typer.Option(
        min=0, max=bounds.DAYS, callback=bounds.number, help="With --from: newest days to learn from in every epoch."
    ),
]
Replay = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        callback=bounds.number,
        help="With --from: share of what is older in an epoch, drawn again each time.",
    ),
]
Update = Annotated[
    str,
    typer.Option(
        help="With --from: full trains all; head keeps the step and the vectors that it reads, so that users' states stay valid."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", context_settings=ONE)(with_columns(train))


def train(
    context: typer.Context,
    data: Data,
    out: Out,
    seed: Seed = 0,
    preset: Preset = "auto",
    epochs: Epochs = None,
    choices: Choices = "clicks,ratings,comments",
    action: Action = None,
    holdout: Holdout = 8,
    max_minutes: MaxMinutes = 3.0,
    diversity_budget: DiversityBudget = 0.02,
    tables: Tables = "frozen",
    reading: ReadingFolder = None,
    start: From = None,
    days: Days = DAYS,
    replay: Replay = REPLAY,
    update: Update = "full",
    min_time: MinTime = None,
    rating_scale: RatingScale = None,
    columns: NamedColumns = NONE_NAMED,
    as_json: Json = False,
) -> None:
    """Train the interest network on a data folder, with early stopping and a picture of the training curve.

    Each epoch saves a checkpoint in .cache/train. If training was cut off, run the same command to continue there.
    On several GPUs: torchrun --nproc-per-node N -m deploy.cli train ...
    """
    started = time.monotonic()

    from models.data.checked import require_accepted
    from models.data.choices import parse_choices, parse_weights
    from models.evaluation.registry import require_preset
    from models.text_rating.reading import load_reading
    from models.training.curve import write_curve
    from models.training.run import load_run, save_run
    from models.training.train import TrainSettings

    since, scale = oldest(min_time, context.obj), scale_of(rating_scale)
    if update not in ("head", "full"):
        raise typer.BadParameter(f"--update {update}: expected head or full")
    if update == "head" and start is None:
        raise typer.BadParameter("--update head needs --from RUN: it keeps that run's step")
    if start is None and (days, replay) != (DAYS, REPLAY):
        raise typer.BadParameter("--days and --replay need --from RUN: without it, all is learned from in every epoch")
    if start is not None and start.resolve() == out.resolve():
        raise typer.BadParameter(f"--out {out}: it would replace the run that --from names; write to another folder")
    settings = TrainSettings(
        seed=seed,
        holdout=holdout,
        preset=preset,
        epochs=epochs,
        max_minutes=max_minutes,
        diversity_budget=diversity_budget,
        tables=tables,
        days=days,
        replay=replay,
        head=update == "head",
    )
    require_preset(preset)
    before = load_run(start) if start else None
    if os.environ.get("RANK", "0") == "0":  # with several GPUs, only the first process writes
        require_folder("--out", out)
    reader = load_reading(reading) if reading else None
    kinds, weights = parse_choices(choices), parse_weights(action or ())
    source = replace(load(data, columns, scale), choices=kinds, weights=weights)
    note_actions(source, action or ())
    # do not train on events that cannot be sent
    require_accepted(source.name, source.events, Rules(source.rating_scale, since), source.oldest)
    if not as_json:
        _print_notes(source.notes)
    trained = _fit(source, settings, started, reader, before)
    if trained is None:
        return
    save_run(trained.run, out)
    write_curve(trained.curve, trained.run.metrics.get("validation popularity HR@10", 0.0), out)
    figures = _figures(source, trained, out, round(time.monotonic() - started, 1))
    if as_json:
        print(json.dumps(figures))
    else:
        _print(figures)


def _fit(
    source: DataSet, settings: TrainSettings, started: float, reader: Reading | None, before: Run | None
) -> Trained | None:
    """Train, and show the progress on standard error. Return None in a process that writes nothing.

    started: Monotonic time at which the command began. before: The run to start from. Raises Interrupted.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from models.network.text import TextEncoder
    from models.training.distributed import together
    from models.training.train import CutOff
    from models.training.train import train as fit

    bars = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    try:
        with together() as writes, Progress(*bars, console=Console(stderr=True), disable=not writes) as bar:
            task = bar.add_task("reading", total=None, text="")

            def report(stage: str, done: int, total: int, text: str) -> None:
                if stage == "note":
                    if writes:
                        _print_notes([text], bar.console)
                    return
                bar.update(task, description=stage, completed=done, total=total, text=text)
                if stage == "validation" and writes:
                    bar.console.print(text)

            trained = fit(source, settings, TextEncoder(), report, started, reader, CHECKPOINTS, before)
    except CutOff as cut:
        raise Interrupted(_interrupted(cut.epochs)) from None
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; run the same command to start again, or to continue from the checkpoint of an earlier run in "
            f"{CHECKPOINTS}"
        ) from None
    return trained if writes else None


def _figures(source: DataSet, trained: Trained, out: Path, seconds: float) -> dict[str, Any]:
    """Return what --json prints."""
    return {
        "run": str(out),
        "data": trained.run.data.name,
        "events": trained.run.data.events,
        "items": len(trained.run.item_ids),
        "choices": list(source.choices),
        "actions": dict(source.weights),
        "epochs": len(trained.curve),
        "ended": trained.reason,
        "seconds": seconds,
        "metrics": trained.run.metrics,
        "diversity": asdict(trained.run.diversity),
        "tables": asdict(trained.run.tables) if trained.run.tables else None,
        "form": source.form,
        "notes": [*source.notes, *trained.notes],
    }


def _print(figures: dict[str, Any]) -> None:
    """Print the figures on standard error. The notes were printed before the training."""
    from rich.console import Console

    console = Console(stderr=True)
    console.print(
        f"{marked(figures['run'])}: {counted(figures['epochs'], 'epoch')} in {figures['seconds']} s ({figures['ended']})"
    )
    for name, value in figures["metrics"].items():
        console.print(f"  {name}: {value:.4f}")
    chosen = figures["diversity"]
    console.print(f"  diversity: {chosen['strength']:g}", highlight=False)
    for name, change in chosen["metrics"].items():
        console.print(f"    {name} on validation: {100 * change:+.1f} %", highlight=False)
    if counted_by := figures["tables"]:
        near = counted_by["near"]
        console.print(
            f"  tables: half-life {near['half_life']} days, of popularity {counted_by['prior']} (0: none), "
            f"reach {near['reach']}, decay {near['decay']:g}, back {near['back']:g}, shrink {near['shrink']:g}",
            highlight=False,
        )


def _print_notes(notes: Sequence[str], console: Console | None = None) -> None:
    """Print the notes on standard error."""
    if not notes or os.environ.get("RANK", "0") != "0":
        return
    from rich.console import Console

    for note in notes:
        (console or Console(stderr=True)).print(f"note: {marked(note)}", highlight=False)


def _interrupted(epochs: int) -> str:
    """Return the message for an interruption during the epochs. epochs: the number that the checkpoint contains."""
    if not epochs:
        return "interrupted before the first epoch was saved; run the same command to start again"
    return (
        f"interrupted: the checkpoint of epoch {epochs} is in {CHECKPOINTS}; run the same command to continue from it"
    )
