"""freshet's model: a recurrent network, the neighbours of the last items, and popularity for users with few events.

It first fits the network. Then it chooses the neighbours' settings and, last, the weights of the sum
(models/network/blend.py), both on the validation part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from models.data.histories import Floats, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.metrics.popularity import popularity
from models.metrics.ranks import batches, gains, ranks
from models.network.blend import Blend, Neighbours, blend_scores, log_popularity, no_neighbours, recent_choices
from models.training.neighbours import NeighbourSettings, neighbours
from models.training.sequential.network_model import Epoch, NetworkModel, NetworkRanker
from models.training.sequential.sequential_knn import SequentialKnn
from models.training.tuning import watched

LAST: Final = 20
GRID: Final[tuple[tuple[str, tuple[float, ...]], ...]] = (
    ("neighbour", (0.0, 5.0, 15.0, 50.0, 150.0, 500.0)),
    ("fade", (0.4, 0.6, 0.8)),
    ("prior", (0.0, 0.1, 0.3, 0.6)),
    ("evidence", (1.0, 4.0)),
)
"""Tried one line after the other, each with the best values so far."""


@dataclass(frozen=True)
class BlendRanker:
    """What the worker serves: the sum of network, neighbours and popularity."""

    interest: NetworkRanker
    neighbours: Neighbours
    blend: Blend
    log_popularity: Floats

    @property
    def curve(self) -> list[Epoch]:
        """The network's training curve."""
        return self.interest.curve

    @property
    def chosen(self) -> Mapping[str, Any]:
        """What validation chose."""
        return asdict(self.blend)

    def item_vectors(self) -> Floats:
        """Return the vectors of the items, f32 [N + 1, D]."""
        with torch.inference_mode():
            found: Floats = self.interest.network.item_matrix().float().cpu().numpy()
        return found

    def scorer(self, rows: Histories) -> Scorer:
        """See models.interfaces.Ranker."""
        base = self.interest.scorer(rows)

        def score(positions: Rows) -> Tensor:
            begins = rows.begins(positions)
            recent = recent_choices(rows, begins, positions, self.blend.last)
            return blend_scores(
                base(positions), recent, positions - begins, self.blend, self.neighbours, self.log_popularity
            )

        return score


class Freshet(NetworkModel):
    """The model of this module. Without `collaborative` (neighbours and popularity) it is the recurrent part alone."""

    family = "hybrid"

    def __init__(
        self,
        preset: str = "auto",
        network: Mapping[str, Any] | None = None,
        fit: Mapping[str, Any] | None = None,
        name: str = "freshet",
        *,
        collaborative: bool = True,
    ) -> None:
        super().__init__(name, preset, network, fit)
        self._collaborative = collaborative

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the result."""
        grid = {name: list(values) for name, values in GRID}
        return {**super().settings, "collaborative": self._collaborative, "grid": grid, "last": LAST}

    def fit(  # type: ignore[override]
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> BlendRanker:
        """See models.interfaces.Model."""
        interest = super().fit(training, seed, report, checkpoint)
        counts = popularity(training.rows, len(training.items), training.use)
        plain = BlendRanker(interest, no_neighbours(len(training.items)), Blend(LAST), log_popularity(counts))
        if not self._collaborative:
            return plain
        found = SequentialKnn().fit(training, seed, report)
        shape = NeighbourSettings(**{name: found.chosen[name] for name in ("decay", "back", "shrink")})
        near = Neighbours(*neighbours(training, shape))
        return tune(training, replace(plain, neighbours=near), report)


def tune(training: TrainingData, ranker: BlendRanker, report: ProgressCallback = silent) -> BlendRanker:
    """Find the weights of the sum with the highest validation NDCG@10, line by line of GRID.

    Of equal ones it takes the first.
    """
    rows, positions = training.rows, watched(training)
    if not len(positions):
        return replace(ranker, blend=replace(ranker.blend, neighbour=GRID[0][1][2]))
    scorer = ranker.interest.scorer(rows)
    blend = ranker.blend
    for number, (name, values) in enumerate(GRID):
        if (name == "fade" and not blend.neighbour) or (name == "evidence" and not blend.prior):
            continue
        tries = [Blend(**(asdict(blend) | {name: value})) for value in values]
        total = np.zeros(len(tries))
        for batch in batches(positions):
            some = positions[batch]
            base, begins = scorer(some), rows.begins(some)
            recent = recent_choices(rows, begins, some, ranker.blend.last)
            for at, one in enumerate(tries):
                scores = blend_scores(base, recent, some - begins, one, ranker.neighbours, ranker.log_popularity)
                total[at] += gains(ranks(rows, some, lambda _, scores=scores: scores)).sum()  # type: ignore[misc]
        blend = tries[int(total.argmax())]
        report(
            "blend",
            number + 1,
            len(GRID),
            f"{name} {getattr(blend, name):g} NDCG@10 {total.max() / len(positions):.4f}",
        )
    return replace(ranker, blend=blend)
