"""freshet's model: a recurrent network, the neighbours of the last items, and popularity for users with few events.

It first fits the network. Then it chooses the neighbours' settings and, last, the weights of the sum
(models/network/blend.py), both on the validation part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.data.histories import Floats, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.metrics.popularity import popularity
from models.metrics.ranks import batches, gains, ranks
from models.network.blend import Blend, Neighbours, blend_scores, log_popularity, no_neighbours, recent_choices
from models.training.live_popularity import live_popularity
from models.training.neighbours import neighbours
from models.training.regimes import FROZEN, every, named
from models.training.sequential.network_model import Epoch, NetworkModel, NetworkRanker
from models.training.sequential.sequential_knn import SequentialKnn, shape_of
from models.training.tables import LiveTables, TableSettings, live_tables
from models.training.tuning import watched

LAST: Final = 20
GRID: Final[tuple[tuple[str, tuple[float, ...]], ...]] = (
    ("neighbour", (0.0, 5.0, 15.0, 50.0, 150.0, 500.0)),
    ("fade", (0.4, 0.6, 0.8)),
    ("prior", (0.0, 0.1, 0.3, 0.6)),
    ("evidence", (1.0, 4.0)),
)
"""Tried one line after the other, each with the best values so far."""


class Tables(NamedTuple):
    """What gives the tables before the events of one set of rows.

    Attributes:
        near: (positions i64 [Q], their recent choices as models.network.blend.recent_choices gives them) -> neighbours.
        popular: Positions -> log-popularity, f32 [N + 1] or [Q, N + 1].
    """

    near: Callable[[Rows, Rows], Neighbours]
    popular: Callable[[Rows], Floats]


@dataclass(frozen=True)
class BlendRanker:
    """What the worker serves: the sum of network, neighbours and popularity.

    Attributes:
        interest: The network.
        neighbours: The neighbours, frozen.
        blend: The weights of the sum.
        log_popularity: f32 [N + 1], frozen.
        half_life: That of the neighbours in days; 0 if time does not matter.
        live: Tables that follow the stream, in place of the frozen ones.
    """

    interest: NetworkRanker
    neighbours: Neighbours
    blend: Blend
    log_popularity: Floats
    half_life: int = 0
    live: LiveTables | None = None

    @property
    def curve(self) -> list[Epoch]:
        """The network's training curve."""
        return self.interest.curve

    @property
    def chosen(self) -> Mapping[str, Any]:
        """What validation chose."""
        found = asdict(self.blend)
        if self.half_life:
            found["half_life"] = self.half_life
        if self.live is not None and self.live.settings.prior:
            found["prior_half_life"] = self.live.settings.prior
        return found

    def item_vectors(self) -> Floats:
        """Return the vectors of the items, f32 [N + 1, D]."""
        with torch.inference_mode():
            found: Floats = self.interest.network.item_matrix().float().cpu().numpy()
        return found

    def scorer(self, rows: Histories) -> Scorer:
        """See models.interfaces.Ranker."""
        base, tables = self.interest.scorer(rows), self.tables(rows)

        def score(positions: Rows) -> Tensor:
            begins = rows.begins(positions)
            recent = recent_choices(rows, begins, positions, self.blend.last)
            near, popular = tables.near(positions, recent), tables.popular(positions)
            return blend_scores(base(positions), recent, positions - begins, self.blend, near, popular)

        return score

    def tables(self, rows: Histories) -> Tables:
        """Return what gives neighbours and log-popularity before events of `rows`."""
        if self.live is None:
            return Tables(lambda positions, recent: self.neighbours, lambda positions: self.log_popularity)
        view = self.live.of(rows)
        return Tables(view.near, view.log_popularity)


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
        tables: str = FROZEN,
    ) -> None:
        super().__init__(named(name, tables), preset, network, fit)
        self._collaborative = collaborative
        self._tables = tables

    @property
    def tables(self) -> str:
        """When neighbours and popularity are counted: see models.training.regimes.every."""
        return self._tables

    @property
    def network_settings(self) -> Mapping[str, Any]:
        """What decides the network. Models that differ only in the rest of the sum share one fit of it."""
        return super().settings

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the result."""
        grid = {name: list(values) for name, values in GRID}
        return {**super().settings, "collaborative": self._collaborative, "grid": grid, "last": LAST} | {
            "neighbours": dict(SequentialKnn(self._tables).settings)
        }

    def fit(  # type: ignore[override]
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> BlendRanker:
        """See models.interfaces.Model."""
        interest = super().fit(training, seed, report, checkpoint)
        counts = popularity(training.rows, len(training.items), training.use)
        plain = BlendRanker(interest, no_neighbours(len(training.items)), Blend(LAST), log_popularity(counts))
        if not self._collaborative:
            return plain
        found = SequentialKnn(self._tables).fit(training, seed, report)
        shape = shape_of(found.chosen)
        whole = replace(plain, neighbours=Neighbours(*neighbours(training, shape)), half_life=shape.half_life)
        if every(self._tables):
            prior = live_popularity(training, self._tables, report)
            settings = TableSettings(self._tables, shape, prior.chosen["half_life"])
            whole = replace(whole, live=live_tables(training, settings))
        return tune(training, whole, report)


def tune(training: TrainingData, ranker: BlendRanker, report: ProgressCallback = silent) -> BlendRanker:
    """Find the weights of the sum with the highest validation NDCG@10, line by line of GRID.

    Of equal ones it takes the first.
    """
    rows, positions = training.rows, watched(training)
    if not len(positions):
        return replace(ranker, blend=replace(ranker.blend, neighbour=GRID[0][1][2]))
    scorer, tables = ranker.interest.scorer(rows), ranker.tables(rows)
    looked_up: dict[int, Neighbours] = {}  # it takes long if tables follow the stream
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
            if batch.start not in looked_up:
                looked_up[batch.start] = tables.near(some, recent)
            near, popular = looked_up[batch.start], tables.popular(some)
            for at, one in enumerate(tries):
                scores = blend_scores(base, recent, some - begins, one, near, popular)
                total[at] += gains(ranks(rows, some, lambda _, scores=scores: scores)).sum()  # type: ignore[misc]
        blend = tries[int(total.argmax())]
        report(
            "blend",
            number + 1,
            len(GRID),
            f"{name} {getattr(blend, name):g} NDCG@10 {total.max() / len(positions):.4f}",
        )
    return replace(ranker, blend=blend)
