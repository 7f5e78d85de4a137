"""The events of a data set, user after user, and what every protocol makes of them: the training part and all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from models.data import DataSet
from models.data.actions import often
from models.data.choices import choices, require_choices
from models.data.histories import Encode, Flags, Floats, Histories, Rows, histories
from models.interfaces import LeftOut, TrainingData
from models.network.text import TEXT_DIM
from stream.core.errors import DataError
from stream.core.features import UNKNOWN, InputSpec, item_text, refused
from stream.core.messages import SOURCE_TOPICS


@dataclass(frozen=True)
class Ordered:
    """E events, user after user as in models.data.histories.histories, each user's in time order.

    Attributes:
        data: The data set.
        at: i64 [E], rows of data.events.
        owner: i64 [E], the user of each event.
        starts: i64 [U + 1], the first event of each user.
        item: i64 [E], rows of the catalogue. UNKNOWN if the item is not in it.
        choice: bool [E], choices (models/data/choices.py) of known items.
    """

    data: DataSet
    at: Rows
    owner: Rows
    starts: Rows
    item: Rows
    choice: Flags

    @cached_property
    def _begin(self) -> Rows:
        return self.starts[self.owner]

    @cached_property
    def _end(self) -> Rows:
        return self.starts[self.owner + 1]

    def position(self) -> Rows:
        """Return i64 [E]: the number of the user's events before each event."""
        return np.arange(len(self.at)) - self._begin

    def number(self, flags: Flags) -> Rows:
        """Return i64 [E]: how many of the user's events are flagged."""
        ahead = _ahead(flags)
        return ahead[self._end] - ahead[self._begin]

    def backwards(self, flags: Flags) -> Rows:
        """Return i64 [E]: the number of the user's flagged events from this one on, itself included: 1 at the last."""
        ahead = _ahead(flags)
        return ahead[self._end] - ahead[:-1]

    def since(self, flags: Flags) -> Flags:
        """Return bool [E]: the first flagged event of each user and all of the user's later events."""
        ahead = _ahead(flags)
        return ahead[1:] > ahead[self._begin]


def _ahead(flags: Flags) -> Rows:
    """Return i64 [E + 1]: the number of flagged events before each position."""
    return np.concatenate([[0], np.cumsum(flags)]).astype(np.int64)


def ordered(data: DataSet) -> Ordered:
    """Order the events. Raises DataError if there are fewer than two items, no events, or no choices."""
    if len(data.items) < 2 or not len(data.events):
        raise DataError(f"{data.name}: {len(data.items)} items and {len(data.events)} events: nothing to judge")
    require_choices(data.name, data.events, data.choices, data.weights)
    row_of = pl.DataFrame({"item": [item.item for item in data.items]}).with_row_index("row", offset=1)
    table = (
        data.events.select("user", "item", choice=choices(data.events, data.choices, data.weights))
        .with_row_index("at")
        .join(row_of, on="item", how="left", maintain_order="left")
        .with_columns(pl.col("row").fill_null(UNKNOWN), owner=pl.col("user").rank("dense") - 1)
        .sort("owner", maintain_order=True)
    )
    owner, item = (table[name].to_numpy().astype(np.int64) for name in ("owner", "row"))
    starts = np.searchsorted(owner, np.arange(owner[-1] + 2)).astype(np.int64)
    choice = table["choice"].to_numpy() & (item != UNKNOWN)
    return Ordered(data, table["at"].to_numpy().astype(np.int64), owner, starts, item, choice)


def left_out(order: Ordered, *reasons: tuple[Flags, str]) -> tuple[LeftOut, ...]:
    """Return what is not evaluated: the given `reasons` (events bool [E], why), and what all protocols leave out.

    Reasons without any event are omitted.
    """
    behaviour = order.data.events["behaviour"].to_numpy()[order.at]
    data = order.data
    counted = choices(data.events, data.choices, data.weights).to_numpy()[order.at]
    turned = data.events["action"].is_in(sorted(refused(data.weights))).to_numpy()[order.at]
    always = [
        ((behaviour == number) & ~counted & ~turned, _not_a_choice(topic, data.choices))
        for number, topic in enumerate(SOURCE_TOPICS)
    ]
    always.append((turned, "events whose action is not a choice"))
    lacking = (counted & ~order.choice, "choices of items that are not in the catalogue")
    return tuple(
        LeftOut(why, len(np.unique(order.owner[events])), int(events.sum()))
        for events, why in (*reasons, lacking, *always)
        if events.any()
    )


def _not_a_choice(topic: str, counted: Sequence[str]) -> str:
    return f"{topic} without a value: not choices" if topic in counted else f"{topic}: not among --choices"


def share_of(values: Rows, share: float, seed: int) -> Rows:
    """Draw that share of the values by the seed, at least one, and sort it."""
    size = max(1, round(share * len(values)))
    return np.sort(np.random.default_rng(seed).permutation(values)[:size])


def with_validation(order: Ordered, trained: Flags) -> tuple[Flags, Flags]:
    """Return use and watched, bool [E] each.

    Of the events in `trained`, each user's last choice is for validation if the user has three choices or more.
    The other users are trained on whole.
    """
    chosen = order.choice & trained
    watched = chosen & (order.number(chosen) >= 3) & (order.backwards(chosen) == 1)
    return trained & ~order.since(watched), watched


def training_and_rows(
    order: Ordered, held: Flags, use: Flags, watched: Flags, encode: Encode
) -> tuple[TrainingData, Histories]:
    """Return what fitting may see, and the rows of all events in the order of `order`. held, use, watched: bool [E].

    Events that are `held` are in none of the arrays of TrainingData. Scenes, actions, comments and vectors come only
    from the others. Texts of the training part are encoded in a separate call, because sharing a batch with test texts
    might change their last bits. Raises DataError if nothing is left to learn from.
    """
    data = order.data
    if not (use & order.choice).any():
        raise DataError(f"{data.name}: the protocol leaves no choice to learn from")
    encode = remembering(encode)
    item_ids = tuple(item.item for item in data.items)
    table = data.events[order.at]
    seen = table.filter(~pl.Series(held))
    scenes = tuple(sorted(set(seen["scene"].unique().to_list()) - {""}))
    spec = InputSpec(data.rating_scale, scenes, TEXT_DIM, data.choices, data.weights, often(seen))
    vectors = encode([item_text(item.title, item.text, item.categories) for item in data.items])
    text = np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])
    training_rows = histories(seen, None, item_ids, spec, encode, timed=data.timed)
    training = TrainingData(data.items, spec, text, training_rows, use[~held], np.flatnonzero(watched[~held]))
    return training, histories(table, None, item_ids, spec, encode, timed=data.timed)


def remembering(encode: Encode) -> Encode:
    """Wrap `encode` so that it encodes each text once.

    New texts of a call are encoded together, apart from earlier ones.
    """
    known: dict[str, Floats] = {}

    def remembered(texts: Sequence[str]) -> Floats:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, encode(new), strict=True))
        return np.stack([known[text] for text in texts]) if texts else np.zeros((0, TEXT_DIM), np.float32)

    return remembered
