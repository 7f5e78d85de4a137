"""Ranks of what users chose next, over the full catalogue, seen items left out; and the figures made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.devices import on
from models.network import InterestNetwork
from models.rows import Histories, Rows

ROUND = 128  # events of one user in one call of the recurrence
QUERIES = 512  # states scored at a time
USERS = 256  # whose histories are folded at a time

Ranks = NDArray[np.int64]
MISSED = np.iinfo(np.int64).max
"""Rank of an item that cannot be in the slate: unknown, seen before, or of a score that is no finite number."""


class Round(NamedTuple):
    """Some events of n users. places: i64 [n, T], a user's last place repeats beyond its end; out: f32 [n, T, W], the last
    block's output after each; h, c: f32 [n, H] before the first."""

    places: Rows
    out: Tensor
    h: Tensor
    c: Tensor


def input_rows(network: InterestNetwork, items: Tensor, rows: Histories, places: NDArray[np.int64]) -> Tensor:
    """What the recurrence reads of the events at `places` (any shape) -> [*places, width]. items: f32 [N + 1, D]."""
    flat = places.reshape(-1)
    comment = rows.comment[flat]
    inputs = network.inputs(
        items[torch.from_numpy(rows.item[flat])],
        on(torch.from_numpy(rows.behaviour[flat]), items),
        on(torch.from_numpy(rows.scene[flat]), items),
        on(torch.from_numpy(rows.numbers[flat]), items),
        on(torch.from_numpy(rows.vectors[comment]), items) if comment.any() else None,
        None if rows.action is None else on(torch.from_numpy(rows.action[flat]), items),
    )
    return inputs.reshape(*places.shape, -1)


@torch.no_grad()
def rounds(network: InterestNetwork, rows: Histories, items: Tensor, first: int, length: int) -> Iterator[Round]:
    """Fold all histories from zeros, users of similar length side by side: their first `first` events, then `length` a round."""
    lengths = np.diff(rows.starts)
    by_length = np.argsort(-lengths, kind="stable")
    for at_once in range(0, len(by_length), USERS):
        order = by_length[at_once : at_once + USERS]
        begins, ends = rows.starts[:-1][order], rows.starts[1:][order]
        h = items.new_zeros(len(order), network.size.hidden)
        c = items.new_zeros(len(order), network.size.hidden)
        at, count = 0, first
        while n := int((ends - begins > at).sum()):
            h, c = h[:n], c[:n]
            steps = min(count, int((ends - begins).max()) - at)
            places = np.minimum((begins[:n] + at)[:, None] + np.arange(steps), (ends[:n] - 1)[:, None])
            out, h_next, c_next = network.unroll(input_rows(network, items, rows, places), h, c)
            yield Round(places, out, h, c)
            h, c = h_next, c_next
            at, count = at + count, length


@torch.no_grad()
def states(network: InterestNetwork, rows: Histories, items: Tensor) -> Tensor:
    """The last block's output after every event, f32 [E, W], from zeros at each user's first event. Not for attention."""
    after = items.new_zeros(len(rows.item), network.size.width)
    for places, out, _, _ in rounds(network, rows, items, ROUND, ROUND):
        keep = np.ones(places.shape, np.bool_)
        keep[:, 1:] = places[:, 1:] != places[:, :-1]  # beyond a user's end the last place repeats
        after[torch.from_numpy(places[keep])] = out[torch.from_numpy(keep)]
    return after


@torch.no_grad()
def windows(network: InterestNetwork, rows: Histories, items: Tensor, places: Rows) -> Tensor:
    """The output right before each of the events at `places`, f32 [Q, W], by attention over the up to `window` events before
    it; zeros for a user's first."""
    count = np.minimum(places - rows.begins(places), network.size.window)
    order = np.argsort(count, kind="stable")  # windows of like length side by side
    before = items.new_zeros(len(places), network.size.width)
    for at in range(int(np.count_nonzero(count == 0)), len(order), ROUND):
        some = order[at : at + ROUND]
        own = count[some]
        steps = np.minimum(np.arange(int(own.max()))[None], own[:, None] - 1)  # shorter ones repeat their last event
        empty = items.new_zeros(len(some), network.size.hidden)
        inputs = input_rows(network, items, rows, (places[some] - own)[:, None] + steps)
        out = network.unroll(inputs, empty, empty)[0]
        before[torch.from_numpy(some)] = out[torch.arange(len(some)), torch.from_numpy(own - 1)]
    return before


def before(rows: Histories, after: Tensor, places: Rows) -> Tensor:
    """The output before each of the events at `places`: that after the user's previous event, zeros for the first."""
    previous = after[torch.from_numpy(np.maximum(places - 1, 0))]
    return previous * on(torch.from_numpy(~rows.first()[places]), after)[:, None]


def seen_before(rows: Histories, places: Rows) -> Iterator[Rows]:
    """For each event: the item rows that its user has had before it."""
    starts = rows.begins(places)
    for begin, place in zip(starts.tolist(), places.tolist(), strict=True):
        yield rows.item[begin:place]


def ranks(rows: Histories, places: Rows, score: Callable[[Rows], Tensor], *, filter_seen: bool = True) -> Ranks:
    """Rank from 0 of the item of each event at `places`, by `worst_ranks`. score: places [Q] -> f32 [Q, N + 1]."""
    out = np.full(len(places), MISSED)
    for at in range(0, len(places), QUERIES):
        some = places[at : at + QUERIES]
        scores = score(some).clone()
        if filter_seen:
            for line, seen in zip(scores, seen_before(rows, some), strict=True):
                line[torch.from_numpy(seen)] = -torch.inf
        out[at : at + len(some)] = worst_ranks(scores, torch.from_numpy(rows.item[some])).numpy()
    return out


def worst_ranks(scores: Tensor, wanted: Tensor) -> Tensor:
    """The one definition of rank, the worst case for the model: i64 [Q], from 0, how many other items score no less than the
    wanted one. scores: f32 [Q, N + 1], -inf for items that are not ranked; row 0 never counts. wanted: i64 [Q], item rows.

    Of equal scores the wanted item stands last, so that the order of the catalogue is worth nothing; a score that is NaN
    counts as no less than any. MISSED where the wanted item is row 0 or its own score is no finite number.
    """
    own = scores.gather(1, wanted[:, None])
    others = ~(scores < own)  # with NaN: whatever is not below
    others[:, 0] = False
    return torch.where((wanted > 0) & own[:, 0].isfinite(), others.sum(1) - 1, MISSED)


@torch.no_grad()
def interest_scorer(network: InterestNetwork, rows: Histories) -> Callable[[Rows], Tensor]:
    """The recurrent model: places [Q] -> f32 [Q, N + 1] on the processor, each against the state before it (prequential)."""
    items = network.item_matrix()
    after = None if network.size.kind == "attention" else states(network, rows, items)

    @torch.no_grad()
    def score(places: Rows) -> Tensor:
        out = windows(network, rows, items, places) if after is None else before(rows, after, places)
        return (network.project(out) @ items.T).cpu()

    return score


def popularity_ranks(counts: NDArray[np.float32], rows: Histories, places: Rows, *, filter_seen: bool = True) -> Ranks:
    """Ranks by one score per item, the same for everyone. counts: f32 [N + 1]."""
    scores = torch.from_numpy(counts)[None]
    return ranks(rows, places, lambda some: scores.expand(len(some), -1), filter_seen=filter_seen)


def hits(of: Ranks, k: int = 10) -> NDArray[np.float64]:
    """1 where the item stood among the first k."""
    return (of < k).astype(np.float64)


def gains(of: Ranks, k: int = 10) -> NDArray[np.float64]:
    """NDCG@k with one relevant item: 1 / log2(rank + 2) among the first k, else 0."""
    return np.where(of < k, 1.0 / np.log2(np.minimum(of, k) + 2.0), 0.0)
