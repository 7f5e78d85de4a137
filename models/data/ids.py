"""Read ids in tables by the rule of stream.core.validation.

NaN, and numbers that a float may have rounded, are refused. When a program exports a table, an id often becomes a null
or a float. One user NaN for all users without an id, or one user for many that a float cannot tell apart, would be an
error that nobody sees.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import polars as pl

from models.data.columns import NAMED, Refused
from models.data.rows import identity
from stream.core import validation

EXACT: Final = 2**53
"""From here on a float stands for several whole numbers; a 32-bit float from EXACT_32 on."""
EXACT_32: Final = 2**24
EXPECTED: Final = "expected a text or a whole number"


def number_id(value: Any, below: int = EXACT) -> str:
    """Return the id for a number: a whole number, or a float or a Decimal with the value of one.

    Args:
        below: A float can tell whole numbers apart only below this.

    Raises:
        ValueError: The value is another number, or not a number. The error says what was found and what to do.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) >= below:
        raise ValueError(
            f"found {value!r}, expected a whole number below {below}: a float cannot tell larger ones apart, so write the ids as "
            "texts or whole numbers (in pandas as Int64) in the program that exports them"
        )
    try:
        return identity(value, whole_floats=True)
    except ValueError:
        found = str(value) if isinstance(value, Decimal) else validation.shown(value)
        cure = ": leave out the rows without an id" if value != value else ""
        raise ValueError(f"found {found}, {EXPECTED}{cure}") from None


def whole_ids(values: pl.Series) -> pl.Series:
    """Return the whole numbers in a column of floats as text, and null for null.

    Raises Refused for any other number.
    """
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
