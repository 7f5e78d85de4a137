"""`freshet evaluate`: compare how well models predict held-out events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import bounds
from deploy.cli.data_options import (
    NONE_NAMED,
    ONE,
    NamedColumns,
    RatingScale,
    load,
    note_actions,
    note_times,
    scale_of,
    with_columns,
)
from deploy.cli.output_paths import require_folder
from deploy.clients.printable import marked, printable

if TYPE_CHECKING:
    from rich.table import Table

    from models.interfaces import ProgressCallback


Data = Annotated[Path, typer.Argument(help="Data folder or file, or `generated` for a small synthetic data set.")]
Protocol = Annotated[
    str,
    typer.Option(
        help="Protocol: last-8, leave-one-out, time-split, cold-items, cold-users, scene-transfer, or rating (RMSE, MAE)."
    ),
]
ModelNames = Annotated[
    str,
    typer.Option(
        help="Models, separated by commas, or all, or ablations. Default: freshet,popularity; for rating: all."
    ),
]
Seeds = Annotated[
    int, typer.Option(min=1, max=bounds.SEEDS, help="Number of fits per model, from seed 0 on; figures are means.")
]
Preset = Annotated[str, typer.Option(help="Settings for the kind of data: auto, sparse or dense.")]
MaxMinutes = Annotated[
    float,
    typer.Option(
        min=0,
        max=bounds.MINUTES,
        callback=bounds.number,
        help="Maximum time for the epochs of each network; 0: no limit.",
    ),
]
RunFolder = Annotated[
    Path | None, typer.Option(help="Run folder to evaluate as freshet, on the holdout of its training.")
]
Choices = Annotated[
    str,
    typer.Option(
        help="Events that count as choices, separated by commas: clicks, ratings, comments (with a value). Default: "
        "all three; with --run, those of its training."
    ),
]
Action = Annotated[
    list[str] | None,
    typer.Option(
        help="Weight of a click with this action: NAME=WEIGHT. 0 or below: not a choice. May be repeated. Default: the "
        "weights of the known actions; with --run, those of its training. --action-column names the column."
    ),
]
FilterSeen = Annotated[bool, typer.Option(help="Leave out items that the user has interacted with.")]
ReportFolder = Annotated[
    Path | None, typer.Option(help="Write report.html, report.json and report.csv to this folder.")
]
Diversity = Annotated[
    str,
    typer.Option(
        help="Strengths of diversity to measure with --run, separated by commas: 0,.1,...,1. Default: that of the run."
    ),
]
Tables = Annotated[
    str,
    typer.Option(
        help="When neighbours and popularity are counted, separated by commas, each a model of its own: frozen (as `freshet "
        "train` does), undecayed (without a half-life), streamed (all events of all users before each choice), epochs:N "
        "(renewed every N events). The last two need --protocol time-split."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate", context_settings=ONE)(with_columns(evaluate))


def evaluate(
    context: typer.Context,
    data: Data,
    protocol: Protocol = "last-8",
    models: ModelNames = "",
    seeds: Seeds = 1,
    preset: Preset = "auto",
    max_minutes: MaxMinutes = 0.0,
    run: RunFolder = None,
    choices: Choices = "",
    action: Action = None,
    filter_seen: FilterSeen = True,
    diversity: Diversity = "",
    tables: Tables = "frozen",
    report: ReportFolder = None,
    rating_scale: RatingScale = None,
    columns: NamedColumns = NONE_NAMED,
    as_json: Json = False,
) -> None:
    """Fit models on the training part only and rank the held-out events among all items, with confidence intervals.

    Fitted models are kept in .cache/evaluate: a repeated run fits nothing, and an interrupted fit continues.
    """
    from models.data.choices import parse_choices, parse_weights  # isort: skip  # first: without the extra, polars is missing
    from models.evaluation.compare import CACHE
    from models.evaluation.evaluate import Question
    from models.evaluation.evaluate import evaluate as compare
    from models.evaluation.report import write_report
    from models.evaluation.tradeoff import parse_strengths
    from models.network.text import TextEncoder
    from models.training.run import load_run

    names = _names(models)
    if report:
        require_folder("--report", report)
    strengths = parse_strengths(diversity) if diversity else ()
    trained = load_run(run) if run else None
    counted_when = tuple(name.strip() for name in tables.split(",") if name.strip()) or (tables,)
    question = Question(
        protocol, names, seeds, preset, max_minutes, filter_seen, trained, CACHE, strengths, counted_when
    )
    source = load(data, columns, scale_of(rating_scale))
    note_times(source, context.obj)
    counted = parse_choices(choices) if choices else trained.spec.choices if trained else source.choices
    weights = parse_weights(action or (), trained.spec.weights if trained else source.weights)
    source = replace(source, choices=counted, weights=weights)
    note_actions(source, action or ())
    with _progress() as progress:
        found = compare(source, question, TextEncoder(), progress)
    found["notes"] = [*source.notes, *found["notes"]]
    if report:
        write_report(found, report)
    if as_json:
        print(json.dumps(found))
    else:
        _print(found, report)


def _names(models: str) -> tuple[str, ...]:
    """Return the names of --models; none for the protocol's default."""
    names = tuple(name.strip() for name in models.split(",") if name.strip())
    if models and not names:
        raise typer.BadParameter(
            printable(
                f"--models {models!r}: found no name, expected names separated by commas, all or ablations: omit it to use "
            )
            + "the protocol's default models"
        )
    return names


def _print(found: dict[str, Any], report: Path | None) -> None:
    """Print the figures of every task, and where the report is."""
    from rich.console import Console

    console = Console()
    for one in (found, *found.get("also", ())):
        console.print(_table(marked(found["data"]), one))
        if one["left out"]:
            console.print(_left_out(one["left out"]))
        for note in one["notes"]:
            console.print(f"note: {marked(note)}", highlight=False)
        for name, of in one["models"].items():
            if "not run" in of:
                console.print(f"{name}: {marked(of['not run'])}", highlight=False)
    for line in _between_tables(found["models"]):
        console.print(line, highlight=False)
    if "diversity" in found:
        console.print(_tradeoff(found["diversity"]))
    for name, of in found.get("lift", {}).items():
        low, high = (100 * end for end in of["HR@10"]["interval"])
        gain = 100 * of["HR@10"]["lift"]
        console.print(f"{name}: other scenes add {gain:+.2f} points of HR@10 ({low:+.2f} to {high:+.2f})")
    if report:
        console.print(f"report: {marked(str(report / 'report.html'))}")


def _table(data: str, found: dict[str, Any]) -> Table:
    """Return one task as a table for the terminal, best model first."""
    from rich.table import Table

    ran = {name: of for name, of in found["models"].items() if "not run" not in of}
    if found["protocol"] == "rating":
        table = Table("model", "RMSE", "95 %", "MAE", "seconds", title=f"{data}: ratings, {found['split']}")
        for name, of in sorted(ran.items(), key=lambda pair: float(pair[1]["RMSE"])):
            low, high = of["intervals"]["RMSE"]
            table.add_row(
                name, f"{of['RMSE']:.4f}", f"{low:.4f} to {high:.4f}", f"{of['MAE']:.4f}", f"{of['seconds']:.1f}"
            )
        return table
    seen = "seen items left out" if found["filter_seen"] else "seen items ranked too"
    part = f", {found['settings']['part']}" if "part" in found["settings"] else ""
    title = f"{data}: {found['protocol']}{part}, {found['judged']:,} choices of {found['users']:,} users, {seen}"
    table = Table("model", "HR@10", "NDCG@10", "95 %", "difference to the best other, 95 %", "seconds", title=title)
    for name, of in sorted(ran.items(), key=lambda pair: -float(pair[1]["test"]["NDCG@10"])):
        low, high = of["intervals"]["NDCG@10"]
        table.add_row(
            name,
            f"{of['test']['HR@10']:.4f}",
            f"{of['test']['NDCG@10']:.4f}",
            f"{low:.3f}-{high:.3f}",
            _over(of["intervals"]),
            f"{of['seconds']:.1f}",
        )
    return table


def _tradeoff(found: dict[str, Any]) -> Table:
    """Return the trade-off between accuracy and diversity as a table: changes against strength 0."""
    from rich.table import Table

    names = list(found["dpp"]["points"][0]["change"])
    table = Table("strength", *names, title="freshet's lists re-ranked with diversity, change against strength 0")
    for point in found["dpp"]["points"]:
        served = " (served)" if point["strength"] == found["served"] else ""
        table.add_row(f"{point['strength']:g}{served}", *(f"{100 * point['change'][name]:+.1f} %" for name in names))
    return table


def _between_tables(models: dict[str, Any]) -> Iterator[str]:
    """Yield what each model gains over the same model with frozen tables, or with the first tables that were asked for."""
    ran = [name for name, of in models.items() if "not run" not in of]
    for name in ran:
        first = next(other for other in ran if other.split(" ")[0] == name.split(" ")[0])
        if first != name:
            gain = models[name]["test"]["NDCG@10"] - models[first]["test"]["NDCG@10"]
            low, high = models[name]["intervals"][f"NDCG@10 - {first}"]
            yield f"{name}: NDCG@10 {gain:+.4f} ({low:+.4f} to {high:+.4f}) over {first}"


def _left_out(reasons: list[dict[str, Any]]) -> Table:
    """Return a table of what does not count, and why."""
    from rich.table import Table

    table = Table("not evaluated", "users", "events")
    for reason in reasons:
        table.add_row(reason["why"], f"{reason['users']:,}", f"{reason['events']:,}")
    return table


def _over(intervals: dict[str, list[float]]) -> str:
    """Return the interval of the difference to the best other model in NDCG@10, which comes first in `intervals`."""
    for name, (low, high) in intervals.items():
        if name.startswith("NDCG@10 over "):
            return f"{low:+.0f} to {high:+.0f} % ({name.removeprefix('NDCG@10 over ').removesuffix(', %')})"
    return ""


@contextmanager
def _progress() -> Iterator[ProgressCallback]:
    """Yield a function that reports progress on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("reading", total=None, text="")

        def progress(stage: str, done: int, total: int, text: str) -> None:
            bar.update(task, description=stage, completed=done, total=total, text=text)
            if stage.endswith(": validation") and text.startswith("epoch"):
                bar.console.print(f"{stage.removesuffix(': validation')}: {text}", highlight=False)

        yield progress
