"""Columns of a table as a reader takes them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from models.data.columns import Refused, times


def test_times_with_a_fraction_are_exact(tmp_path: Path) -> None:
    """One of a column that is all numbers, and one beside a time of another look: the same milliseconds."""
    texts = ["1593878903.438", "1593878903.4389", "1593878903", "1593878903.", "1593878903.07", "2009"]
    made = times(1000)(pl.Series(texts)).to_list()
    assert made == [
        1_593_878_903_438,
        1_593_878_903_438,
        1_593_878_903_000,
        1_593_878_903_000,
        1_593_878_903_070,
        2_009_000,
    ]
    assert times(1000)(pl.Series([*texts, "1970-01-02"])).to_list() == [*made, 86_400_000]
    assert times(1)(pl.Series(["5", "6.0"])).to_list() == [5, 6]
    with pytest.raises(Refused, match="expected whole milliseconds"):
        times(1)(pl.Series(["5", "6.5"]))
