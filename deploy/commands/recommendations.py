"""`freshet recommendations`: the slate of one user."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from deploy.printable import printable
from stream.errors import RecordError
from stream.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("recommendations")(recommendations)


def recommendations(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="The user's id; * for anyone unknown.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on with every new slate, until interrupted.")] = False,
    titles: Annotated[bool, typer.Option("--titles", help="Show titles beside the ids.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with --follow one a line.")] = False,
) -> None:
    """Show the slate of the highest seq; of a user without any, the popular items.

    Exit codes: 1 there is no slate at all, 69 no broker, 78 topic missing.
    """
    from deploy import slates

    settings: Settings = context.obj
    try:
        reader = slates.SlateReader(settings, user)
    except RecordError as error:
        raise typer.BadParameter(printable(f"--user: {error}")) from None
    try:
        names = slates.titles(settings) if titles else {}
        slate = reader.latest()
        found = slate or _popular(settings)
        if found is not None:
            _show(found, names, as_json)
        elif not follow:
            typer.echo(f"freshet: no slate yet: {_why(settings)}", err=True)
            raise typer.Exit(1)
        if follow:
            for newer in reader.follow(slate["seq"] if slate else 0):
                _show(newer, names, as_json)
    finally:
        reader.close()


def _why(settings: Settings) -> str:
    from deploy.topics import workers

    running = workers(settings)
    if running == 0:
        return f"no worker runs: the group {settings.app_id} has no member; start one with `freshet worker`"
    known = "a worker" if running is None else f"{running} worker{'s' if running > 1 else ''}"
    return (
        f"{known} may be starting still (/readyz says so); slates are empty while there is no item in the topic "
        f"{settings.items_topic}"
    )


def _popular(settings: Settings) -> dict[str, Any] | None:
    from deploy import slates

    reader = slates.SlateReader(settings, slates.ANYONE)
    try:
        return reader.latest()
    finally:
        reader.close()


def _show(slate: dict[str, Any], titles: dict[str, str], as_json: bool) -> None:
    if as_json:
        print(json.dumps(slate), flush=True)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    def shown(text: str) -> str:
        return escape(printable(text))

    age = max(0.0, time.time() - slate["time"] / 1000)
    table = Table(title=shown(f"{slate['user']} after {slate['seq']} events, {age:,.0f} s ago ({slate['strategy']})"))
    table.add_column("", justify="right")
    table.add_column("item")
    if titles:
        table.add_column("title")
    table.add_column("score", justify="right")
    for rank, scored in enumerate(slate["items"], start=1):
        title = [shown(titles.get(scored["item"], ""))] if titles else []
        table.add_row(str(rank), shown(scored["item"]), *title, f"{scored['score']:.4f}")
    Console().print(table)
