"""Options of the commands that read data, the same for all: the columns of a file, its rating scale, and the oldest time.

What is to be served must keep to min_time, what is only looked at says where it does not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from deploy.clients.printable import printable
from stream.core import times
from stream.core.errors import DataError
from stream.core.validation import Rules
from stream.settings import Settings

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
        require_accepted(data.name, data.events, Rules(data.rating_scale, settings.oldest), data.oldest)
    except DataError as error:
        typer.echo(printable(f"note: {error}"), err=True)


def tell_actions(data: DataSet, given: Sequence[str]) -> None:
    """One note on standard error, where --action names what no event has. given: NAME=WEIGHT each."""
    from models.data.choices import unmet

    if note := unmet(data.events, given):
        typer.echo(printable(f"note: {note}"), err=True)


PANEL: Final = "Columns of one file of your own (docs/data.md)"
COLUMNS: Final[Mapping[str, str]] = {
    "user": "Column of users: DATA is then one CSV with a header, JSON lines or Parquet.",
    "item": "Column of items.",
    "time": "Column of times: s, ms, us, ns or ISO 8601; without it the lines are in order.",
    "value": "Column of values: events are ratings.",
    "behaviour": "Column that holds click, rating or comment.",
    "text": "Column of texts: events are comments.",
    "scene": "Column of scenes.",
    "action": "Column of what clicks did (view, cart ...). Their weights are no column: --action NAME=WEIGHT (train, evaluate).",
}
"""Field of models.data.general.Columns -> help of its option, --FIELD-column and --FIELD."""
LONG_ONLY: Final = "action"
"""This field has --FIELD-column alone: --action gives weights."""
NamedColumns = Mapping[str, str]
"""Field -> name of its column in the file, of the fields whose column was named."""
ONE: Final = {"allow_extra_args": True}
"""Context settings of the commands with columns: they say themselves that they take one file or folder."""
NONE_NAMED: Final[NamedColumns] = MappingProxyType({})


def with_columns(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with one option for each of COLUMNS in the place of its parameter `columns`. There it is given the columns
    that are named: field -> name in the file."""
    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    parameters = [one.replace(annotation=hints[name]) for name, one in signature.parameters.items()]
    at = list(signature.parameters).index("columns")
    parameters[at : at + 1] = [
        inspect.Parameter(
            f"{field}_column",
            parameters[at].kind,
            default="",
            annotation=Annotated[str, typer.Option(*_options(field), help=said, rich_help_panel=PANEL)],
        )
        for field, said in COLUMNS.items()
    ]

    @wraps(command)
    def called(**given: Any) -> None:
        if more := given["context"].args:
            raise typer.BadParameter(
                printable(f"found {more[0]!r} besides {str(given['data'])!r}, expected one file or folder: ")
                + "put the files of one data set into one folder"
            )
        named = {field: given.pop(f"{field}_column") for field in COLUMNS}
        command(**given, columns={field: name for field, name in named.items() if name})

    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return called


def load(data: Path, columns: NamedColumns, rating_scale: tuple[float, float] | None = None) -> DataSet:
    """`generated`, a known form, or one file by the names of its columns (field -> name in the file). rating_scale: of the
    ratings, None for that of the data. Raises DataError."""
    from models.data import generate, read
    from models.data.general import Columns, read_columns

    missing = [_options(field)[0] for field in ("user", "item") if field not in columns]
    if columns and missing:
        given = next(_options(field)[0] for field in COLUMNS if field in columns)
        raise DataError(f"{given} names a column, so {' and '.join(missing)} must name one, too")
    if not columns:
        return generate(rating_scale=rating_scale) if str(data) == "generated" else read(data, rating_scale)
    if str(data) == "generated" and not data.exists():
        raise DataError("--user and --item name columns of a file, but the data are `generated`; leave them out")
    return read_columns(data, Columns(**columns), rating_scale)


def _options(field: str) -> tuple[str, ...]:
    """What names the column of a field on a command line, the shortest first."""
    long = f"--{field}-column"
    return (long,) if field == LONG_ONLY else (f"--{field}", long)
