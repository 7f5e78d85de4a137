"""The categories of the catalogue's rows as numbers, for re-ranking (stream/core/diversity.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]


class Categories:
    """A table that grows with the catalogue. What `rows` returned never changes.

    Args:
        size: Number of rows, all without categories.
    """

    def __init__(self, size: int) -> None:
        self._numbers: dict[str, int] = {}
        self._table: Labels = np.zeros((size, 0), np.int32)
        self._shown = False

    def rows(self, size: int) -> Labels:
        """Return int32 [size, M]: the numbers of each row's categories, each once, from 1; 0 for none."""
        self._shown = True
        return self._table[:size]

    @property
    def numbers(self) -> Mapping[str, int]:
        """Category -> its number, which never changes."""
        return self._numbers

    def put(self, row: int, names: Sequence[str]) -> None:
        """Set the categories of a row."""
        numbers = [self._numbers.setdefault(name, len(self._numbers) + 1) for name in dict.fromkeys(names)]
        if not numbers and not self._table[row].any():
            return
        if len(numbers) > self._table.shape[1]:
            self._table = np.pad(self._table, ((0, 0), (0, len(numbers) - self._table.shape[1])))
        elif self._shown:
            self._table = self._table.copy()
        self._shown = False
        self._table[row] = 0
        self._table[row, : len(numbers)] = numbers

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only these rows, in this order."""
        self._table, self._shown = self._table[rows], False

    def resize(self, size: int) -> None:
        """Add rows without categories up to a size."""
        if size > len(self._table):
            self._table = np.pad(self._table, ((0, size - len(self._table)), (0, 0)))
            self._shown = False
