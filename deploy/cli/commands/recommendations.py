"""`freshet recommendations`: show the slate of one user."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from deploy.cli.interrupted import Interrupted
from deploy.clients.printable import counted, printable
from stream.core.errors import RecordError
from stream.core.keys import ANYONE
from stream.settings import DEFAULT_PLACEMENT, Settings

if TYPE_CHECKING:
    from deploy.clients.slate_items import ItemsNow

UNKNOWN: Final = "titles are left out, and removed or unavailable items are not marked"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("recommendations")(recommendations)


def recommendations(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="The user's id; * for any unknown user.")],
    placement: Annotated[
        str, typer.Option(help="The placement whose slates are shown, one of the setting `published`.")
    ] = DEFAULT_PLACEMENT,
    follow: Annotated[bool, typer.Option("--follow", help="Keep showing every new slate until interrupted.")] = False,
    titles: Annotated[
        bool, typer.Option("--titles", help="Wait for the titles, however large the topic `items` is.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --follow, one per line.")
    ] = False,
) -> None:
    """Show a user's slate with the highest seq, or the popular items if the user has none.

    The command reads the topic `items` for the titles, and to mark items that were removed or made unavailable since
    (with --json, by a field `now` of the item). Without --titles, it skips this step and prints a note if that would
    take too long (100,000 offsets, 2 s).

    Exit codes: 1 there is no slate at all, 69 no broker, 78 topic missing.
    """
    from deploy.clients import slate_items, slate_reader

    settings: Settings = context.obj
    if placement not in settings.published:
        expected = ", ".join(settings.published)
        raise typer.BadParameter(
            printable(f"--placement {placement}: expected one that workers publish (the setting published): {expected}")
        )
    try:
        reader = slate_reader.SlateReader(settings, user, placement)
    except RecordError as error:
        raise typer.BadParameter(printable(f"--user: {error}")) from None
    try:
        look = None if titles else slate_items.Look(settings)
        slate = reader.latest()
        found = slate or _popular(settings)
        now: ItemsNow | None = None
        if found is not None or follow:
            now = slate_items.whole(settings) if look is None else look.found()
            if now is None and look is not None:
                typer.echo(printable(f"freshet: {UNKNOWN}: {look.why}"), err=True)
        if found is not None:
            if slate is None and user != ANYONE and not as_json:
                typer.echo(
                    printable(
                        f"freshet: no slate of user {user!r} yet, as no event of this user was processed: popular items"
                    ),
                    err=True,
                )
            _show(_marked(found, now), now, as_json)
        elif not follow:
            typer.echo(f"freshet: no slate yet: {_why(settings)}", err=True)
            raise typer.Exit(1)
        if follow:
            shown = int(found is not None)
            try:
                for newer in reader.follow(slate["seq"] if slate else 0):
                    changed = now is not None and now.newer_than(newer["catalogue"])
                    _show(_marked(newer, now if changed else None), now, as_json)
                    shown += 1
            except KeyboardInterrupt:
                message = (
                    f"interrupted: {counted(shown, 'slate')} shown; run the same command to continue from the newest"
                )
                raise Interrupted(message) from None
    finally:
        reader.close()


def _marked(slate: dict[str, Any], now: ItemsNow | None) -> dict[str, Any]:
    """Return the slate with `now` set for each item that is no longer live; unchanged if `now` is None."""
    if now is None:
        return slate
    marks = [now.mark(scored["item"]) for scored in slate["items"]]
    items = [scored | {"now": mark} if mark else scored for scored, mark in zip(slate["items"], marks, strict=True)]
    return slate | {"items": items}


def _why(settings: Settings) -> str:
    from deploy.clients.admin import workers

    running = workers(settings)
    if running == 0:
        return f"no worker is running: the group {settings.app_id} has no member; start one with `freshet worker`"
    known = "a worker" if running is None else f"{running} worker{'s' if running > 1 else ''}"
    return (
        f"{known} may still be starting (check /readyz); slates are empty while there is no item in the topic "
        f"{settings.items_topic}"
    )


def _popular(settings: Settings) -> dict[str, Any] | None:
    from deploy.clients import slate_reader

    reader = slate_reader.SlateReader(settings, ANYONE)
    try:
        return reader.latest()
    finally:
        reader.close()


def _show(slate: dict[str, Any], now: ItemsNow | None, as_json: bool) -> None:
    """Print a slate: as JSON, or as a table, with a column of titles if one is known.

    now: The items as they are now; None if they are not known.
    """
    if as_json:
        print(json.dumps(slate), flush=True)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    def shown(text: str) -> str:
        return escape(printable(text))

    age = max(0.0, time.time() - slate["time"] / 1000)
    who = f"{slate['user']} after {counted(slate['seq'], 'event')}" if slate["seq"] else "popular items"
    titles = [now.title(scored["item"]) for scored in slate["items"]] if now is not None else []
    table = Table(title=shown(f"{who}, {age:,.0f} s ago ({slate['strategy']})"))
    table.add_column("", justify="right")
    table.add_column("item")
    if any(titles):
        table.add_column("title")
    marked = any("now" in scored for scored in slate["items"])
    if marked:
        table.add_column("now")
    table.add_column("score", justify="right")
    for rank, scored in enumerate(slate["items"], start=1):
        more = [shown(titles[rank - 1])] if any(titles) else []
        more += [scored.get("now", "")] if marked else []
        table.add_row(str(rank), shown(scored["item"]), *more, f"{scored['score']:.4f}")
    Console().print(table)
