"""Options shared by all commands that read data: the columns of a file, its rating scale, and the oldest time.

Data that will be served must respect min_time. Commands that only look at data print a note if it does not.
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

MOST: Final = 1e9  # largest value that the schemas allow

MinTime = Annotated[
    str | None,
    typer.Option(
        "--min-time",
        help="Refuse events older than this: an ISO date, epoch ms, or off. Default: the setting min_time.",
    ),
]

RatingScale = Annotated[
    tuple[float, float] | None,
    typer.Option("--rating-scale", help="Smallest and largest rating, if the data do not use the scale of their form."),
]


def scale_of(scale: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return --rating-scale if it is a valid scale. Otherwise raise typer.BadParameter."""
    if scale is not None and not -MOST <= scale[0] < scale[1] <= MOST:
        raise typer.BadParameter(
            f"--rating-scale {scale[0]:g} {scale[1]:g}: expected the smallest rating below the largest, both within {MOST:g}"
        )
    return scale


def oldest(text: str | None, settings: Settings) -> int:
    """Return --min-time in epoch ms, by default the setting's value. 0 allows any time. Raises typer.BadParameter."""
    if text is None:
        return settings.oldest
    try:
        return times.parse(text)
    except ValueError as error:
        raise typer.BadParameter(printable(f"--min-time {text}: {error}")) from None


def note_times(data: DataSet, settings: Settings) -> None:
    """Print a note on standard error if a worker with these settings would not accept the times of the data."""
    from models.data.checked import require_accepted

    try:
        require_accepted(data.name, data.events, Rules(data.rating_scale, settings.oldest), data.oldest)
    except DataError as error:
        typer.echo(printable(f"note: {error}"), err=True)


def note_actions(data: DataSet, given: Sequence[str]) -> None:
    """Print a note on standard error if --action names an action that no event has. given: NAME=WEIGHT each."""
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
    "action": "Column of the actions of clicks (view, cart ...). It does not hold weights: --action NAME=WEIGHT sets those.",
}
"""Field of models.data.general.Columns -> help text of its option, --FIELD-column and --FIELD."""
LONG_ONLY: Final = "action"
"""This field has --FIELD-column only, because --action sets weights."""
NamedColumns = Mapping[str, str]
"""Field -> name of its column in the file, for the fields whose column was named."""
ONE: Final = {"allow_extra_args": True}
"""Context settings of the commands with columns. They report by themselves that they accept one file or folder."""
NONE_NAMED: Final[NamedColumns] = MappingProxyType({})


def with_columns(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the command's parameter `columns` by one option for each of COLUMNS.

    The command then receives the named columns in `columns`: field -> name in the file.
    """
    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    parameters = [one.replace(annotation=hints[name]) for name, one in signature.parameters.items()]
    at = list(signature.parameters).index("columns")
    parameters[at : at + 1] = [
        inspect.Parameter(
            f"{field}_column",
            parameters[at].kind,
            default="",
            annotation=Annotated[str, typer.Option(*_options(field), help=text, rich_help_panel=PANEL)],
        )
        for field, text in COLUMNS.items()
    ]

    @wraps(command)
    def called(**given: Any) -> None:
        if more := given["context"].args:
            raise typer.BadParameter(
                printable(f"found {more[0]!r} in addition to {str(given['data'])!r}, expected one file or folder: ")
                + "put the files of one data set into one folder"
            )
        named = {field: given.pop(f"{field}_column") for field in COLUMNS}
        command(**given, columns={field: name for field, name in named.items() if name})

    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return called


def load(data: Path, columns: NamedColumns, rating_scale: tuple[float, float] | None = None) -> DataSet:
    """Read `generated`, data in a known form, or one file whose columns are named.

    Args:
        data: Folder or file, or `generated`.
        columns: Field -> name of its column in the file; empty for a known form.
        rating_scale: Scale of the ratings; None uses the scale of the data.

    Raises:
        DataError: The data cannot be read, or the columns do not fit together.
    """
    from models.data import generate, read
    from models.data.general import Columns, read_columns

    missing = [_options(field)[0] for field in ("user", "item") if field not in columns]
    if columns and missing:
        given = next(_options(field)[0] for field in COLUMNS if field in columns)
        raise DataError(f"{given} names a column, so {' and '.join(missing)} must name one too")
    if not columns:
        return generate(rating_scale=rating_scale) if str(data) == "generated" else read(data, rating_scale)
    if str(data) == "generated" and not data.exists():
        raise DataError("--user and --item name columns of a file, but the data are `generated`; leave them out")
    return read_columns(data, Columns(**columns), rating_scale)


def _options(field: str) -> tuple[str, ...]:
    """Return the option names for the column of a field, the shortest first."""
    long = f"--{field}-column"
    return (long,) if field == LONG_ONLY else (f"--{field}", long)
