"""Re-ranks lists of validation or test positions as serving does, and chooses the strength that costs no more than allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch

from models.data.histories import Doubles, Flags, Floats, Histories, Rows
from models.interfaces import ProgressCallback, Ranker, Scorer, TrainingData, silent
from models.metrics.bootstrap import drawn_means
from models.metrics.ranks import gains, placed, scored
from models.metrics.top_k import first
from models.metrics.variety import variety
from models.network.blend import recent_choices
from models.training.tuning import watched
from stream.core.diversity import CANDIDATES, Items, Labels, Method, numbered_categories, reranked
from stream.core.messages import Item
from stream.core.state import MAX_RECENT

AT_ONCE: Final = 256
LIST: Final = 10
STRENGTHS: Final = tuple(number / 20 for number in range(21))
BUDGET: Final = 0.02
DRAWS: Final = 500


@dataclass(frozen=True)
class Candidates:
    """The best items of Q positions, before any re-ranking.

    Attributes:
        rows: i64 [Q, n], item rows, best first; 0 for none.
        scores: f32 [Q, n], -inf for none.
        own: i64 [R], rows of the items that the users of the positions chose last, and
        line: i64 [R], the position (index from 0) before which it was.
        vectors: f32 [N + 1, D], item vectors.
        categories: i32 [N + 1, M], as in stream.core.diversity.Items.
    """

    rows: Rows
    scores: Floats
    own: Rows
    line: Rows
    vectors: Floats
    categories: Labels

    def lists(self, strength: float, k: int, method: Method = "dpp") -> Rows:
        """Return i64 [Q, k], the re-ranked rows; 0 for none."""
        k = min(k, self.rows.shape[1])
        out = np.empty((len(self.rows), k), np.int64)
        ends = np.searchsorted(self.line, np.arange(len(self.rows) + 1))
        for at in range(0, len(self.rows), AT_ONCE):
            end = min(at + AT_ONCE, len(self.rows))
            rows, own = self.rows[at:end], slice(ends[at], ends[end])
            items = Items(
                self.vectors[rows], self.categories[rows], self.categories[self.own[own]], self.line[own] - at
            )
            order = reranked(self.scores[at:end], items, strength, k, method)
            out[at:end] = np.take_along_axis(rows, order, 1)
        return out

    def variety(self, lists: Rows) -> dict[str, Doubles]:
        """Return the metrics of models.metrics.variety.VARIETY of some lists, f64 [Q] each."""
        return variety(lists, self.vectors, self.categories, self.own, self.line)


@torch.no_grad()
def candidates(
    rows: Histories,
    positions: Rows,
    score: Scorer,
    vectors: Floats,
    items: Sequence[Item],
    *,
    most: int = CANDIDATES,
    filter_seen: bool = True,
    only: Flags | None = None,
) -> Candidates:
    """Score the positions and keep the best `most` items of each.

    `only` bool [Q, N + 1] or [N + 1]: the items that may be ranked; None: all.
    """
    most = min(most, len(items))
    best, values = np.zeros((len(positions), most), np.int64), np.full((len(positions), most), -np.inf, np.float32)
    for batch, scores in scored(rows, positions, score, filter_seen=filter_seen):
        scores[:, 0] = -torch.inf
        if only is not None:
            scores.masked_fill_(~torch.from_numpy(only if only.ndim == 1 else only[batch]), -torch.inf)
        row = first(scores, most)
        value = scores.gather(1, row)
        best[batch], values[batch] = torch.where(value.isneginf(), 0, row).numpy(), value.numpy()
    begins = np.maximum(rows.begins(positions), positions - MAX_RECENT)
    recent = recent_choices(rows, begins, positions, MAX_RECENT)
    categories = numbered_categories([(), *(item.categories or () for item in items)])
    return Candidates(best, values, recent[:, 1], recent[:, 0], vectors, categories)


@dataclass(frozen=True)
class Chosen:
    """The strength that validation chose.

    Attributes:
        strength: 0 to 1.
        budget: The share of NDCG@10 that it was allowed to cost.
        metrics: What it changed on the validation part: metric -> relative change.
    """

    strength: float = 0.0
    budget: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


def choose(
    training: TrainingData, ranker: Ranker, vectors: Floats, budget: float, report: ProgressCallback = silent
) -> Chosen:
    """Return the largest of STRENGTHS that, like all smaller ones, costs at most `budget` of the validation NDCG@10.

    The cost that counts is the measured one plus one standard error over users, since the validation part is small (L.
    Breiman et al., Classification and Regression Trees, 1984). `vectors` are the item vectors, f32 [N + 1, D]. Without
    validation choices the strength is 0.
    """
    positions = watched(training)
    if not len(positions) or budget <= 0:
        return Chosen(budget=budget)
    rows = training.rows
    found = candidates(rows, positions, ranker.scorer(rows), vectors, training.items)
    wanted = rows.item[positions]
    plain = found.lists(0.0, LIST)
    before = gains(placed(plain, wanted))
    owners = rows.owner()[positions]
    strength, lists = 0.0, plain
    for number, one in enumerate(STRENGTHS[1:], start=1):
        tried = found.lists(one, LIST)
        after = gains(placed(tried, wanted))
        report("diversity", number, len(STRENGTHS) - 1, f"strength {one:g} NDCG@10 {after.mean():.4f}")
        if not before.any() or _cost(before, after, owners) > budget:
            break
        strength, lists = one, tried
    first, last = (_means(found, some, wanted) for some in (plain, lists))
    return Chosen(
        strength, budget, {name: round(last[name] / first[name] - 1.0, 4) for name in first if first[name] > 0}
    )


def _cost(before: Doubles, after: Doubles, owners: Rows) -> float:
    """Return the relative loss of `after` f64 [Q] against `before`, plus its standard error."""
    drawn = drawn_means(np.stack((before, after), 1), owners, DRAWS)
    loss = 1.0 - drawn[:, 1] / np.maximum(drawn[:, 0], 1e-12)
    return float(1.0 - after.mean() / before.mean() + loss.std())


def _means(found: Candidates, lists: Rows, wanted: Rows) -> dict[str, float]:
    values: dict[str, Doubles] = {"NDCG@10": gains(placed(lists, wanted)), **found.variety(lists)}
    return {name: float(np.nanmean(of)) for name, of in values.items() if not np.isnan(of).all()}
