"""What is an id in a table: stream.core.validation's rule, and what programs write into tables where there is none, or
a rounded one.

A program has exported a table, and often an id became a null or a float on the way. One user NaN for all that have none, or one
user for many that a float cannot tell apart, would be wrong without anybody seeing it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import polars as pl

from models.data.columns import NAMED, Refused
from models.data.rows import identity
from stream.core import validation

EXACT: Final = 2**53
"""From here on a float is not one whole number, but several; a float of 32 bits from EXACT_32 on."""
EXACT_32: Final = 2**24
EXPECTED: Final = "expected a text or a whole number"


def number_id(value: Any, below: int = EXACT) -> str:
    """An id of a number: a whole one, or a float or a Decimal that is one. below: what a float can tell apart. Raises ValueError
    with what was found and what to do; for anything that is no number, too."""
    if isinstance(value, float) and value.is_integer() and abs(value) >= below:
        raise ValueError(
            f"found {value!r}, expected a whole number below {below}: a float cannot tell larger ones apart, so write the ids as "
            "texts or whole numbers (in pandas as Int64) where they come from"
        )
    try:
        return identity(value, whole_floats=True)
    except ValueError:
        found = str(value) if isinstance(value, Decimal) else validation.shown(value)
        cure = ": leave out the rows that have none" if value != value else ""
        raise ValueError(f"found {found}, {EXPECTED}{cure}") from None


def whole_ids(values: pl.Series) -> pl.Series:
    """A column of floats -> its whole numbers as text, null where there is none. Raises Refused for any other number."""
    below = EXACT_32 if values.dtype == pl.Float32 else EXACT
    values = values.cast(pl.Float64)
    good = values.is_null() | (values.is_finite() & (values.abs() < below) & (values == values.floor()))
    if not good.all():
        rows = (~good).arg_true()
        (first, why), *more = [(row, _why(values[row], below)) for row in rows.head(NAMED)]
        raise Refused(first, why, more, len(rows))
    return values.cast(pl.Int64).cast(pl.String)


def _why(value: float, below: int) -> str:
    try:
        number_id(value, below)
    except ValueError as error:
        return str(error)
    return EXPECTED
