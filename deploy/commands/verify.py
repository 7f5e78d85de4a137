"""`freshet verify`: the independent check of the promise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deploy.verify import Report

SHOWN = 10
ROWS = (
    ("input", "source records"),
    ("accepted", "acceptable by the published schemas"),
    ("applied", "in a state"),
    ("duplicates", "an id that the user had before"),
    ("dead_letters", "set aside, each with its reason"),
    ("lost", "acceptable, but in no state"),
    ("unreported", "unacceptable, but no dead letter"),
    ("double", "applied more than once"),
    ("uncovered", "applied, but shown by no slate"),
    ("pending", "not yet committed: --wait lets the worker finish"),
    ("unverifiable", "compacted or deleted, cannot be judged"),
    ("users", ""),
    ("states", "changelog records"),
    ("slates", ""),
    ("replays", "slates that repeat a state"),
)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("verify")(verify)


def verify(
    context: typer.Context,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds until the worker must have committed all that is there now.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recompute everything from the topics: is an event lost, applied twice, or shown by no slate?

    Exit codes: 0 the promise holds, 1 it is broken (the first offender is named), 3 part of it cannot be judged
    (records deleted, compacted, or not yet committed), 69 no broker, 78 topics missing.
    """
    from deploy.verify import run

    report = run(context.obj, wait)
    if as_json:
        print(json.dumps(report.as_dict()))
    else:
        _show(report)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="freshet verify")
    for heading in ("", "records", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for name, meaning in ROWS:
        count = getattr(report, name)
        bad = count and name in ("lost", "unreported", "double", "uncovered")
        table.add_row(name.replace("_", " "), f"[red]{count:,}[/]" if bad else f"{count:,}", meaning)
    console = Console()
    console.print(table)
    verdict = {0: "the promise holds", 1: "the promise is broken", 3: "part of it cannot be judged"}[report.exit_code]
    console.print(f"{verdict} ({report.seconds:.1f} s)")
    for violation in report.violations[:SHOWN]:
        console.print(escape(f"  {violation}"), highlight=False, soft_wrap=True)
    more = report.kinds.total() - min(SHOWN, len(report.violations))
    if more > 0:
        console.print(f"  and {more:,} more: " + ", ".join(f"{kind} {count:,}" for kind, count in report.kinds.items()))
