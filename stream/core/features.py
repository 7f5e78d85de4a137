"""How an event becomes the recurrent model's input row: the one definition, used by serving and by training. Pure.

One row is: the item's vector (row `item` of the item matrix, which holds the item's text too; row 0 is UNKNOWN), the
behaviour, the scene, the action, NUMBERS floats, and the comment's text vector (zeros where there is no text).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNKNOWN: Final = 0
"""Row of the item matrix for an item that neither the bundle nor the catalogue has; also the index of no scene and no action."""

NUMBERS: Final = 4
"""value scaled to [-1, 1] | 1 if there is a value | log time gap, 0 to about 1 | 1 if this is the user's first event"""

CHOICES: Final = ("clicks", "ratings", "comments")
"""Topics whose events may count as choices, in the order of their behaviours (stream.core.messages.SOURCE_TOPICS)."""

ACTIONS: Final = (
    ("cart", 2.0), ("click", 1.0), ("dislike", -1.0), ("like", 2.0), ("purchase", 3.0), ("skip", -1.0), ("view", 0.5),
)  # fmt: skip
"""What a click with such an action counts for where choices are counted; 0 and below: it is no choice. Other names, and clicks
without an action, count 1."""

_YEAR_LOG: Final = math.log1p(365 * 86_400.0)


@dataclass(frozen=True)
class InputSpec:
    """What the rows depend on besides the event; part of the bundle's manifest.

    rating_scale: (min, max); scenes: known scenes, index = place + 1, 0 for none and for unknown ones;
    text_dim: width of a text vector; choices: which of CHOICES count as choices (models/data/choices.py), of comments those
    that carry a value: no part of a row, but what training predicts and the score's neighbours look at; weights: of actions, as
    ACTIONS has them; actions: those that the network reads, index = place + 1, 0 for none and for all others.
    """

    rating_scale: tuple[float, float]
    scenes: tuple[str, ...]
    text_dim: int
    choices: tuple[str, ...] = CHOICES
    weights: tuple[tuple[str, float], ...] = ACTIONS
    actions: tuple[str, ...] = ()

    def chosen(self) -> frozenset[int]:
        """The behaviours of `choices`."""
        return frozenset(CHOICES.index(name) for name in self.choices)

    def refused(self) -> frozenset[str]:
        """The actions that are no choices: inputs only."""
        return refused(self.weights)

    def scene(self, name: str) -> int:
        """Scene name -> index; 0 for "" and for scenes unseen in training."""
        return _place(self.scenes, name)

    def action(self, name: str) -> int:
        """What a click says that the user did -> index; 0 for "" and for actions that training saw too seldom."""
        return _place(self.actions, name)

    def numbers(self, value: float, gap_ms: int) -> tuple[float, float, float, float]:
        """The NUMBERS of one event. value: NaN for none; gap_ms: since the previous event, negative for the first."""
        low, high = self.rating_scale
        first = gap_ms < 0
        return (
            0.0 if math.isnan(value) else 2.0 * (value - low) / (high - low) - 1.0,
            0.0 if math.isnan(value) else 1.0,
            0.0 if first else math.log1p(gap_ms / 1000.0) / _YEAR_LOG,
            1.0 if first else 0.0,
        )


def _place(names: tuple[str, ...], name: str) -> int:
    try:
        return names.index(name) + 1
    except ValueError:
        return UNKNOWN


def refused(weights: Sequence[tuple[str, float]]) -> frozenset[str]:
    """The actions that are no choices. weights: as ACTIONS."""
    return frozenset(name for name, weight in weights if weight <= 0)


class InputRows(NamedTuple):
    """B rows as the step model takes them.

    item: float32 [B, D]; behaviour, scene, action: int64 [B]; numbers: float32 [B, NUMBERS]; comment: float32 [B, text_dim].
    A bundle without actions has no use for `action`: it is 0 throughout then, and the step graph has no such input.
    """

    item: NDArray[np.float32]
    behaviour: NDArray[np.int64]
    scene: NDArray[np.int64]
    action: NDArray[np.int64]
    numbers: NDArray[np.float32]
    comment: NDArray[np.float32]


def item_text(title: str, text: str | None, categories: Sequence[str] | None) -> str:
    """What BERT reads of an item: "title. category, category. text". "" where there is nothing: its vector is zeros."""
    parts = (title, ", ".join(categories or ()), text or "")
    return ". ".join(part.strip() for part in parts if part.strip())
