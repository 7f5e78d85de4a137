"""freshet's rating predictor: shrunken biases and a ridge over weighted means of the user's other residuals.

The kernels (same categories, similar text, correlated items, the same day, recurrent means with three fades) are in
models/rating_prediction/features.py. Each recurrent mean is a state of two numbers that one event updates. The effects
of time follow Y. Koren, Collaborative filtering with temporal dynamics, KDD 2009. The neighbours over residuals follow
R. Bell and Y. Koren, Scalable collaborative filtering with jointly derived neighborhood interpolation weights, ICDM
2007. This model is separate from the served network.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.data.histories import Doubles, Rows
from models.rating_prediction.features import Context, Statistics, features, statistics
from models.rating_prediction.table import RatingTable

RIDGE: Final = 10.0


class ResidualModel:
    """A model fitted on the training part of one fold.

    With `causal` it learns only from a user's earlier events, as under a time split.
    """

    def __init__(self, table: RatingTable, train: Rows, *, causal: bool) -> None:
        self._table = table
        self._causal = causal
        self._made: Statistics = statistics(table, train)
        base, read = features(table, self._made, train, Context(causal, folding=False))
        self._ridge = make_pipeline(StandardScaler(), Ridge(RIDGE)).fit(read, table.value[train] - base)

    def predict(self, test: Rows, *, folding: bool = False) -> tuple[Doubles, Doubles]:
        """Return the prediction, and the biases alone, f64 [T] each, clipped to the scale.

        With `folding`, earlier ratings of the test part are used too, once they have passed (only for a causal model).
        """
        base, read = features(self._table, self._made, test, Context(self._causal, folding))
        return np.clip(base + self._ridge.predict(read), *self._table.scale), np.clip(base, *self._table.scale)
