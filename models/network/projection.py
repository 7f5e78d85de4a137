"""The projected texts that the text term of a score compares (models/network/blend.py).

A text's BERT vector, less the mean of the trained items' texts, is multiplied with a matrix and scaled to unit length.
The matrix holds the first principal components of those texts, each divided by the square root of its singular value:
half of what whitening does (J. Su et al., Whitening Sentence Representations, arXiv 2103.15316). Few directions, which
all texts share, would decide the products otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.data.histories import Flags, Floats


@dataclass(frozen=True)
class Projection:
    """Maps BERT vectors [M, X] to projected texts [M, P]. P = 0 means that there is no text term.

    Attributes:
        mean: f32 [X].
        matrix: f32 [X, P].
    """

    mean: Floats
    matrix: Floats

    @property
    def width(self) -> int:
        """P."""
        return int(self.matrix.shape[1])

    def apply(self, texts: Floats) -> Floats:
        """Project texts f32 [M, X]: f32 [M, P], of unit length. The zero vector, which is no text, stays zeros."""
        with torch.inference_mode():
            found: Floats = Project(self)(torch.from_numpy(texts)).numpy()
        return found


class Project(nn.Module):
    """`Projection` as a module, for its graph: [B, X] -> [B, P]."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(projection.mean))
        self.register_buffer("matrix", torch.from_numpy(projection.matrix))

    def forward(self, text: Tensor) -> Tensor:
        given = (text.abs().sum(dim=-1, keepdim=True) > 0).to(text.dtype)
        return nn.functional.normalize((text - self.mean) @ self.matrix * given, dim=-1)


def no_projection(width: int = 0) -> Projection:
    """Return P = 0, for a model without a text term. `width` is X."""
    return Projection(np.zeros(width, np.float32), np.zeros((width, 0), np.float32))


def fit_projection(texts: Floats, known: Flags, width: int) -> Projection:
    """Fit the projection to at most `width` components. There is none (P = 0) unless some texts differ.

    Args:
        texts: f32 [N + 1, X].
        known: bool [N + 1], the items of the training part. The others' texts are not read.
        width: The most components.
    """
    read = texts[known & texts.any(1)].astype(np.float64)
    if len(read) < 2:
        return no_projection(texts.shape[1])
    mean = read.mean(0)
    values, vectors = np.linalg.eigh((read - mean).T @ (read - mean))
    order = np.argsort(-values, kind="stable")[:width]
    order = order[values[order] > 1e-9 * (read**2).sum()]  # what is less is rounding
    if not len(order):
        return no_projection(texts.shape[1])
    found = vectors[:, order] * (values[order[0]] / values[order]) ** 0.25
    found *= np.sign(found[np.abs(found).argmax(0), np.arange(len(order))])  # a component's sign is free
    return Projection(mean.astype(np.float32), found.astype(np.float32))
