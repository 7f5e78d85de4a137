"""The predictors of scikit-surprise with its default settings (N. Hug, JOSS 5 (52), 2020), and the global mean."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import surprise

from models.data.histories import Rows
from models.rating_prediction.table import Doubles, RatingTable
from stream.core.errors import DataError

KNN_USERS: Final = 20_000  # most users for which a full user-by-user matrix is made
SVDPP_PAIRS: Final = 1_000_000_000
"""Most pairs of ratings of one user. The time of SVD++ grows with them (about 60 s for 60 million)."""


def trainset(table: RatingTable, train: Rows) -> surprise.Trainset:
    """Return the training part as the library takes it.

    Users and items without a training rating have no inner id and are unknown to the library.
    """
    users, inner_user = np.unique(table.user[train], return_inverse=True)
    items, inner_item = np.unique(table.item[train], return_inverse=True)
    by_user: dict[int, list[Any]] = {at: [] for at in range(len(users))}
    by_item: dict[int, list[Any]] = {at: [] for at in range(len(items))}
    for user, item, value in zip(inner_user.tolist(), inner_item.tolist(), table.value[train].tolist(), strict=True):
        by_user[user].append((item, value))
        by_item[item].append((user, value))
    return surprise.Trainset(
        by_user,
        by_item,
        len(users),
        len(items),
        len(train),
        table.scale,
        {user: at for at, user in enumerate(users.tolist())},
        {item: at for at, item in enumerate(items.tolist())},
    )


def library_predictions(name: str, table: RatingTable, train: Rows, test: Rows, seed: int) -> Doubles:
    """Predict f64 [len(test)], clipped to the scale. Raises DataError if the data is above a model's size limit."""
    if name == "mean":
        return np.full(len(test), table.value[train].mean())
    model = _model(name, table, train, seed)
    model.fit(trainset(table, train))
    pairs = zip(table.user[test].tolist(), table.item[test].tolist(), strict=True)
    return np.array([model.predict(user, item).est for user, item in pairs])


def _model(name: str, table: RatingTable, train: Rows, seed: int) -> Any:
    if name == "svd":
        return surprise.SVD(random_state=seed)
    if name == "svdpp":
        pairs = int((np.bincount(table.user[train]).astype(np.int64) ** 2).sum())
        if pairs > SVDPP_PAIRS:
            raise DataError(
                f"svdpp: not run: found {pairs:,} pairs of ratings of one user, expected at most {SVDPP_PAIRS:,}"
            )
        return surprise.SVDpp(random_state=seed, cache_ratings=True)
    if name == "user-knn":
        if table.users > KNN_USERS:
            raise DataError(f"user-knn: not run: found {table.users:,} users, expected at most {KNN_USERS:,}")
        return surprise.KNNWithMeans(verbose=False)
    if name == "bias":
        return surprise.BaselineOnly(verbose=False)
    raise DataError(f"rating model {name}: there is no such model")
