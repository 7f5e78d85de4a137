"""`freshet forget`: have a user's state, slates and recent events deleted."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from deploy.cli.bounds import SECONDS, number
from deploy.clients.printable import printable
from stream.core.errors import RecordError
from stream.settings import Settings

NOT_YET = 3


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("forget")(forget)


def forget(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="The user's id.")],
    by: Annotated[str, typer.Option(help="Who asked. The audit record in the topic `forgotten` names it.")] = "",
    wait: Annotated[
        float,
        typer.Option(
            min=0, max=SECONDS, callback=number, help="Seconds to wait until the workers have done it; 0: none."
        ),
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Forget a user: delete the interest state, the last events in it and the slate, everywhere. It cannot be undone.

    It writes a control record into each source topic. The worker that has the user deletes the state in RocksDB and its
    record in the changelog and in `recommendations`, gateways follow, and an audit record says when. Later events of the
    user start from zero. The user's events stay in the source topics until their retention ends (docs/forgetting.md).

    Exit codes: 3 written, but no worker has done it in time; 69 no broker, 78 topic missing.
    """
    from deploy.clients.forgetting import ask_to_forget, has_slate, wait_forgotten

    settings: Settings = context.obj
    try:
        known = has_slate(settings, user)
        records = ask_to_forget(settings, user, by)
    except RecordError as error:
        raise typer.BadParameter(printable(f"USER: {error}")) from None
    done = wait_forgotten(settings, records, wait) if wait else False
    places = [f"{one.topic}/{one.partition}/{one.offset}" for one in records]
    if as_json:
        print(json.dumps({"user": user, "known": known, "records": places, "forgotten": done}))
    elif done:
        print(printable(f"{user} is forgotten, with all events before {', '.join(places)}"))
    else:
        print(printable(f"asked to forget {user}: {', '.join(places)}"))
    if not known:
        typer.echo(
            "freshet: no slate of this user was there, so probably no state either: is the id spelt right?", err=True
        )
    if wait and not done:
        typer.echo(
            f"freshet: no worker has done it within {wait:g} s; it will be done as soon as one reads these records",
            err=True,
        )
        raise typer.Exit(NOT_YET)
