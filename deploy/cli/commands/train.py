"""`freshet train`: a data folder -> a run folder (weights, text vectors, popularity, figures)."""

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
        data: Annotated[Path, typer.Argument(help="Data folder or file, or `generated` for a small made-up world.")],
        out: Annotated[Path, typer.Option(help="Folder of the run; an older run in it is replaced.")],
        seed: Annotated[
            int, typer.Option(min=0, max=bounds.SEED, help="Same seed, data, machine, one thread: same weights.")
        ] = 0,
        preset: Annotated[str, typer.Option(help="auto, sparse or dense: settings by the kind of data.")] = "auto",
        epochs: Annotated[int | None, typer.Option(min=1, max=bounds.EPOCHS, help="At most; it stops early.")] = None,
        choices: Annotated[
            str,
            typer.Option(
                help="What counts as a choice: clicks, ratings, comments (those with a value), commas between."
            ),
        ] = "clicks,ratings,comments",
        action: Annotated[
            list[str] | None,
            typer.Option(
                help="NAME=WEIGHT: what a click with this action counts for; 0 or below: no choice. May be repeated. It names "
                "no column: --action-column does."
            ),
        ] = None,
        holdout: Annotated[
            int, typer.Option(min=0, max=bounds.HELD_OUT, help="Last choices of each user that training never sees.")
        ] = 8,
        max_minutes: Annotated[
            float, typer.Option(min=0.1, max=bounds.MINUTES, callback=bounds.number, help="Wall time at most, all in.")
        ] = 3.0,
        reading: Annotated[
            Path | None, typer.Option(help="Folder of read-ratings: comments without a value get one, in serving too.")
        ] = None,
        min_time: MinTime = None,
        rating_scale: RatingScale = None,
        columns: NamedColumns = NONE_NAMED,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    ) -> None:
        """Train the interest network on a data folder, with early stopping and a curve picture.

        After each epoch a checkpoint is kept in .cache/train: the same command goes on from there if it was cut off.
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
        if os.environ.get("RANK", "0") == "0":  # of several GPUs' processes the first one writes
            require_folder("--out", out)
        console = Console(stderr=True)
        reader = load_reading(reading) if reading else None
        counted, weights = parse_choices(choices), parse_weights(action or ())
        source = load(data, columns, scale)
        source = replace(source, choices=counted, weights=weights)
        tell_actions(source, action or ())
        require_accepted(
            source.name, source.events, Rules(source.rating_scale, since), source.oldest
        )  # what cannot be sent is not trained
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
                "interrupted; the same command begins again, or goes on from the checkpoint that an earlier one left in "
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
    """What is said where the epochs were interrupted. epochs: that the checkpoint holds."""
    if not epochs:
        return "interrupted before the first epoch was kept; the same command begins again"
    return f"interrupted: the checkpoint of epoch {epochs} is kept in {CHECKPOINTS}; the same command goes on from it"
