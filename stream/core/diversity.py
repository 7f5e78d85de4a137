"""Re-ranks the best items of a slate so that it shows more of what its user likes. Pure numpy, all users of a batch at once.

Items are taken one after the other. Each time the item with the largest sum is taken:

    (1 - strength) * relevance + strength * (novelty + CALIBRATION * calibration)

relevance    the score in units of the standard deviation of the user's candidates, 0 for the best one
novelty      dpp: the log of what the items taken so far leave of the item, by which the determinant of their
             similarities grows (greedy MAP inference of a determinantal point process, L. Chen, G. Zhang and E. Zhou,
             Fast greedy MAP inference for determinantal point process to improve recommendation diversity, NeurIPS 2018);
             mmr: minus the largest similarity to an item taken so far (J. Carbonell and J. Goldstein, SIGIR 1998)
calibration  by how much the item brings the slate's categories closer to those of the user's own choices
             (Kullback-Leibler divergence, H. Steck, Calibrated recommendations, RecSys 2018)

Two items' similarity is the mean of the cosine of their vectors and the Jaccard index of their categories; the cosine
alone if no candidate has categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]
Labels = NDArray[np.integer]
Words = NDArray[np.uint64]

Method = Literal["dpp", "mmr"]

CANDIDATES: Final = 100
"""The best items that are re-ranked."""
CALIBRATION: Final = 0.5
SMOOTHING: Final = 0.01
"""Share of the user's own mix in that of the slate (Steck's alpha), so that the divergence is finite."""
LEAST: Final = 1e-4
"""What is left of an item is at least this. Below, rounding decides, so near-duplicates differ by their relevance only."""
AT_ONCE: Final = 64
"""Users whose candidates are re-ranked at a time, so that their vectors stay in the processor's cache."""
WORD: Final = 64
MOST_LABELS: Final = 1024
"""Categories up to which their own numbers are used."""


class Diversity(NamedTuple):
    """How slates are re-ranked.

    Attributes:
        strength: 0 to 1; 0 leaves the order of the scores.
        candidates: How many of the best items are re-ranked; at least as many as a slate has.
    """

    strength: float = 0.0
    candidates: int = CANDIDATES


class Items(NamedTuple):
    """What is known of the candidates of B users.

    Attributes:
        vectors: float32 [B, n, D].
        categories: int32 [B, n, M], numbers of the item's categories, each once; 0 for none.
        history: int32 [R, M], the categories of the users' own last choices.
        users: int64 [R], whose choice it was: the index of the user.
    """

    vectors: Floats
    categories: Labels
    history: Labels
    users: Rows


def numbered_categories(categories: Sequence[Sequence[str]]) -> NDArray[np.int32]:
    """Return int32 [n, M]: the categories of n items as numbers from 1, each once; 0 for none."""
    numbers: dict[str, int] = {}
    each = [[numbers.setdefault(one, len(numbers) + 1) for one in dict.fromkeys(of_item)] for of_item in categories]
    out = np.zeros((len(each), max(map(len, each), default=0)), np.int32)
    for row, of_item in zip(out, each, strict=True):
        row[: len(of_item)] = of_item
    return out


class _Numbered(NamedTuple):
    """Categories with numbers of their own for each user.

    Attributes:
        local: int64 [M, B, n], from 1; 0 for none.
        number: float32 [B, n], number of categories of each candidate.
        mix: float32 [B, C + 1], the share of each category in the user's own choices. Column 0 is 0.
    """

    local: Rows
    number: Floats
    mix: Floats


def reranked(
    scores: Floats, items: Items, strength: float, k: int, method: Method = "dpp", room: Labels | None = None
) -> Rows:
    """Return int64 [B, k]: which candidates the slates show, in order.

    With strength 0 these are the first k. A candidate is never taken twice. Those with score -inf are taken last, in
    the given order; with `room` they are never taken, and -1 stands for each place that no candidate can take.

    Args:
        scores: float32 [B, n], best first; -inf for a place without a candidate. n is at least k.
        items: The candidates.
        strength: From 0, the order of the scores, to 1, as diverse as possible.
        k: Length of the slates.
        method: How similar items are kept apart.
        room: integers [B, n, M], beside `items.categories`: how many more items of that category the slate may show. A
            category has the same number for all candidates of a user. None: any number. It has no effect with strength 0.
    """
    if strength <= 0 or scores.size == 0:
        return np.broadcast_to(np.arange(k), (len(scores), k)).copy()
    parts = []
    for first in range(0, len(scores), AT_ONCE):
        end = first + AT_ONCE
        left = None if room is None else room[first:end]
        parts.append(_reranked(scores[first:end], _of_users(items, first, end), strength, k, method, left))
    return np.concatenate(parts)


def _of_users(items: Items, first: int, end: int) -> Items:
    own = (items.users >= first) & (items.users < end)
    return Items(items.vectors[first:end], items.categories[first:end], items.history[own], items.users[own] - first)


def _reranked(
    scores: Floats, items: Items, strength: float, k: int, method: Method, room: Labels | None = None
) -> Rows:
    users, n = scores.shape
    real = np.isfinite(scores)
    relevance = (1.0 - strength) * _relevance(scores, real)
    numbered = _numbered(items)
    similar = _Similarity(items.vectors, numbered)
    calibration = _Calibration(numbered) if numbered.mix.any() else None
    novelty = _Determinant(users, n, k) if method == "dpp" else _Nearest(users, n)
    caps = None if room is None else _Caps(numbered, items.categories, room)
    closed = np.where(real, 0.0, -np.inf)
    line = np.arange(users)
    chosen = np.empty((users, k), np.int64)
    for place in range(k):
        worth = relevance + closed
        worth += strength * novelty.worth()
        if calibration is not None:
            worth += strength * CALIBRATION * calibration.gain(place)
        if caps is not None:
            worth += caps.closed()
        at = worth.argmax(1)
        full = ~np.isfinite(worth[line, at])  # no candidate left: the empty places follow in their order
        if full.any() and caps is None:
            at[full] = _next(closed[full], real[full])
        chosen[:, place] = at if caps is None else np.where(full, -1, at)
        closed[line, at] = -np.inf
        real[line, at] = True
        if place + 1 < k:
            novelty.take(at, similar.column(at))
            if calibration is not None:
                calibration.take(at)
            if caps is not None:
                caps.take(at)
    return chosen


def _next(closed: Doubles, taken_or_real: NDArray[np.bool_]) -> Rows:
    """Return the first empty place of each user that was not taken yet."""
    found: Rows = (np.isneginf(closed) & ~taken_or_real).argmax(1)
    return found


def _relevance(scores: Floats, real: NDArray[np.bool_]) -> Doubles:
    """Return f64 [B, n]: (score - best) / standard deviation; 0 where there is no candidate."""
    values = np.where(real, scores, 0.0).astype(np.float64)
    count = np.maximum(real.sum(1, keepdims=True), 1)
    mean = values.sum(1, keepdims=True) / count
    spread = np.sqrt((np.where(real, values - mean, 0.0) ** 2).sum(1, keepdims=True) / count)
    return np.where(real, (values - values[:, :1]) / np.where(spread > 0, spread, 1.0), 0.0)


def _numbered(items: Items) -> _Numbered:
    """Number each user's categories from 1, in any order: only which of them are equal matters."""
    users = len(items.categories)
    categories, history = items.categories, items.history
    labels = int(max(categories.max(initial=0), history.max(initial=0))) + 1
    if labels > MOST_LABELS:  # number those of the batch, so that the tables below stay small
        known = np.unique(np.concatenate(([0], categories.ravel(), history.ravel())))
        categories, history, labels = np.searchsorted(known, categories), np.searchsorted(known, history), len(known)
    categories = np.moveaxis(categories, 2, 0)
    categories = np.ascontiguousarray(categories[categories.any((1, 2))])  # [M, B, n]
    line = np.arange(users)
    found = np.zeros((users, labels), np.bool_)
    found[line[:, None], categories] = True
    found[:, 0] = False
    places = found.cumsum(1) * found
    event, column = np.nonzero(history)
    user = items.users[event]
    weight = 1.0 / np.count_nonzero(history, axis=1)[event]
    mix = np.bincount(user * labels + history[event, column], weight, users * labels).astype(np.float64)
    mix = mix.reshape(users, labels)
    mix /= np.maximum(mix.sum(1, keepdims=True), 1e-9)
    own = np.zeros((users, int(places.max(initial=0)) + 1), np.float32)
    own[np.nonzero(found)[0], places[found]] = mix[found]
    return _Numbered(places[line[:, None], categories], np.count_nonzero(categories, axis=0).astype(np.float32), own)


class _Similarity:
    """Similarities of all candidates to one of them, for each user."""

    def __init__(self, vectors: Floats, numbered: _Numbered) -> None:
        self._vectors = vectors
        norm = np.sqrt(np.einsum("bnd,bnd->bn", vectors, vectors))
        self._inverse = 1.0 / np.where(norm > 0, norm, 1.0)
        self._number = numbered.number
        self._bits = _bits(numbered.local)
        self._share = np.where(numbered.number.any(1), np.float32(0.5), np.float32(0.0))[:, None]
        self._line = np.arange(len(vectors))

    def column(self, at: Rows) -> Doubles:
        """Return f64 [B, n]: the similarity of each candidate to the user's candidate `at` [B]."""
        line = self._line
        cosine = np.matmul(self._vectors, self._vectors[line, at][:, :, None])[:, :, 0]
        cosine *= self._inverse * self._inverse[line, at][:, None]
        common = np.zeros(cosine.shape, np.float32)
        for word in self._bits:
            common += np.bitwise_count(word & word[line, at][:, None])
        together = self._number + self._number[line, at][:, None] - common
        jaccard = common / np.maximum(together, 1)
        mixed: Doubles = ((1 - self._share) * cosine + self._share * jaccard).astype(np.float64)
        return mixed


def _bits(local: Rows) -> list[Words]:
    """Return the sets of categories, [M, B, n], as words of 64 bits, uint64 [B, n] each."""
    bit = np.where(local > 0, np.left_shift(np.uint64(1), (local % WORD).astype(np.uint64)), np.uint64(0))
    words = int(local.max(initial=0)) // WORD + 1
    if words == 1:
        return [np.bitwise_or.reduce(bit, axis=0)]
    number = local // WORD
    return [np.bitwise_or.reduce(np.where(number == one, bit, np.uint64(0)), axis=0) for one in range(words)]


class _Determinant:
    """What the taken items leave of each candidate: the squared diagonal of an incremental Cholesky factor."""

    def __init__(self, users: int, n: int, k: int) -> None:
        self._left = np.ones((users, n))
        self._factor = np.empty((users, k, n))
        self._taken = 0
        self._line = np.arange(users)

    def worth(self) -> Doubles:
        """Return the log of what is left, f64 [B, n]."""
        return np.log(np.maximum(self._left, LEAST))

    def take(self, at: Rows, similar: Doubles) -> None:
        """Take the items `at` [B], to which all have the similarities f64 [B, n]."""
        line, before = self._line, self._factor[:, : self._taken]
        own = before[line, :, at]
        row = similar - np.matmul(own[:, None, :], before)[:, 0]
        left = self._left[line, at]
        row /= np.sqrt(np.maximum(left, LEAST))[:, None]
        row[left < LEAST] = 0.0  # a duplicate takes nothing away from the others
        self._factor[:, self._taken] = row
        self._left -= row**2
        self._taken += 1


class _Nearest:
    """The largest similarity of each candidate to a taken item."""

    def __init__(self, users: int, n: int) -> None:
        self._nearest = np.full((users, n), -np.inf)

    def worth(self) -> Doubles:
        """Return minus the largest similarity, f64 [B, n]; 0 before anything is taken."""
        return np.where(np.isneginf(self._nearest), 0.0, -self._nearest)

    def take(self, at: Rows, similar: Doubles) -> None:
        """Take the items `at` [B], to which all have the similarities f64 [B, n]."""
        np.maximum(self._nearest, similar, out=self._nearest)


class _Caps:
    """Which candidates have a category of which the slate may show no more."""

    def __init__(self, numbered: _Numbered, categories: Labels, room: Labels) -> None:
        self._local = numbered.local
        self._line = np.arange(len(categories))
        used = categories.any((0, 1))  # as in `_numbered`
        self._left = np.full(numbered.mix.shape, np.inf)  # [B, C + 1], by the user's own numbers
        self._left[self._line[:, None], self._local] = np.moveaxis(room[:, :, used], 2, 0)
        self._left[:, 0] = np.inf

    def closed(self) -> Doubles:
        """Return f64 [B, n]: -inf for a candidate that must not be taken, else 0."""
        full = (self._left[self._line[:, None], self._local] <= 0).any(0)
        return np.where(full, -np.inf, 0.0)

    def take(self, at: Rows) -> None:
        """Show the items `at` [B]."""
        line = self._line
        self._left[line, self._local[:, line, at]] -= 1  # a category occurs once; column 0 stays infinite


class _Calibration:
    """How much each candidate brings the slate's categories closer to the user's own.

    What depends on the item alone is looked up in a table by category and by the item's number of categories.
    """

    def __init__(self, numbered: _Numbered) -> None:
        users, n = numbered.number.shape
        size = numbered.mix.shape[1]
        counts, kind = np.unique(numbered.number, return_inverse=True)
        self._part = (1.0 / np.maximum(counts, 1)).astype(np.float32)  # [K], share of one category of such an item
        self._cell = (np.arange(users)[:, None] * size + numbered.local) * len(counts) + kind.reshape(users, n)
        self._local = numbered.local
        self._weight = (1.0 / np.maximum(numbered.number, 1)).astype(np.float32)
        self._mix = numbered.mix
        self._shown = np.zeros_like(numbered.mix)
        self._line = np.arange(users)

    def gain(self, place: int) -> Floats:
        """Return float32 [B, n]: the decrease of the divergence, except for what is the same for all candidates."""
        step = np.float32((1.0 - SMOOTHING) / (place + 1))
        base = step * self._shown + np.float32(SMOOTHING) * self._mix
        liked = self._mix > 0
        rise = step * self._part / np.where(liked, base, np.float32(1.0))[:, :, None]
        table = np.where(liked, self._mix, np.float32(0.0))[:, :, None] * np.log1p(rise)  # column 0 is 0
        gain: Floats = np.take(table.ravel(), self._cell).sum(0)
        return gain

    def take(self, at: Rows) -> None:
        """Show the items `at` [B]."""
        line = self._line
        self._shown[line, self._local[:, line, at]] += self._weight[
            line, at
        ]  # a category occurs once; 0 does not count


class Gains(NamedTuple):
    """What the sum above was for each item of a slate when it was taken, float64 [k] each.

    Attributes:
        quality: (1 - strength) * relevance, 0 for the best item by score.
        gain: strength * (novelty + CALIBRATION * calibration).
    """

    quality: Doubles
    gain: Doubles


def gains(scores: Floats, items: Items, strength: float, taken: Rows) -> Gains:
    """Return what each item of one user's slate was taken for, by `dpp`.

    Args:
        scores: float32 [1, n], best first.
        items: The candidates.
        strength: As for `reranked`.
        taken: int64 [k], the candidates in the order of the slate, each once.
    """
    numbered = _numbered(items)
    similar = _Similarity(items.vectors, numbered)
    calibration = _Calibration(numbered) if numbered.mix.any() else None
    novelty = _Determinant(1, scores.shape[1], len(taken))
    found = Gains((1.0 - strength) * _relevance(scores, np.isfinite(scores))[0, taken], np.empty(len(taken)))
    for place, one in enumerate(taken):
        at = np.array([one])
        worth = novelty.worth()[0, one]
        if calibration is not None:
            worth += CALIBRATION * calibration.gain(place)[0, one]
            calibration.take(at)
        novelty.take(at, similar.column(at))
        found.gain[place] = strength * worth
    return found
