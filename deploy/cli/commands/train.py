"""`freshet train`: train on a data folder and write a run folder (weights, text vectors, popularity, figures)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Final

import typer

from deploy.cli import bounds
from deploy.cli.data_options import (
    NONE_NAMED,
    ONE,
    MinTime,
    NamedColumns,
    RatingScale,
    load,
    oldest,
    scale_of,
    tell_actions,
    with_columns,
)
from deploy.cli.interrupted import Interrupted
from deploy.cli.output_paths import require_folder
from deploy.clients.printable import marked
from stream.core.validation import Rules

CHECKPOINTS: Final = Path(".cache/train")


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(context_settings=ONE)
    @with_columns
    def train(
        context: typer.Context,
        data: Annotated[
            Path, typer.Argument(help="Data folder or file, or `generated` for a small synthetic data set.")
        ],
        out: Annotated[Path, typer.Option(help="Folder of the run. An existing run in it is replaced.")],
        seed: Annotated[
            int,
            typer.Option(
                min=0,
                max=bounds.SEED,
                help="Random seed. The same seed, data and machine give the same weights with one thread.",
            ),
        ] = 0,
        preset: Annotated[str, typer.Option(help="Settings for the kind of data: auto, sparse or dense.")] = "auto",
        epochs: Annotated[
            int | None,
            typer.Option(min=1, max=bounds.EPOCHS, help="Maximum number of epochs; training may stop early."),
        ] = None,
        choices: Annotated[
            str,
            typer.Option(
                help="Events that count as choices, separated by commas: clicks, ratings, comments (those with a value)."
            ),
        ] = "clicks,ratings,comments",
        action: Annotated[
            list[str] | None,
            typer.Option(
                help="Weight of a click with this action: NAME=WEIGHT. 0 or below: not a choice. May be repeated. "
                "--action-column names the column."
            ),
        ] = None,
        holdout: Annotated[
            int,
            typer.Option(min=0, max=bounds.HELD_OUT, help="Number of last choices per user that training never sees."),
        ] = 8,
        max_minutes: Annotated[
            float,
            typer.Option(
                min=0.1, max=bounds.MINUTES, callback=bounds.number, help="Maximum total wall time, in minutes."
            ),
        ] = 3.0,
        reading: Annotated[
            Path | None,
            typer.Option(
                help="Folder from read-ratings. Comments without a value get one, in training and in serving."
            ),
        ] = None,
        min_time: MinTime = None,
        rating_scale: RatingScale = None,
        columns: NamedColumns = NONE_NAMED,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
    ) -> None:
        """Train the interest network on a data folder, with early stopping and a picture of the training curve.

        Each epoch saves a checkpoint in .cache/train. If training was cut off, run the same command to continue there.
        On several GPUs: torchrun --nproc-per-node N -m deploy.cli train ...
        """
        import time
        from dataclasses import replace

        started = time.monotonic()

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from models.data.checked import require_accepted
        from models.data.choices import parse_choices, parse_weights
        from models.evaluation.registry import require_preset
        from models.network.text import TextEncoder
        from models.text_rating.reading import load_reading
        from models.training.curve import write_curve
        from models.training.distributed import together
        from models.training.run import save_run
        from models.training.train import CutOff, TrainSettings
        from models.training.train import train as fit

        since, scale = oldest(min_time, context.obj), scale_of(rating_scale)
        settings = TrainSettings(seed=seed, holdout=holdout, preset=preset, epochs=epochs, max_minutes=max_minutes)
        require_preset(preset)
        if os.environ.get("RANK", "0") == "0":  # with several GPUs, only the first process writes
            require_folder("--out", out)
        console = Console(stderr=True)
        reader = load_reading(reading) if reading else None
        counted, weights = parse_choices(choices), parse_weights(action or ())
        source = load(data, columns, scale)
        source = replace(source, choices=counted, weights=weights)
        tell_actions(source, action or ())
        require_accepted(
            source.name, source.events, Rules(source.rating_scale, since), source.oldest
        )  # do not train on events that cannot be sent
        bars = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
        )
        try:
            with together() as writes, Progress(*bars, console=console, disable=not writes) as bar:
                task = bar.add_task("reading", total=None, text="")

                def report(stage: str, done: int, total: int, text: str) -> None:
                    bar.update(task, description=stage, completed=done, total=total, text=text)
                    if stage == "validation" and writes:
                        bar.console.print(text)

                trained = fit(source, settings, TextEncoder(), report, started, reader, CHECKPOINTS)
        except CutOff as cut:
            raise Interrupted(_kept(cut.epochs)) from None
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; run the same command to start again, or to continue from the checkpoint of an earlier run in "
                f"{CHECKPOINTS}"
            ) from None
        if not writes:
            return
        save_run(trained.run, out)
        write_curve(trained.curve, trained.run.metrics.get("validation popularity HR@10", 0.0), out)
        notes = [*source.notes, *trained.notes]
        figures = {
            "run": str(out),
            "data": trained.run.data.name,
            "events": trained.run.data.events,
            "items": len(trained.run.item_ids),
            "choices": list(counted),
            "actions": dict(weights),
            "epochs": len(trained.curve),
            "ended": trained.reason,
            "seconds": round(time.monotonic() - started, 1),
            "metrics": trained.run.metrics,
            "form": source.form,
            "notes": notes,
        }
        if as_json:
            print(json.dumps(figures))
        else:
            console.print(
                f"{marked(str(out))}: {len(trained.curve)} epochs in {figures['seconds']} s ({trained.reason})"
            )
            for name, value in trained.run.metrics.items():
                console.print(f"  {name}: {value:.4f}")
            for note in notes:
                console.print(f"  note: {marked(note)}", highlight=False)


def _kept(epochs: int) -> str:
    """Return the message for an interruption during the epochs. epochs: the number that the checkpoint contains."""
    if not epochs:
        return "interrupted before the first epoch was saved; run the same command to start again"
    return (
        f"interrupted: the checkpoint of epoch {epochs} is in {CHECKPOINTS}; run the same command to continue from it"
    )
