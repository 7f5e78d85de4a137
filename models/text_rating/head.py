"""A head that reads a rating out of a comment's frozen BERT vector, which the worker computes anyway.

It is a multinomial logistic regression over the values that occur. Its output is the expected value, which minimises
the squared error and takes the order of the classes into account. Alternatively it is a plain regression. It is fitted
by L-BFGS in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from models.data.histories import Doubles, Floats

STEPS: Final = 300
OUTPUTS: Final = ("expectation", "regression")


@dataclass(frozen=True)
class HeadSettings:
    """How to fit a head.

    Attributes:
        output: One of OUTPUTS.
        penalty: Half the sum of squared weights times this is added to the mean loss.
        balanced: Every class has the same weight in the loss.
        hidden: Width of a hidden layer; 0 for none.
    """

    output: str = "expectation"
    penalty: float = 1e-4
    balanced: bool = False
    hidden: int = 0


class RatingHead(nn.Module):
    """Maps vectors f32 [B, T] to values f32 [B] within `bounds`."""

    values: Tensor
    bounds: Tensor

    def __init__(
        self, width: int, values: Sequence[float], bounds: tuple[float, float], settings: HeadSettings
    ) -> None:
        super().__init__()
        if settings.output not in OUTPUTS:
            raise ValueError(f"output {settings.output}: expected one of {', '.join(OUTPUTS)}")
        self.settings = settings
        inner = settings.hidden or width
        self.deep = nn.Linear(width, inner) if settings.hidden else None
        self.out = nn.Linear(inner, len(values) if settings.output == "expectation" else 1)
        self.register_buffer("values", torch.tensor(values, dtype=torch.float32))
        self.register_buffer("bounds", torch.tensor(bounds, dtype=torch.float32))

    def raw(self, vector: Tensor) -> Tensor:
        """Return the logits [B, classes], or the value itself [B, 1]."""
        return self.out(vector if self.deep is None else torch.tanh(self.deep(vector)))  # type: ignore[no-any-return]

    def forward(self, vector: Tensor) -> Tensor:
        raw = self.raw(vector)
        value = (raw.softmax(1) * self.values).sum(1) if self.settings.output == "expectation" else raw[:, 0]
        return torch.minimum(torch.maximum(value, self.bounds[0]), self.bounds[1])

    def loss(self, vector: Tensor, value: Tensor, weight: Tensor) -> Tensor:
        """Return the weighted mean over B.

        `value` is [B], each one of `values`; `weight` is [B], from `class_weights`.
        """
        raw = self.raw(vector)
        if self.settings.output == "expectation":
            level = (value[:, None] - self.values).abs().argmin(1)
            each = nn.functional.cross_entropy(raw, level, reduction="none")
        else:
            each = (raw[:, 0] - value) ** 2
        return (each * weight).sum() / weight.sum()


def class_weights(values: Doubles, *, balanced: bool) -> Doubles:
    """Return weights f64 [n] with mean 1: all equal, or with the same total for every class."""
    if not balanced:
        return np.ones(len(values))
    _, level, count = np.unique(values, return_inverse=True, return_counts=True)
    weight: Doubles = (len(values) / len(count) / count)[level]
    return weight


def fit_head(
    vectors: Floats, values: Doubles, bounds: tuple[float, float], settings: HeadSettings, seed: int = 0
) -> RatingHead:
    """Fit to vectors f32 [n, T] and values f64 [n].

    The same input gives the same head. `seed` matters only with `hidden`.
    """
    torch.manual_seed(seed)
    head = RatingHead(vectors.shape[1], sorted(set(values.tolist())), bounds, settings).double()
    x, y = torch.from_numpy(vectors).double(), torch.from_numpy(values)
    with torch.no_grad():
        if head.deep is None:
            head.out.weight.zero_()
        head.out.bias.fill_(float(values.mean()) if settings.output == "regression" else 0.0)
    weight = torch.from_numpy(class_weights(values, balanced=settings.balanced))
    matrices = [parameter for parameter in head.parameters() if parameter.ndim == 2]
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = head.loss(x, y, weight)
        for matrix in matrices:
            loss = loss + 0.5 * settings.penalty * (matrix**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return head.float().requires_grad_(False).eval()


def read_values(head: RatingHead, vectors: Floats) -> Doubles:
    """Read values f64 [n] from vectors f32 [n, T]."""
    with torch.inference_mode():
        found: Doubles = head(torch.from_numpy(vectors)).numpy().astype(np.float64)
    return found
