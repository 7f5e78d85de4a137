"""How an event becomes the recurrent model's input row. Serving and training share this one definition. Pure.

One row has the item's vector (row `item` of the item matrix, which also holds the item's text; row 0 is UNKNOWN), the
behaviour, the scene, the action, NUMBERS floats, and the comment's text vector (zeros if there is no text).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNKNOWN: Final = 0
"""Row of the item matrix for an item that neither bundle nor catalogue has. Also the index for no scene or action."""

NUMBERS: Final = 4
"""value scaled to [-1, 1] | 1 if there is a value | log time gap, 0 to about 1 | 1 if this is the user's first event"""

CHOICES: Final = ("clicks", "ratings", "comments")
"""Topics whose events may count as choices, in the order of their behaviours (stream.core.messages.SOURCE_TOPICS)."""

ACTIONS: Final = (
    ("cart", 2.0), ("click", 1.0), ("dislike", -1.0), ("like", 2.0), ("purchase", 3.0), ("skip", -1.0), ("view", 0.5),
)  # fmt: skip
"""The weight of a click with such an action when choices are counted. At 0 or below, the click is not a choice. Other
names, and clicks without an action, count 1."""

_YEAR_LOG: Final = math.log1p(365 * 86_400.0)


@dataclass(frozen=True)
class InputSpec:
    """What the rows depend on besides the event. It is part of the bundle's manifest.

    Attributes:
        rating_scale: (min, max).
        scenes: Known scenes. A scene's index is its position + 1; 0 is for none and for unknown ones.
        text_dim: Width of a text vector.
        choices: Which of CHOICES count as choices (models/data/choices.py); comments only if they have a value. They
            are not part of a row: training predicts them, and the score's neighbours use them.
        weights: Weights of actions, as in ACTIONS.
        actions: Actions that the network reads. An action's index is its position + 1; 0 is for none and for all
            others.
    """

    rating_scale: tuple[float, float]
    scenes: tuple[str, ...]
    text_dim: int
    choices: tuple[str, ...] = CHOICES
    weights: tuple[tuple[str, float], ...] = ACTIONS
    actions: tuple[str, ...] = ()

    def chosen(self) -> frozenset[int]:
        """Return the behaviours of `choices`."""
        return frozenset(CHOICES.index(name) for name in self.choices)

    def refused(self) -> frozenset[str]:
        """Return the actions that are not choices, but inputs only."""
        return refused(self.weights)

    def scene(self, name: str) -> int:
        """Return the index of a scene; 0 for "" and for scenes unseen in training."""
        return _place(self.scenes, name)

    def action(self, name: str) -> int:
        """Return the index of a click's action; 0 for "" and for actions that are too rare in the training data."""
        return _place(self.actions, name)

    def numbers(self, value: float, gap_ms: int) -> tuple[float, float, float, float]:
        """Return the NUMBERS of one event.

        Args:
            value: The rating; NaN for none.
            gap_ms: Time since the previous event; negative for the first event.
        """
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
    """Return the actions that are not choices. `weights` is in the form of ACTIONS."""
    return frozenset(name for name, weight in weights if weight <= 0)


class InputRows(NamedTuple):
    """B rows of input for the step model.

    A bundle without actions does not use `action`: it is 0 in all rows then, and the step graph has no such input.

    Attributes:
        item: float32 [B, D].
        behaviour: int64 [B].
        scene: int64 [B].
        action: int64 [B].
        numbers: float32 [B, NUMBERS].
        comment: float32 [B, text_dim].
    """

    item: NDArray[np.float32]
    behaviour: NDArray[np.int64]
    scene: NDArray[np.int64]
    action: NDArray[np.int64]
    numbers: NDArray[np.float32]
    comment: NDArray[np.float32]


def item_text(title: str, text: str | None, categories: Sequence[str] | None) -> str:
    """Return the text of an item that BERT reads: "title. category, category. text". For "" the vector is zeros."""
    parts = (title, ", ".join(categories or ()), text or "")
    return ". ".join(part.strip() for part in parts if part.strip())
