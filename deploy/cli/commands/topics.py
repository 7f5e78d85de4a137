"""`freshet topics`: create and check the topics."""

from __future__ import annotations

import json
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

group = typer.Typer(no_args_is_help=True, help="Create and check the topics of these settings.")


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    app.add_typer(group, name="topics")


@group.command()
def create(context: typer.Context, as_json: Json = False) -> None:
    """Create the missing topics, then check all topics."""
    from deploy.clients import admin

    made = admin.create(context.obj)
    partitions = admin.check(context.obj).partitions
    if as_json:
        print(json.dumps({"made": made, "partitions": partitions}))
    else:
        print("\n".join(f"created {name}" for name in made) or "all topics already exist")


@group.command()
def mend(context: typer.Context, as_json: Json = False) -> None:
    """Set the required topic settings (docs/kafka.md), then check all topics. Partitions are not changed."""
    from deploy.clients import admin

    changed = admin.mend(context.obj)
    partitions = admin.check(context.obj).partitions
    if as_json:
        print(json.dumps({"changed": changed, "partitions": partitions}))
    else:
        print("\n".join(changed) or "all topics already have the required settings")


@group.command()
def check(context: typer.Context, as_json: Json = False) -> None:
    """Check that all topics exist and fit together. If not, list everything that is wrong and exit with 78."""
    from deploy.clients import admin

    partitions = admin.check(context.obj).partitions
    print(json.dumps({"partitions": partitions}) if as_json else f"all topics exist, with {partitions} partitions")
