"""Options of the commands that read data, the same for all: the columns of a file, its rating scale, and the oldest time.

What is to be served must keep to min_time, what is only looked at says where it does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.printable import printable
from stream import times
from stream.errors import DataError
from stream.settings import Settings
from stream.valid import Rules

if TYPE_CHECKING:
    from models.data import DataSet

MOST: Final = 1e9  # of a value, by the schemas

MinTime = Annotated[
    str | None,
    typer.Option(
        "--min-time",
        help="Events of an older time are refused: an ISO date, epoch ms, or off; without: the setting min_time.",
    ),
]

RatingScale = Annotated[
    tuple[float, float] | None,
    typer.Option("--rating-scale", help="Smallest and largest rating, for data on another scale than its form's own."),
]


def scale_of(said: tuple[float, float] | None) -> tuple[float, float] | None:
    """--rating-scale, where it is a scale. Raises typer.BadParameter."""
    if said is not None and not -MOST <= said[0] < said[1] <= MOST:
        raise typer.BadParameter(
            f"--rating-scale {said[0]:g} {said[1]:g}: expected the smallest rating below the largest, both within {MOST:g}"
        )
    return said


def oldest(said: str | None, settings: Settings) -> int:
    """Epoch ms of --min-time, by default of the setting; 0: any time will do. Raises typer.BadParameter."""
    if said is None:
        return settings.oldest
    try:
        return times.parse(said)
    except ValueError as error:
        raise typer.BadParameter(printable(f"--min-time {said}: {error}")) from None


def tell(data: DataSet, settings: Settings) -> None:
    """One note on standard error, where a worker of these settings would not take the times of the data."""
    from models.data.checked import require_accepted

    try:
        require_accepted(data.name, data.events, Rules(data.rating_scale, settings.oldest))
    except DataError as error:
        typer.echo(printable(f"note: {error}"), err=True)


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
