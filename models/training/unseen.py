"""Ranks validation choices as if their items had come after training, to choose how much texts count for such items.

The validation part holds few items that training has not seen. So the known items are cut into folds. An item of a fold
gets the vector that its text alone gives by ridge regression on the vectors of the other folds: like the text tower's, it
is not learned from the item itself. It has neither neighbours nor popularity. It is ranked among the items of its fold.
Choices of items that training has really not seen are ranked among those, with the vectors that they are served with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from models.data.histories import Flags, Floats, Histories, Rows
from models.interfaces import TrainingData
from models.metrics.ranks import gains, seen_before, worst_ranks
from models.network.blend import Blend, Texts, mean_texts, recent_choices
from models.network.network import InterestNetwork
from models.network.scorer import interest_queries
from models.training.tuning import watched

FOLDS: Final = 10
RIDGE: Final = 1.0
LEAST: Final = 50
"""Fewer choices than these choose nothing."""


@dataclass(frozen=True)
class Pool:
    """Items that are ranked among each other, and the choices of them.

    Attributes:
        items: i64 [C], item rows. The first is row 0, which no choice has.
        scores: f32 [Q, C], the network's scores of Q choices.
        wanted: i64 [Q], the column of each choice's item.
        seen: i64 [2, S], (choice, column) of items that the user had before.
        recent: i64 [R, 3], the last choices before each choice.
    """

    items: Rows
    scores: Tensor
    wanted: Rows
    seen: Rows
    recent: Rows

    def gain(self, blend: Blend, texts: Texts) -> float:
        """Return the sum of NDCG@10 over the choices."""
        users = mean_texts(self.recent, len(self.wanted), blend, texts.vectors)
        scores = self.scores + blend.text_new * (users @ torch.from_numpy(texts.vectors[self.items]).T)
        scores[torch.from_numpy(self.seen[0]), torch.from_numpy(self.seen[1])] = -torch.inf
        return float(gains(worst_ranks(scores, torch.from_numpy(self.wanted)).numpy()).sum())


@torch.no_grad()
def pools(training: TrainingData, network: InterestNetwork, last: int) -> list[Pool]:
    """Return the pools of the validation choices; none if there are fewer than LEAST choices. `last`: choices of a user."""
    rows, positions = training.rows, watched(training)
    given: Flags = np.asarray(training.text.any(1))
    positions = positions[given[rows.item[positions]]]
    if len(positions) < LEAST:
        return []
    items = network.item_matrix()
    queries = interest_queries(network, rows, items)(positions).cpu()
    items = network.output_matrix()
    made = []
    for own, vectors in _folds(training.text, items.cpu().numpy(), training.known & given, ~training.known & given):
        if network.size.normalise:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        some = np.flatnonzero(np.isin(rows.item[positions], own))
        if len(some):
            made.append(_pool(rows, positions[some], queries[torch.from_numpy(some)], own, vectors, last))
    return made


def gain(found: list[Pool], blend: Blend, texts: Texts) -> float:
    """Return the mean NDCG@10 of all choices of the pools."""
    return sum(pool.gain(blend, texts) for pool in found) / sum(len(pool.wanted) for pool in found)


def _folds(text: Floats, items: Floats, known: Flags, new: Flags) -> Iterator[tuple[Rows, Floats]]:
    """Yield item rows and the vectors that they have if nobody has chosen them, f32 [C, D]."""
    rows = np.random.default_rng(0).permutation(np.flatnonzero(known))
    for fold in np.array_split(rows, FOLDS):
        others = rows[~np.isin(rows, fold)]
        if len(others) and len(fold):
            own = np.sort(fold)
            yield own, _ridge(text[others], items[others], text[own])
    if new.any():
        yield np.flatnonzero(new), items[new]


def _ridge(text: Floats, vectors: Floats, asked: Floats) -> Floats:
    """Predict vectors from the texts `asked`, by ridge regression on other items."""
    mean, middle = text.mean(0, dtype=np.float64), vectors.mean(0, dtype=np.float64)
    centred = text - mean
    inner = centred.T @ centred + RIDGE * np.eye(text.shape[1])
    weights = np.linalg.solve(inner, centred.T @ (vectors - middle))
    found: Floats = ((asked - mean) @ weights + middle).astype(np.float32)
    return found


def _pool(rows: Histories, positions: Rows, queries: Tensor, own: Rows, vectors: Floats, last: int) -> Pool:
    columns = np.concatenate((np.zeros(1, np.int64), own))
    line, seen = seen_before(rows, positions)
    inside = np.isin(seen, own)
    scores = torch.nn.functional.pad(queries @ torch.from_numpy(vectors).T, (1, 0))
    return Pool(
        columns,
        scores,
        np.searchsorted(columns, rows.item[positions]),
        np.stack((line[inside], np.searchsorted(columns, seen[inside]))),
        recent_choices(rows, rows.begins(positions), positions, last),
    )
