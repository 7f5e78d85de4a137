"""A hybrid: the standardised scores of several models, summed with weights chosen on the validation part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from models.data.histories import Histories, Rows
from models.interfaces import Model, ProgressCallback, Ranker, Scorer, TrainingData, silent
from models.metrics.ranks import batches, gains, ranks
from models.training.tuning import Chosen, watched
from stream.core.errors import DataError

STEPS: Final = 10  # weights are tenths that add up to 1
CELLS: Final = 60_000_000  # most scores held while weights are chosen; on a large catalogue fewer positions are drawn


def standardised(scores: Tensor) -> Tensor:
    """Standardise f32 [Q, N + 1]: subtract each row's mean, divide by its standard deviation, both without column 0."""
    body = scores[:, 1:]
    spread = body.std(1, correction=0, keepdim=True)
    return (scores - body.mean(1, keepdim=True)) / torch.where(spread > 0, spread, 1.0)


@dataclass(frozen=True)
class HybridRanker:
    """Ranks by a weighted sum. `parts` are fitted, and `weights` has one weight for each."""

    parts: tuple[Ranker, ...]
    weights: tuple[float, ...]

    def scorer(self, rows: Histories) -> Scorer:
        """Score by the sum of weight * standardised score. Parts with weight 0 are not used."""
        scorers = [(part.scorer(rows), weight) for part, weight in zip(self.parts, self.weights, strict=True) if weight]

        def score(positions: Rows) -> Tensor:
            first, *others = (weight * standardised(scorer(positions)) for scorer, weight in scorers)
            return sum(others, start=first)

        return score


class Hybrid:
    """A hybrid of models that are not yet fitted (`parts`).

    It compares all weights in tenths that add up to 1, by validation NDCG@10.
    """

    name = "hybrid"
    family = "hybrid"

    def __init__(self, parts: Sequence[Model]) -> None:
        if not parts:
            raise DataError("hybrid: expected at least one part")
        self._parts = tuple(parts)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the parts, in their order."""
        return {"steps": STEPS, "parts": [{"name": part.name, **part.settings} for part in self._parts]}

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Fit the parts, then choose. A part that cannot run on the data (DataError) is left out and named in `chosen`."""
        fitted: dict[str, Ranker] = {}
        left_out: dict[str, str] = {}
        for part in self._parts:
            beside = checkpoint.with_name(f"{checkpoint.stem}-{part.name}{checkpoint.suffix}") if checkpoint else None
            try:
                fitted[part.name] = part.fit(training, seed, report, beside)
            except DataError as error:
                left_out[part.name] = str(error)
        if not fitted:
            raise DataError(f"hybrid: not run: no part could be fitted: {'; '.join(left_out.values())}")
        names, rankers = list(fitted), tuple(fitted.values())
        tried = [(dict(zip(names, weights, strict=True)), gain) for weights, gain in _compare(training, fitted, report)]
        best = max(range(len(tried)), key=lambda at: tried[at][1])
        weights = tuple(tried[best][0].values())
        chosen = {"weights": tried[best][0]} | ({"left out": left_out} if left_out else {})
        return Chosen(HybridRanker(rankers, weights), chosen, tuple(tried))


def _compare(
    training: TrainingData, parts: Mapping[str, Ranker], report: ProgressCallback
) -> list[tuple[tuple[float, ...], float]]:
    """Return every vector of weights with its validation NDCG@10; only equal weights if there are no validation positions.

    Raises DataError if a part's scores are not finite numbers: they would spoil the sum even at weight 0.
    """
    positions = watched(training, max(1, CELLS // (len(parts) * (len(training.items) + 1))))
    equal = (1.0 / len(parts),) * len(parts)
    if not len(positions):
        return [(equal, 0.0)]
    scorers = [part.scorer(training.rows) for part in parts.values()]
    steps = (positions[batch] for batch in batches(positions))
    held = torch.cat([torch.stack([standardised(scorer(some)) for scorer in scorers], 1) for some in steps])
    for name, finite in zip(parts, held.isfinite().all(2).all(0).tolist(), strict=True):
        if not finite:
            raise DataError(f"hybrid: not run: {name}: scores that are not finite numbers")
    out = []
    candidates = [tuple(step / STEPS for step in steps) for steps in compositions(STEPS, len(parts))]
    for number, weights in enumerate(candidates):
        by = torch.tensor(weights)

        def score(some: Rows, by: Tensor = by) -> Tensor:
            return torch.einsum("qpn,p->qn", held[np.searchsorted(positions, some)], by)

        out.append((weights, float(gains(ranks(training.rows, positions, score)).mean())))
        report("weights", number + 1, len(candidates), f"NDCG@10 {max(gain for _, gain in out):.4f}")
    return out


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Yield all ways to write `total` as a sum of `parts` integers from 0, in order."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in compositions(total - first, parts - 1):
            yield first, *rest
