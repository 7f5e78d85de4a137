"""`freshet read-ratings`: learn to read the rating out of a comment's text, compared with other models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli import bounds
from deploy.cli.data_options import NONE_NAMED, ONE, NamedColumns, RatingScale, load, note_times, scale_of, with_columns
from deploy.cli.output_paths import require_folder
from deploy.clients.printable import marked


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("read-ratings", context_settings=ONE)(with_columns(read_ratings))


def read_ratings(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="Data folder with comments that carry ratings, or `generated`.")],
    out: Annotated[Path, typer.Option(help="Folder for `freshet train --reading`. An existing one is replaced.")],
    seeds: Annotated[
        int,
        typer.Option(
            min=1, max=bounds.SEEDS, help="Number of trainings to average the figures over. The first is kept."
        ),
    ] = 1,
    ablation: Annotated[
        bool, typer.Option(help="Also measure the effect of each option, on the validation part.")
    ] = False,
    rating_scale: RatingScale = None,
    columns: NamedColumns = NONE_NAMED,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Fine-tune BERT's upper layers to read ratings. Users are split into training, validation and test."""
    from rich.console import Console

    from models.network.text import TextEncoder
    from models.text_rating.ablation import CHOSEN, reading_ablation
    from models.text_rating.corpus import corpus, split_users
    from models.text_rating.learn import Material, learn
    from models.text_rating.protocol import NAME, reading_protocol
    from models.text_rating.reading import save_reading

    require_folder("--out", out)
    console = Console(stderr=True)

    def report(stage: str, done: int, total: int, text: str) -> None:
        if done == total:
            console.print(f"{stage} {text}")

    source = load(data, columns, scale_of(rating_scale))
    note_times(source, context.obj)
    encode = TextEncoder().encode
    figures = reading_protocol(source, tuple(range(seeds)), encode, report)
    found = corpus(source)
    reading = learn(Material(found, split_users(found), encode(found.texts)), CHOSEN, 0)
    metrics = {f"test {name}": value for name, value in figures["models"][NAME]["test"].items()}
    save_reading(replace(reading, metrics=metrics), out)
    if ablation:
        figures["ablation"] = reading_ablation(source, tuple(range(seeds)), encode, report)
    if as_json:
        print(json.dumps(figures | {"reading": str(out)}))
    else:
        _print(figures)


def _print(figures: dict[str, Any]) -> None:
    title = f"{marked(figures['data'])}: {figures['comments']['test']} comments by the test users"
    _show(figures["models"], "test", title)
    if "ablation" in figures:
        of = figures["ablation"]
        rows = {name: {"validation": row, **row} for name, row in of["variants"].items()}
        _show(rows, "validation", f"{of['comments']} comments by the validation users")


def _show(models: dict[str, dict[str, Any]], part: str, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "RMSE", "95 %", "MAE", "95 %", "RMSE minus the reference's", "s", title=title)
    for name, row in models.items():
        spans = {metric: f"{low:.3f} to {high:.3f}" for metric, (low, high) in row["intervals"].items()}
        over = next((span for metric, span in spans.items() if metric.startswith("RMSE - ")), "")
        seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
        table.add_row(
            name, f"{row[part]['RMSE']:.4f}", spans["RMSE"], f"{row[part]['MAE']:.4f}", spans["MAE"], over, seconds
        )
    Console().print(table)
