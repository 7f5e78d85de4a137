"""What freshet's rating model reads: shrunken biases, and weighted means of the user's other residuals.

x_f = r_f - mu - b_i(f) is the residual of a user's rating after subtracting the mean and the item's bias. The bias of
the user at a target e is

    b_u(e) = sum over C(e) of x_f / (|C(e)| + USER)

Every kernel k gives one more mean: sum of k(e, f) (x_f - b_u(e)) / (sum of |k(e, f)| + PULL). C(e), the context of e,
never contains e itself. Of e only user, item and time are read, and e's share is subtracted from all sums over the
training part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import Ridge

from models.data.histories import Doubles, Flags, Floats, Rows
from models.rating_prediction.table import RatingTable

ITEM: Final = 4.0  # pull of an item's bias to 0, counted in ratings
USER: Final = 5.0
PULL: Final = 1.0  # pull of a weighted mean to 0, counted in kernels
NORM: Final = 4.0  # added to the norm of an item-item correlation, so that little evidence has little weight
FADES: Final = (0.5, 0.9, 0.98)  # of the recurrent means, per event
DAY: Final = 86_400_000.0
CORRELATED: Final = 6_000  # most items for which correlations are kept (the most rated)
NAMES: Final = (
    "item bias", "item count", "item bias by text", "user bias", "user count", "user spread", "same categories",
    "similar text", "correlated items", "correlated weight", "as popular", "same day", "last 2", "last 10", "last 50",
)  # fmt: skip


@dataclass(frozen=True)
class Context:
    """Which of a user's events may be used to predict another.

    Attributes:
        causal: Only earlier ones, as in a live system. If False: all of the training part except the target.
        folding: Earlier events of the test part too (prequential; needs causal).
    """

    causal: bool
    folding: bool

    def of(self, target: Rows, event: Rows, trained: Flags) -> Flags:
        """Return bool [targets, events].

        `target` and `event` are i64, positions in time order; `trained` is bool [events].
        """
        if self.causal:
            return np.less(event[None], target[:, None]) & (trained[None] | self.folding)
        return np.not_equal(event[None], target[:, None]) & trained[None]


@dataclass(frozen=True)
class Correlations:
    """Correlations of items over users.

    Attributes:
        slot: i64 [I], the item's row in `product`, or -1.
        product: f32 [n, n].
        power: f64 [n], sums of squares.
    """

    slot: Rows
    product: Floats
    power: Doubles


@dataclass(frozen=True)
class Statistics:
    """Sums over the training part.

    Attributes:
        mean: Mean of the ratings.
        total: Sum of the centred ratings of each item.
        count: Number of ratings of each item.
        by_text: Bias of each item, predicted from its text.
        x: f64 [R], the rating minus mean and item bias.
        rho: f64 [R], x minus the user bias; 0 outside the training part.
        trained: Which ratings are in the training part.
        correlations: Correlations of the items.
    """

    mean: float
    total: Doubles
    count: Doubles
    by_text: Doubles
    x: Doubles
    rho: Doubles
    trained: Flags
    correlations: Correlations


def statistics(table: RatingTable, train: Rows) -> Statistics:
    """Compute all sums over the training part of a fold. x of test ratings is filled too, to fold them in later."""
    mean = float(table.value[train].mean())
    centred = table.value - mean
    total = np.bincount(table.item[train], weights=centred[train], minlength=table.items).astype(np.float64)
    count = np.bincount(table.item[train], minlength=table.items).astype(np.float64)
    x = centred - (total / (count + ITEM))[table.item]
    user_total = np.bincount(table.user[train], weights=x[train], minlength=table.users)
    user_count = np.bincount(table.user[train], minlength=table.users)
    trained = np.zeros(len(x), np.bool_)
    trained[train] = True
    rho = np.where(trained, x - (user_total / (user_count + USER))[table.user], 0.0)
    by_text = text_bias(table, total, count)
    return Statistics(mean, total, count, by_text, x, rho, trained, correlations(table, train, rho, count))


def text_bias(table: RatingTable, total: Doubles, count: Doubles) -> Doubles:
    """Return f64 [I]: each item's bias, predicted by a ridge over text and categories fitted without it (5 parts)."""
    read = np.concatenate([table.text, table.category], 1)
    out = np.zeros(table.items)
    part = np.random.default_rng(0).permutation(table.items) % 5
    for held in range(5):
        fit = np.flatnonzero((part != held) & (count > 0))
        if len(fit) and (part == held).any():
            model = Ridge(alpha=20.0).fit(
                read[fit], total[fit] / count[fit], sample_weight=count[fit] / (count[fit] + ITEM)
            )
            out[part == held] = model.predict(read[part == held])
    return out


def correlations(table: RatingTable, train: Rows, rho: Doubles, count: Doubles) -> Correlations:
    """Compute the products of residuals between the most rated items (with at least 3 ratings)."""
    most = np.argsort(-count, kind="stable")[:CORRELATED]
    most = most[count[most] >= 3]
    slot = np.full(table.items, -1, np.int64)
    slot[most] = np.arange(len(most))
    rated = train[slot[table.item[train]] >= 0]
    matrix = csr_matrix((rho[rated], (table.user[rated], slot[table.item[rated]])), (table.users, len(most)))
    product = (matrix.T @ matrix).toarray().astype(np.float32)
    return Correlations(slot, product, product.diagonal().astype(np.float64))


def features(table: RatingTable, made: Statistics, targets: Rows, context: Context) -> tuple[Doubles, Doubles]:
    """Return base f64 [T] = mu + b_i + b_u at the target, and what the regression reads, f64 [T, len(NAMES)]."""
    out = np.zeros((len(targets), len(NAMES)))
    order = np.argsort(table.user, kind="stable")  # users one after the other, in time order
    starts = np.searchsorted(table.user[order], np.arange(table.users + 1))
    by_user = np.argsort(table.user[targets], kind="stable")
    target_starts = np.searchsorted(table.user[targets][by_user], np.arange(table.users + 1))
    for user in range(table.users):
        which = by_user[target_starts[user] : target_starts[user + 1]]
        if len(which):
            out[which] = _of_user(table, made, targets[which], order[starts[user] : starts[user + 1]], context)
    return made.mean + out[:, 0] + out[:, 3], out


def _of_user(table: RatingTable, made: Statistics, target: Rows, events: Rows, context: Context) -> Doubles:
    """Return the rows of one user's targets, f64 [T, len(NAMES)]. `events` is all of the user's ratings."""
    item, other = table.item[target], table.item[events]
    own = made.trained[target]
    allowed = context.of(target, events, made.trained[events])
    speaks = allowed.astype(np.float64)  # (T, E)
    x = made.x[events]
    count = speaks.sum(1)
    user_bias = speaks @ x / (count + USER)
    left = x[None] - user_bias[:, None]

    def mean(kernel: Doubles) -> Doubles:
        weighed = kernel * speaks
        out: Doubles = (weighed * left).sum(1) / (np.abs(weighed).sum(1) + PULL)
        return out

    item_count = made.count[item] - own
    item_total = made.total[item] - np.where(own, table.value[target] - made.mean, 0.0)
    alike = _correlation(made, item, other, target, events, own)
    popular = np.log1p(made.count[item])[:, None] - np.log1p(made.count[other])[None]
    before = events[None] < target[:, None]
    age = np.where(before, np.searchsorted(events, target)[:, None] - 1 - np.arange(len(events))[None], 0)
    days = np.where(before, (table.time[target][:, None] - table.time[events][None]) / DAY, np.inf)
    return np.stack(
        [
            item_total / (item_count + ITEM),
            np.log1p(item_count),
            made.by_text[item],
            user_bias,
            np.log1p(count),
            np.sqrt((speaks * left**2).sum(1) / np.maximum(count, 1)),
            mean((table.category[item] @ table.category[other].T).astype(np.float64)),
            mean(np.maximum(table.text[item] @ table.text[other].T, 0.0).astype(np.float64) ** 2),
            mean(alike),
            (alike * speaks).sum(1),
            mean(np.exp(-(popular**2))),
            mean(np.exp(-days)),
            *(mean(np.where(before, fade**age, 0.0)) for fade in FADES),
        ],
        axis=1,
    )


def _correlation(made: Statistics, item: Rows, other: Rows, target: Rows, events: Rows, own: Flags) -> Doubles:
    """Return f64 [T, E], 0 to 1: the squared positive correlation of the items' residuals less this user's share."""
    if not len(made.correlations.power):
        return np.zeros((len(item), len(other)))
    a, b = made.correlations.slot[item], made.correlations.slot[other]
    mine, theirs = np.where(own, made.rho[target], 0.0), made.rho[events]
    product = made.correlations.product[np.maximum(a, 0)][:, np.maximum(b, 0)] - mine[:, None] * theirs[None]
    power_a = np.maximum(made.correlations.power[np.maximum(a, 0)] - mine**2, 0.0)
    power_b = np.maximum(made.correlations.power[np.maximum(b, 0)] - theirs**2, 0.0)
    similarity = product / (np.sqrt(power_a[:, None] * power_b[None]) + NORM)
    known = (a >= 0)[:, None] & (b >= 0)[None]
    out: Doubles = np.where(known, np.maximum(similarity, 0.0), 0.0) ** 2
    return out
