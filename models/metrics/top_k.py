"""What a fitted model recommends at each position, and the rank of what the user took there, in batches of positions."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data.histories import Flags, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, silent
from models.metrics.ranks import MISSED, Ranks, scored, worst_ranks
from stream.core.errors import DataError

TOP: Final = 20


class Lists(NamedTuple):
    """The ranks and lists of a model.

    Attributes:
        rank: i64 [Q], from 0, of the item that was taken. MISSED if it could not be recommended.
        top: i32 [Q, TOP], item rows, best first. 0 if there are no more.
    """

    rank: Ranks
    top: NDArray[np.int32]


@torch.no_grad()
def recommended(
    rows: Histories,
    positions: Rows,
    score: Scorer,
    *,
    filter_seen: bool = True,
    candidates: Flags | None = None,
    groups: Rows | None = None,
    name: str = "model",
    report: ProgressCallback = silent,
) -> Lists:
    """Rank the items at `positions` of `rows`. For `candidates` and `groups` see models.interfaces.EvalTask.

    Ranks are by `models.metrics.ranks.worst_ranks`. In the lists, of equal scores the item of the lower row comes
    first, as in serving. Raises DataError if a score is NaN or infinite: the model has diverged. -inf is allowed and
    means that the item is not recommended.
    """
    rank, top = np.full(len(positions), MISSED), np.zeros((len(positions), TOP), np.int32)

    def finite(some: Rows) -> Tensor:
        scores = score(some)
        if scores.isnan().any() or scores.isposinf().any():
            raise DataError(f"{name}: scores that are not finite numbers")
        return scores

    for batch, scores in scored(rows, positions, finite, filter_seen=filter_seen):
        scores[:, 0] = -torch.inf
        if candidates is not None:
            lines = candidates if candidates.ndim == 1 else candidates[_groups(groups)[batch]]
            scores.masked_fill_(~torch.from_numpy(lines), -torch.inf)
        rank[batch] = worst_ranks(scores, torch.from_numpy(rows.item[positions[batch]])).numpy()
        row = first(scores, min(TOP, scores.shape[1]))
        top[batch, : row.shape[1]] = torch.where(scores.gather(1, row).isneginf(), 0, row).numpy()
        report("ranking", batch.stop, len(positions), name)
    return Lists(rank, top)


def first(scores: Tensor, count: int) -> Tensor:
    """Return i64 [Q, count], the rows of the highest scores f32 [Q, N + 1].

    Of equal scores the lower row comes first (topk takes any).
    """
    least = scores.topk(count, 1).values[:, -1:]
    tied = scores == least
    above = scores > least
    chosen = above | (tied & (tied.cumsum(1, dtype=torch.int32) <= count - above.sum(1, keepdim=True)))
    row = chosen.nonzero()[:, 1].reshape(len(scores), count)  # in row order
    order = scores.gather(1, row).sort(dim=1, descending=True, stable=True).indices
    return row.gather(1, order)


def _groups(groups: Rows | None) -> NDArray[Any]:
    if groups is None:
        raise ValueError("candidates by group need `groups`, the group of each position: this is a bug")
    return groups
