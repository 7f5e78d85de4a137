"""Turns histories into sparse matrices, the form that the libraries take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_matrix

from models.data.histories import Flags, Histories, Rows
from models.interfaces import TrainingData


def interactions(training: TrainingData) -> csr_matrix:
    """Return f32 [U, N + 1]: 1 if a user chose an item in the training part. Column 0 is empty."""
    rows, counted = training.rows, training.use & training.rows.choice
    return _binary(rows.owner()[counted], rows.item[counted], (len(rows.users), len(training.items) + 1))


def taken(rows: Histories, positions: Rows, items: int) -> csr_matrix:
    """Return f32 [Q, items + 1]: 1 if the user of a position chose an item before it."""
    line, at = rows.earlier(positions)
    counted = rows.choice[at]
    return _binary(line[counted], rows.item[at[counted]], (len(positions), items + 1))


def learned_users(training: TrainingData, rows: Histories) -> Callable[[Rows], Rows]:
    """Return a function from positions i64 [Q] of `rows` to i64 [Q]: the users of `training` whose vectors may serve.

    It returns -1 where none may. A vector may serve if the user's history before the position begins with exactly the
    events that it was learned from. Otherwise it would know events that the position must not know: later ones, or some
    that the protocol has removed.
    """
    row_of = {name: row for row, name in enumerate(training.rows.users)}
    same = np.full(len(rows.users), -1, np.int64)
    length = np.zeros(len(rows.users), np.int64)
    for user, name in enumerate(rows.users):
        other = row_of.get(name, -1)
        if other < 0:
            continue
        begin, end = training.rows.starts[other], training.rows.starts[other + 1]
        used = np.flatnonzero(training.use[begin:end])
        count = int(used[-1]) + 1 if len(used) else 0
        mine = rows.item[rows.starts[user] : rows.starts[user + 1]][:count]
        if count and np.array_equal(mine, training.rows.item[begin : begin + count]):
            same[user], length[user] = other, count

    def at(positions: Rows) -> Rows:
        owner = np.searchsorted(rows.starts, positions, side="right") - 1
        return np.where(positions - rows.starts[owner] >= length[owner], same[owner], -1)

    return at


def known_columns(matrix: csr_matrix) -> Flags:
    """Return bool [N + 1]: the columns that have any entry."""
    flags: Flags = np.diff(matrix.tocsc().indptr) > 0
    return flags


def _binary(row: Rows, column: Rows, shape: tuple[int, int]) -> csr_matrix:
    matrix = csr_matrix((np.ones(len(row), np.float32), (row, column)), shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix
