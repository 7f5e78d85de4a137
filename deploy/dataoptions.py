"""The setting min_time in the commands that read data: what is to be served must keep to it, what is only looked at says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deploy.printable import printable
from stream import times
from stream.errors import DataError
from stream.settings import Settings
from stream.valid import Rules

if TYPE_CHECKING:
    from models.data import DataSet

MinTime = Annotated[
    str | None,
    typer.Option(
        "--min-time",
        help="Events of an older time are refused: an ISO date, epoch ms, or off; without: the setting min_time.",
    ),
]


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
