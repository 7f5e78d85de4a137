"""The options by which a command reads data: the same for train, evaluate, replay and read-ratings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.errors import DataError

if TYPE_CHECKING:
    from models.data import DataSet

PANEL = "Columns of one file of your own (docs/data.md)"
UserColumn = Annotated[
    str,
    typer.Option(
        "--user",
        help="Column of users: DATA is then one CSV with a header, JSON lines or Parquet.",
        rich_help_panel=PANEL,
    ),
]
ItemColumn = Annotated[str, typer.Option("--item", help="Column of items.", rich_help_panel=PANEL)]
TimeColumn = Annotated[
    str,
    typer.Option(
        "--time",
        help="Column of times: s, ms, us, ns or ISO 8601; without it the lines are in order.",
        rich_help_panel=PANEL,
    ),
]
ValueColumn = Annotated[
    str, typer.Option("--value", help="Column of values: events are ratings.", rich_help_panel=PANEL)
]
BehaviourColumn = Annotated[
    str, typer.Option("--behaviour", help="Column that holds click, rating or comment.", rich_help_panel=PANEL)
]
TextColumn = Annotated[str, typer.Option("--text", help="Column of texts: events are comments.", rich_help_panel=PANEL)]
SceneColumn = Annotated[str, typer.Option("--scene", help="Column of scenes.", rich_help_panel=PANEL)]


def load(
    data: Path,
    user: str = "",
    item: str = "",
    time: str = "",
    value: str = "",
    behaviour: str = "",
    text: str = "",
    scene: str = "",
) -> DataSet:
    """`generated`, a known form, or one file by the names of its columns. Raises DataError."""
    from models.data import generate, read
    from models.data.general import Columns, read_columns
    from models.data.rows import given_scale

    named = {"--time": time, "--value": value, "--behaviour": behaviour, "--text": text, "--scene": scene}
    if user and item:
        if str(data) == "generated" and not data.exists():
            raise DataError("--user and --item name columns of a file, but the data are `generated`; leave them out")
        return read_columns(data, Columns(user, item, time, value, behaviour, text, scene), given_scale())
    if given := [option for option, column in {"--user": user, "--item": item, **named}.items() if column]:
        missing = "--item" if user else "--user" if item else "--user and --item"
        raise DataError(f"{given[0]} names a column, so {missing} must name one, too")
    return generate() if str(data) == "generated" else read(data)
