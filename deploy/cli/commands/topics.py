"""`freshet topics`: make and check the topics."""

from __future__ import annotations

import json
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

group = typer.Typer(no_args_is_help=True, help="Make and check the topics of these settings.")


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    app.add_typer(group, name="topics")


@group.command()
def create(context: typer.Context, as_json: Json = False) -> None:
    """Make the topics that are missing, then check all of them."""
    from deploy.clients import admin

    made = admin.create(context.obj)
    partitions = admin.check(context.obj).partitions
    if as_json:
        print(json.dumps({"made": made, "partitions": partitions}))
    else:
        print("\n".join(f"made {name}" for name in made) or "all topics were there")


@group.command()
def mend(context: typer.Context, as_json: Json = False) -> None:
    """Set what the topics' settings must be (docs/kafka.md), then check all of them. Partitions are left as they are."""
    from deploy.clients import admin

    changed = admin.mend(context.obj)
    partitions = admin.check(context.obj).partitions
    if as_json:
        print(json.dumps({"changed": changed, "partitions": partitions}))
    else:
        print("\n".join(changed) or "all topics were as they must be")


@group.command()
def check(context: typer.Context, as_json: Json = False) -> None:
    """Check that all topics are there and fit together; exit code 78 and everything that is wrong if not."""
    from deploy.clients import admin

    partitions = admin.check(context.obj).partitions
    print(json.dumps({"partitions": partitions}) if as_json else f"all topics are there, {partitions} partitions")
