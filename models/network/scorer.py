"""Runs the network over whole histories: its output before and after every event, and the scores of all items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.data.histories import Histories, Rows
from models.network.network import InterestNetwork

ROUND = 128  # events of one user in one call of the recurrence
USERS = 256  # users whose histories are folded at a time


class Round(NamedTuple):
    """Some events of n users.

    Attributes:
        positions: i64 [n, T]. Beyond a user's end the last position repeats.
        out: f32 [n, T, W], the last block's output after each event.
        h: f32 [n, H], before the first event.
        c: f32 [n, H], before the first event.
    """

    positions: Rows
    out: Tensor
    h: Tensor
    c: Tensor


def input_rows(network: InterestNetwork, items: Tensor, rows: Histories, positions: Rows) -> Tensor:
    """Return what the recurrence reads of the events at `positions` (any shape), [*positions, width].

    `items` is f32 [N + 1, D].
    """
    flat = positions.reshape(-1)
    comment = rows.comment[flat]
    inputs = network.inputs(
        items[torch.from_numpy(rows.item[flat])],
        on(torch.from_numpy(rows.behaviour[flat]), items),
        on(torch.from_numpy(rows.scene[flat]), items),
        on(torch.from_numpy(rows.numbers[flat]), items),
        on(torch.from_numpy(rows.vectors[comment]), items) if comment.any() else None,
        None if rows.action is None else on(torch.from_numpy(rows.action[flat]), items),
    )
    return inputs.reshape(*positions.shape, -1)


@torch.no_grad()
def rounds(network: InterestNetwork, rows: Histories, items: Tensor, first: int, length: int) -> Iterator[Round]:
    """Fold all histories from zeros, users of similar length together.

    The first round holds each user's first `first` events. Every later round holds `length` events.
    """
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
            positions = np.minimum((begins[:n] + at)[:, None] + np.arange(steps), (ends[:n] - 1)[:, None])
            out, h_next, c_next = network.unroll(input_rows(network, items, rows, positions), h, c)
            yield Round(positions, out, h, c)
            h, c = h_next, c_next
            at, count = at + count, length


@torch.no_grad()
def states(network: InterestNetwork, rows: Histories, items: Tensor) -> Tensor:
    """Return the last block's output after every event, f32 [E, W]. Each user starts from zeros. Not for attention."""
    after = items.new_zeros(len(rows.item), network.size.width)
    for positions, out, _, _ in rounds(network, rows, items, ROUND, ROUND):
        keep = np.ones(positions.shape, np.bool_)
        keep[:, 1:] = positions[:, 1:] != positions[:, :-1]  # beyond a user's end the last position repeats
        after[torch.from_numpy(positions[keep])] = out[torch.from_numpy(keep)]
    return after


@torch.no_grad()
def windows(network: InterestNetwork, rows: Histories, items: Tensor, positions: Rows) -> Tensor:
    """Return attention's output right before each of the events at `positions`, f32 [Q, W].

    Attention sees up to `window` events before the position. The output is zeros for a user's first event.
    """
    count = np.minimum(positions - rows.begins(positions), network.size.window)
    order = np.argsort(count, kind="stable")  # windows of similar length together
    before = items.new_zeros(len(positions), network.size.width)
    for at in range(int(np.count_nonzero(count == 0)), len(order), ROUND):
        some = order[at : at + ROUND]
        own = count[some]
        steps = np.minimum(np.arange(int(own.max()))[None], own[:, None] - 1)  # shorter ones repeat their last event
        empty = items.new_zeros(len(some), network.size.hidden)
        inputs = input_rows(network, items, rows, (positions[some] - own)[:, None] + steps)
        out = network.unroll(inputs, empty, empty)[0]
        before[torch.from_numpy(some)] = out[torch.arange(len(some)), torch.from_numpy(own - 1)]
    return before


def before(rows: Histories, after: Tensor, positions: Rows) -> Tensor:
    """Return the output before each of the events at `positions`: the one after the user's previous event, or zeros."""
    previous = after[torch.from_numpy(np.maximum(positions - 1, 0))]
    return previous * on(torch.from_numpy(~rows.first()[positions]), after)[:, None]


@torch.no_grad()
def interest_queries(network: InterestNetwork, rows: Histories, items: Tensor) -> Callable[[Rows], Tensor]:
    """Return a function: positions [Q] -> queries f32 [Q, D] right before these events. `items` is f32 [N + 1, D]."""
    after = None if network.size.kind == "attention" else states(network, rows, items)

    @torch.no_grad()
    def query(positions: Rows) -> Tensor:
        return network.project(
            windows(network, rows, items, positions) if after is None else before(rows, after, positions)
        )

    return query


@torch.no_grad()
def interest_scorer(network: InterestNetwork, rows: Histories) -> Callable[[Rows], Tensor]:
    """Return the recurrent model's scorer: positions [Q] -> f32 [Q, N + 1] on the CPU.

    Each event is scored against the state before it (prequential).
    """
    items = network.item_matrix()
    query = interest_queries(network, rows, items)
    outputs = network.output_matrix() if network.size.untied else items

    @torch.no_grad()
    def score(positions: Rows) -> Tensor:
        return (query(positions) @ outputs.T).cpu()

    return score


def on(tensor: Tensor, like: Tensor) -> Tensor:
    """Move `tensor` to the device of `like`."""
    return tensor.to(like.device, non_blocking=True)
