"""What text rating must beat: constants, and TF-IDF with ridge regression (scikit-learn)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np

from models.data.histories import Doubles

PENALTIES: Final = (0.03, 0.1, 0.25, 0.5, 1.0)
NGRAMS: Final = (1, 2)
LEAST_TEXTS: Final = (1, 2)


def constant(values: Doubles, kind: str, count: int) -> Doubles:
    """Return f64 [count]: the training part's mean (least RMSE of any constant) or median (least MAE)."""
    return np.full(count, np.mean(values) if kind == "mean" else np.median(values))


@dataclass(frozen=True)
class TfidfRidge:
    """Ridge regression on TF-IDF of words (and pairs of words), whole texts. G. Salton and C. Buckley 1988."""

    vectoriser: Any
    ridge: Any
    settings: dict[str, float]

    def predict(self, texts: Sequence[str]) -> Doubles:
        """Predict f64 [n]."""
        found: Doubles = np.asarray(self.ridge.predict(self.vectoriser.transform(texts)), np.float64)
        return found


def tfidf_ridge(
    texts: Sequence[str], values: Doubles, watched: Sequence[str], watched_values: Doubles
) -> tuple[TfidfRidge, int]:
    """Return the best model of a grid by RMSE on the watched (validation) texts, and how many were tried."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    best, least, tries = None, np.inf, 0
    for ngram, texts_at_least in product(NGRAMS, LEAST_TEXTS):
        vectoriser = TfidfVectorizer(ngram_range=(1, ngram), min_df=texts_at_least, sublinear_tf=True)
        words = vectoriser.fit_transform(texts)
        for penalty in PENALTIES:
            tries += 1
            settings = {"ngram": ngram, "texts": texts_at_least, "penalty": penalty}
            model = TfidfRidge(vectoriser, Ridge(alpha=penalty, solver="sparse_cg").fit(words, values), settings)
            error = float(np.mean((model.predict(watched) - watched_values) ** 2))
            if error < least:
                best, least = model, error
    if best is None:
        raise ValueError("no TF-IDF model has a finite error")
    return best, tries
