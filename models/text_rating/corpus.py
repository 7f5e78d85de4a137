"""Comments that have a rating, and their users split into training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from models.data import DataSet
from models.data.histories import Doubles, Rows
from stream.core.errors import DataError
from stream.core.messages import COMMENT

VALIDATION: Final = 0.2  # shares of the users
TEST: Final = 0.25
LEAST_USERS: Final = 12


class Parts(NamedTuple):
    """The three parts: positions i64 in a corpus, ascending. No user is in two parts."""

    train: Rows
    validation: Rows
    test: Rows


@dataclass(frozen=True)
class Corpus:
    """R comments with a text and a value, in time order.

    Attributes:
        name: Name of the data set.
        texts: The R texts.
        value: f64 [R].
        user: i64 [R], 0 to users - 1.
        scale: (min, max).
    """

    name: str
    texts: tuple[str, ...]
    value: Doubles
    user: Rows
    scale: tuple[float, float]

    @property
    def users(self) -> int:
        return int(self.user.max(initial=-1)) + 1

    def fingerprint(self) -> str:
        """Return the sha256 (hex) of users, values and texts."""
        digest = sha256(self.user.tobytes() + self.value.tobytes())
        for text in self.texts:
            digest.update(text.encode("utf-8", "replace") + b"\0")
        return digest.hexdigest()

    def some(self, rows: Rows) -> list[str]:
        """Return the texts at `rows`."""
        return [self.texts[row] for row in rows.tolist()]


def corpus(data: DataSet) -> Corpus:
    """Return the comments of a data set that have both text and value.

    Raises DataError if there are too few to split.
    """
    events = data.events.filter(
        (pl.col("behaviour") == COMMENT) & (pl.col("text") != "") & pl.col("value").is_not_nan()
    )
    found = Corpus(
        data.name,
        tuple(events["text"].to_list()),
        events["value"].to_numpy().astype(np.float64),
        events["user"].rank("dense").to_numpy().astype(np.int64) - 1,
        data.rating_scale,
    )
    if found.users < LEAST_USERS or len(np.unique(found.value)) < 2:
        raise DataError(
            f"{data.name}: found {len(found.texts)} comments with text and value of {found.users} users; "
            f"expected those of at least {LEAST_USERS} users, with more than one value"
        )
    return found


def split_users(found: Corpus, seed: int = 0, shares: Sequence[float] = (VALIDATION, TEST)) -> Parts:
    """Assign whole users to the parts, drawn by `seed`. `shares` are those of the users in validation and test."""
    order = np.random.default_rng(seed).permutation(found.users)
    cuts = np.cumsum([max(1, round(share * found.users)) for share in shares])
    part = np.zeros(found.users, np.int64)
    part[order[: cuts[0]]] = 1
    part[order[cuts[0] : cuts[1]]] = 2
    of = part[found.user]
    return Parts(*(np.flatnonzero(of == number) for number in range(3)))
