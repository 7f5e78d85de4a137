"""Options of the commands that read data: its rating scale, and the oldest time.

What is to be served must keep to min_time, what is only looked at says where it does not.
"""

from __future__ import annotations

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
