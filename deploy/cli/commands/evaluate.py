"""`freshet evaluate`: compare how well models predict held-out events."""

from __future__ import annotations

import json
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
    scale_of,
    tell,
    tell_actions,
    with_columns,
)
from deploy.cli.output_paths import require_folder
from deploy.clients.printable import marked, printable

if TYPE_CHECKING:
    from rich.table import Table


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(context_settings=ONE)
    @with_columns
    def evaluate(
        context: typer.Context,
        data: Annotated[
            Path, typer.Argument(help="Data folder or file, or `generated` for a small synthetic data set.")
        ],
        protocol: Annotated[
            str,
            typer.Option(
                help="Protocol: last-8, leave-one-out, time-split, cold-items, cold-users, scene-transfer, or rating (RMSE, MAE)."
            ),
        ] = "last-8",
        models: Annotated[
            str,
            typer.Option(
                help="Models, separated by commas, or all, or ablations. Default: freshet,popularity; for rating: all."
            ),
        ] = "",
        seeds: Annotated[
            int,
            typer.Option(min=1, max=bounds.SEEDS, help="Number of fits per model, from seed 0 on; figures are means."),
        ] = 1,
        preset: Annotated[str, typer.Option(help="Settings for the kind of data: auto, sparse or dense.")] = "auto",
        max_minutes: Annotated[
            float,
            typer.Option(
                min=0,
                max=bounds.MINUTES,
                callback=bounds.number,
                help="Maximum time for the epochs of each network; 0: no limit.",
            ),
        ] = 0.0,
        run: Annotated[
            Path | None, typer.Option(help="Run folder to evaluate as freshet, on the holdout of its training.")
        ] = None,
        choices: Annotated[
            str,
            typer.Option(
                help="Events that count as choices, separated by commas: clicks, ratings, comments (with a value). Default: "
                "all three; with --run, those of its training."
            ),
        ] = "",
        action: Annotated[
            list[str] | None,
            typer.Option(
                help="Weight of a click with this action: NAME=WEIGHT. 0 or below: not a choice. May be repeated. Default: the "
                "weights of the known actions; with --run, those of its training. --action-column names the column."
            ),
        ] = None,
        filter_seen: Annotated[bool, typer.Option(help="Leave out items that the user has interacted with.")] = True,
        report: Annotated[
            Path | None, typer.Option(help="Write report.html, report.json and report.csv to this folder.")
        ] = None,
        rating_scale: RatingScale = None,
        columns: NamedColumns = NONE_NAMED,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
    ) -> None:
        """Fit models on the training part only and rank the held-out events among all items, with confidence intervals.

        Fitted models are kept in .cache/evaluate: a repeated run fits nothing, and an interrupted fit continues.
        """
        from models.data.choices import parse_choices  # isort: skip  # first: without the extra, polars is missing
        from dataclasses import replace

        from rich.console import Console

        from models.data.choices import parse_weights
        from models.evaluation.compare import CACHE
        from models.evaluation.evaluate import Question
        from models.evaluation.evaluate import evaluate as judge
        from models.evaluation.report import write_report
        from models.network.text import TextEncoder
        from models.training.run import load_run

        names = tuple(name.strip() for name in models.split(",") if name.strip())
        if models and not names:
            raise typer.BadParameter(
                printable(
                    f"--models {models!r}: found no name, expected names separated by commas, all or ablations: omit it to use "
                )
                + "the protocol's default models"
            )
        if report:
            require_folder("--report", report)
        judged = load_run(run) if run else None
        asked = Question(protocol, names, seeds, preset, max_minutes, filter_seen, judged, CACHE)
        source = load(data, columns, scale_of(rating_scale))
        tell(source, context.obj)
        counted = parse_choices(choices) if choices else judged.spec.choices if judged else source.choices
        weights = parse_weights(action or (), judged.spec.weights if judged else source.weights)
        source = replace(source, choices=counted, weights=weights)
        tell_actions(source, action or ())
        with _progress() as told:
            found = judge(source, asked, TextEncoder(), told)
        found["notes"] = [*source.notes, *found["notes"]]
        if report:
            write_report(found, report)
        if as_json:
            print(json.dumps(found))
            return
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


def _left_out(reasons: list[dict[str, Any]]) -> Table:
    """Return a table of what is not judged, and why."""
    from rich.table import Table

    table = Table("not judged", "users", "events")
    for reason in reasons:
        table.add_row(reason["why"], f"{reason['users']:,}", f"{reason['events']:,}")
    return table


def _over(intervals: dict[str, list[float]]) -> str:
    """Return the interval of the difference to the best other model in NDCG@10, which comes first in `intervals`."""
    for name, (low, high) in intervals.items():
        if name.startswith("NDCG@10 over "):
            return f"{low:+.0f} to {high:+.0f} % ({name.removeprefix('NDCG@10 over ').removesuffix(', %')})"
    return ""


def _progress() -> Any:
    """Return a context manager that yields a models.interfaces.ProgressCallback, which reports on standard error."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    @contextmanager
    def shown() -> Any:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
        )
        with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task("reading", total=None, text="")

            def told(stage: str, done: int, total: int, text: str) -> None:
                bar.update(task, description=stage, completed=done, total=total, text=text)
                if stage.endswith(": validation") and text.startswith("epoch"):
                    bar.console.print(f"{stage.removesuffix(': validation')}: {text}", highlight=False)

            yield told

    return shown()
