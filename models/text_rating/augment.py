"""Makes variants of a training text with the same meaning. J. Wei and K. Zou, EDA, EMNLP 2019 (deletion, order)."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")


def drop_words(text: str, share: float, draw: np.random.Generator) -> str:
    """Drop about `share` of the words of the text, but never all of them."""
    words = text.split()
    left = [word for word, luck in zip(words, draw.random(len(words)).tolist(), strict=True) if luck >= share]
    return " ".join(left) or text


def shuffle_sentences(text: str, draw: np.random.Generator) -> str:
    """Keep the first sentence (a review's title) and shuffle the others. Of a long text, other parts are then read."""
    first, *others = _SENTENCE.split(text)
    return " ".join([first, *(others[at] for at in draw.permutation(len(others)).tolist())])
