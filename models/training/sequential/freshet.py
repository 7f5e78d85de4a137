"""freshet's model: a recurrent network, neighbours and texts of the last items, and popularity for users with few events.

It first fits the network. Then it chooses the neighbours' settings and, last, the weights of the sum
(models/network/blend.py), both on the validation part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.data.histories import Doubles, Floats, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.metrics.popularity import popularity
from models.metrics.ranks import batches, gains, ranks
from models.network.blend import Blend, Neighbours, Texts, blend_scores, log_popularity, no_neighbours, recent_choices
from models.network.projection import Projection, fit_projection, no_projection
from models.training import unseen
from models.training.live_popularity import live_popularity
from models.training.neighbours import NeighbourSettings, neighbours
from models.training.regimes import FROZEN, every, named
from models.training.sequential.network_model import Epoch, NetworkModel, NetworkRanker
from models.training.sequential.sequential_knn import SequentialKnn, shape_of
from models.training.start import Start
from models.training.tables import LiveTables, TableSettings, live_tables
from models.training.tuning import watched

LAST: Final = 20
TEXT: Final = (0.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
TEXT_FADE: Final = (0.4, 0.6, 0.8, 0.95)
FAINT: Final = 0.1
"""Weight of known items' texts if validation gives them none, but those of new items some. It changes next to nothing, and
a choice then has a text that new items can be compared to (export/score_head.py)."""
COST: Final = 0.01
"""The share of the validation NDCG@10 over the full catalogue that the larger weight of new items may cost."""
NEAR: Final = 0.02
"""Weights of new items whose figures differ by a smaller share than this count as equal."""
GRID: Final[tuple[tuple[str, tuple[float, ...]], ...]] = (
    ("neighbour", (0.0, 5.0, 15.0, 50.0, 150.0, 500.0)),
    ("fade", (0.4, 0.6, 0.8)),
    ("text", TEXT),
    ("prior", (0.0, 0.1, 0.3, 0.6)),
    ("evidence", (1.0, 4.0)),
)
"""Tried one line after the other, each with the best values so far."""
OF: Final = {"fade": "neighbour", "evidence": "prior"}
"""Line of GRID -> the weight without which its value does not matter."""


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
    """What the worker serves: the sum of network, neighbours, texts and popularity.

    Attributes:
        interest: The network.
        neighbours: The neighbours, frozen.
        blend: The weights of the sum.
        log_popularity: f32 [N + 1], frozen.
        projection: The projection of the texts.
        texts: The projected texts.
        shape: How the neighbours are counted.
        live: Tables that follow the stream, in place of the frozen ones.
    """

    interest: NetworkRanker
    neighbours: Neighbours
    blend: Blend
    log_popularity: Floats
    projection: Projection
    texts: Texts
    shape: NeighbourSettings = field(default_factory=NeighbourSettings)
    live: LiveTables | None = None

    @property
    def half_life(self) -> int:
        """Half-life of the neighbours in days; 0 if time does not matter."""
        return self.shape.half_life

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
            return blend_scores(base(positions), recent, positions - begins, self.blend, near, popular, self.texts)

        return score

    def tables(self, rows: Histories) -> Tables:
        """Return what gives neighbours and log-popularity before events of `rows`."""
        if self.live is None:
            return Tables(lambda positions, recent: self.neighbours, lambda positions: self.log_popularity)
        view = self.live.of(rows)
        return Tables(view.near, view.log_popularity)


class Freshet(NetworkModel):
    """The model of this module.

    Without `collaborative` it is the recurrent part alone; without `text_term` the sum has no texts. `tables` and `reaches` are
    those of SequentialKnn.
    """

    family = "hybrid"

    def __init__(
        self,
        preset: str = "auto",
        network: Mapping[str, Any] | None = None,
        fit: Mapping[str, Any] | None = None,
        name: str = "freshet",
        *,
        collaborative: bool = True,
        text_term: bool = True,
        tables: str = FROZEN,
        reaches: bool = False,
        start: Start | None = None,
    ) -> None:
        super().__init__(named(name, tables), preset, network, fit, start)
        self._collaborative = collaborative
        self._text_term = text_term
        self._tables = tables
        self._reaches = reaches

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
        grid = {name: list(values) for name, values in (*GRID, ("text_fade", TEXT_FADE))}
        parts = {"collaborative": self._collaborative, "text_term": self._text_term}
        return {**super().settings, **parts, "grid": grid, "last": LAST} | {
            "neighbours": dict(SequentialKnn(self._tables, self._reaches).settings)
        }

    def fit(  # type: ignore[override]
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> BlendRanker:
        """See models.interfaces.Model."""
        interest = super().fit(training, seed, report, checkpoint)
        counts = popularity(training.rows, len(training.items), training.use)
        projection = no_projection(training.text.shape[1])
        if self._collaborative and self._text_term:
            projection = fit_projection(training.text, training.known, interest.network.size.item)
        plain = BlendRanker(
            interest,
            no_neighbours(len(training.items)),
            Blend(LAST),
            log_popularity(counts),
            projection,
            Texts(projection.apply(training.text), ~training.known),
        )
        if not self._collaborative:
            return plain
        found = SequentialKnn(self._tables, self._reaches).fit(training, seed, report)
        shape = shape_of(found.chosen)
        whole = replace(plain, neighbours=Neighbours(*neighbours(training, shape)), shape=shape)
        if every(self._tables):
            prior = live_popularity(training, self._tables, report)
            settings = TableSettings(self._tables, shape, prior.chosen["half_life"])
            whole = replace(whole, live=live_tables(training, settings))
        return tune(training, whole, report)


def tune(training: TrainingData, ranker: BlendRanker, report: ProgressCallback = silent) -> BlendRanker:
    """Find the weights of the sum with the highest validation NDCG@10, line by line of GRID.

    Of equal ones it takes the first. All items have the same weight of texts there: a catalogue may list new items only
    because somebody chooses them later, and a weight of their own would learn that. After that, new items get the weight
    that ranks them best among each other (`_for_new`) if it is larger and costs at most COST. Known items then get what is
    best beside it, never less than before.
    """
    if not len(watched(training)):
        return replace(ranker, blend=replace(ranker.blend, neighbour=GRID[0][1][2]))
    judge = Judge(training, ranker)
    blend = ranker.blend
    of_new = 0.0
    if ranker.projection.width:
        of_new, fade = _for_new(training, ranker, report)
        blend = replace(blend, text_fade=fade)
    for number, (name, values) in enumerate(GRID):
        if (name in OF and not getattr(blend, OF[name])) or (name == "text" and not ranker.projection.width):
            continue
        tries = [Blend(**(asdict(blend) | {name: value})) for value in values]
        if name == "text":
            tries = [replace(one, text_new=one.text) for one in tries]
        gain = judge.gains(tries)
        blend = tries[int(gain.argmax())]
        report("blend", number + 1, len(GRID), f"{name} {getattr(blend, name):g} NDCG@10 {gain.max():.4f}")
    if of_new > blend.text:  # more for new items; known ones may have more then, too, and never less
        texts = [text for text in (*TEXT[1:], FAINT) if max(blend.text, FAINT) <= text <= of_new]
        apart = [replace(blend, text=text, text_new=of_new) for text in texts]
        alike, *others = judge.gains([blend, *apart]).tolist()
        if max(others) >= (1 - COST) * alike:
            blend = apart[int(np.argmax(others))]
        report(
            "blend",
            len(GRID),
            len(GRID),
            f"text {blend.text:g}, for new items {blend.text_new:g} NDCG@10 {max(gain):.4f}",
        )
    return replace(ranker, blend=blend)


def _for_new(training: TrainingData, ranker: BlendRanker, report: ProgressCallback) -> tuple[float, float]:
    """Return weight and fade of texts that rank validation choices best as if their items were new (models.training.unseen).

    Of the weights whose NDCG@10 is within NEAR of the best one's, it takes the smallest.
    """
    pools = unseen.pools(training, ranker.interest.network, ranker.blend.last)
    if not pools:
        return 0.0, ranker.blend.text_fade
    found = np.array(
        [
            [unseen.gain(pools, replace(ranker.blend, text_new=text, text_fade=fade), ranker.texts) for text in TEXT]
            for fade in TEXT_FADE
        ]
    )
    line = int(found.max(1).argmax())
    weight, fade = TEXT[int((found[line] >= (1 - NEAR) * found.max()).argmax())], TEXT_FADE[line]
    report("blend", 0, len(GRID), f"new items: text {weight:g} fade {fade:g} NDCG@10 {found.max():.4f}")
    return weight, fade


class Judge:
    """Ranks the validation choices by sums that differ in their weights."""

    def __init__(self, training: TrainingData, ranker: BlendRanker) -> None:
        self._rows = training.rows
        self._positions = watched(training)
        self._ranker = ranker
        self._scorer = ranker.interest.scorer(training.rows)
        self._tables = ranker.tables(training.rows)
        self._looked_up: dict[int, Neighbours] = {}  # it takes long if tables follow the stream

    def gains(self, tries: Sequence[Blend]) -> Doubles:
        """Return the NDCG@10 of each blend, f64 [tries]."""
        rows, ranker = self._rows, self._ranker
        total = np.zeros(len(tries))
        for batch in batches(self._positions):
            some = self._positions[batch]
            base, begins = self._scorer(some), rows.begins(some)
            recent = recent_choices(rows, begins, some, ranker.blend.last)
            if batch.start not in self._looked_up:
                self._looked_up[batch.start] = self._tables.near(some, recent)
            near, popular = self._looked_up[batch.start], self._tables.popular(some)
            for at, one in enumerate(tries):
                scores = blend_scores(base, recent, some - begins, one, near, popular, ranker.texts)
                total[at] += gains(ranks(rows, some, lambda _, scores=scores: scores)).sum()  # type: ignore[misc]
        return total / len(self._positions)
