"""Metrics of ranked lists, first per position, so that they can be averaged over seeds and bootstrapped over users.

Each position has one relevant item, the one that was taken, so recall@k = HR@k. Ranks count from 0; MISSED is not a hit.

    HR@k = [rank < k]    NDCG@k = [rank < k] / log2(rank + 2)    MRR@k = [rank < k] / (rank + 1)
    precision@k = HR@k / k    F1@k = 2 precision recall / (precision + recall) = 2 HR@k / (k + 1)

K. Järvelin and J. Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20 (4), 2002 (NDCG).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.data.histories import Doubles, Floats, Rows
from models.metrics.ranks import Ranks, gains, hits

Lists = NDArray[np.int32]

CUTS: Final = (5, 10, 20)
LIST: Final = 10  # items of a list that diversity, novelty, coverage and Gini look at
ACCURACY: Final = tuple(f"{name}@{k}" for k in CUTS for name in ("HR", "NDCG", "MRR", "precision", "F1"))
SPREAD: Final = tuple(f"{name}@{LIST}" for name in ("coverage", "diversity", "novelty", "Gini"))


def accuracy(rank: Ranks) -> dict[str, Doubles]:
    """Compute every metric of ACCURACY, f64 [Q], from ranks i64 [Q]."""
    out: dict[str, Doubles] = {}
    for k in CUTS:
        hit = hits(rank, k)
        out[f"HR@{k}"] = hit
        out[f"NDCG@{k}"] = gains(rank, k)
        out[f"MRR@{k}"] = hit / (np.minimum(rank, k) + 1.0)
        out[f"precision@{k}"] = hit / k
        out[f"F1@{k}"] = 2.0 * hit / (k + 1)
    return out


def spread(top: Lists, text: Floats, counts: Rows) -> dict[str, float]:
    """Compute every metric of SPREAD. A metric that the data cannot give is NaN.

    Args:
        top: Lists i32 [Q, >= LIST]; 0 means no item.
        text: f32 [N + 1, X].
        counts: i64 [N + 1], how often each item was chosen in the training part.
    """
    lists = top[:, :LIST]
    times = recommended_times(lists, len(counts) - 1)
    return {
        f"coverage@{LIST}": float((times > 0).mean()),
        f"diversity@{LIST}": diversity(lists, text),
        f"novelty@{LIST}": novelty(lists, counts),
        f"Gini@{LIST}": gini(times),
    }


def recommended_times(lists: Lists, items: int) -> Rows:
    """Return i64 [N]: how many of the lists contain each item."""
    return np.bincount(lists.ravel(), minlength=items + 1)[1:].astype(np.int64)


def diversity(lists: Lists, text: Floats) -> float:
    """Compute the intra-list diversity: 1 - the mean cosine of all pairs of a list's items, averaged over lists.

    C.-N. Ziegler et al., WWW 2005. Items without a text are skipped, and so are lists with fewer than two other items.
    The result is NaN if no list is left.
    """
    length = np.linalg.norm(text, axis=1, keepdims=True)
    has = (length[:, 0] > 0) & (np.arange(len(text)) > 0)
    unit = np.divide(text, length, out=np.zeros_like(text), where=has[:, None])
    total, number = 0.0, 0
    for at in range(0, len(lists), 4096):
        some = lists[at : at + 4096]
        count = has[some].sum(1)
        # The sum over ordered pairs is the squared length of the sum, minus the n ones of each item with itself.
        pairs = (unit[some].sum(1, dtype=np.float64) ** 2).sum(1) - count
        use = count > 1
        total += float((1.0 - pairs[use] / (count[use] * (count[use] - 1))).sum())
        number += int(use.sum())
    return total / number if number else float("nan")


def novelty(lists: Lists, counts: Rows) -> float:
    """Compute the mean of -log2 (n_i + 1) / (sum of n + N) over a list's items, averaged over lists.

    The 1 keeps unseen items finite.

    T. Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 107 (10), 2010.
    """
    share = (counts[1:] + 1.0) / (counts[1:].sum() + len(counts) - 1)
    bits = np.concatenate([[0.0], -np.log2(share)])
    filled = (lists > 0).sum(1)
    use = filled > 0
    return float((bits[lists[use]].sum(1) / filled[use]).mean()) if use.any() else float("nan")


def gini(times: Rows) -> float:
    """Compute the Gini coefficient: 0 if all items are recommended equally often, near 1 if always the same one."""
    ordered = np.sort(times).astype(np.float64)
    if not ordered.sum():
        return float("nan")
    position = np.arange(1, len(ordered) + 1)
    return float(((2 * position - len(ordered) - 1) * ordered).sum() / (len(ordered) * ordered.sum()))


def activity_groups(events: Rows) -> tuple[Rows, tuple[str, ...]]:
    """Group the positions into quarters by activity.

    `events` is i64 [Q], the number of training events of each position's user. Returns the group of each position, i64 [Q],
    and the groups' names. Groups that would be empty (because many users have the same number of events) have no name.
    """
    edges = np.unique(np.quantile(events, (0.25, 0.5, 0.75), method="lower")) if len(events) else np.zeros(0)
    group = np.searchsorted(edges, events, side="left")
    found = np.unique(group)
    names = []
    for one in found:
        inside = events[group == one]
        names.append(
            f"{inside.min()} events" if inside.min() == inside.max() else f"{inside.min()}-{inside.max()} events"
        )
    return np.searchsorted(found, group).astype(np.int64), tuple(names)


EARLIER: Final = {0: "0", 1: "1", 2: "2", 3: "3-5", 6: "6-10", 11: "11-20", 21: "21 and more"}
"""Groups of the number of times that an item was chosen before: the least of each, and its name."""


def earlier_groups(earlier: Rows) -> Rows:
    """Return i64 [Q], indices into the values of EARLIER. `earlier` is i64 [Q]."""
    return np.searchsorted(np.array(list(EARLIER)), earlier, side="right") - 1


POPULARITY: Final = ("head", "mid", "tail", "unseen")


def popularity_groups(counts: Rows) -> Rows:
    """Return i64 [N + 1], indices into POPULARITY.

    head: the most chosen items, which make up a fifth of all choices.
    tail: the least chosen items, which make up another fifth.
    unseen: items not chosen in the training part at all.
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    share = before / max(1, int(counts.sum()))
    group = np.empty(len(counts), np.int64)
    group[order] = np.where(share < 0.2, 0, np.where(share < 0.8, 1, 2))
    group[counts == 0] = 3
    return group
