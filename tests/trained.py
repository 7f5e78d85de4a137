"""What torch says after each user's events: the reference that serving is held against."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data.histories import Histories
from models.network.blend import Texts, blend_scores, log_popularity, recent_choices
from models.network.network import InterestNetwork
from models.training.run import Run


@torch.inference_mode()
def last_states(network: InterestNetwork, rows: Histories, items: Tensor) -> Tensor:
    """h after the last event of every user, f32 [U, H], unrolled in float32 from zeros. items: [rows, D]."""
    zeros = torch.zeros(1, network.size.hidden)
    last = []
    for begin, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        inputs = network.inputs(
            items[torch.from_numpy(rows.item[begin:end])],
            torch.from_numpy(rows.behaviour[begin:end]),
            torch.from_numpy(rows.scene[begin:end]),
            torch.from_numpy(rows.numbers[begin:end]),
            torch.from_numpy(rows.vectors[rows.comment[begin:end]]),
            None if rows.action is None else torch.from_numpy(rows.action[begin:end]),
        )
        last.append(network.unroll(inputs[None], zeros, zeros)[1])
    return torch.cat(last)


@torch.inference_mode()
def blended(
    run: Run, rows: Histories, products: Tensor, later: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The whole sum after all events of every user, f32 [U, M].

    products: query . item; items beyond the run's came later. later: their BERT vectors, if the sum has texts.
    """
    recent = recent_choices(rows, rows.starts[:-1], rows.starts[1:], run.blend.last)
    texts = run.texts
    if later is not None:
        new = np.concatenate((texts.new, np.ones(len(later), np.bool_)))
        texts = Texts(np.concatenate((texts.vectors, run.projection.apply(later))), new)
    scores: NDArray[np.float32] = blend_scores(
        products, recent, np.diff(rows.starts), run.blend, run.neighbours, log_popularity(run.popularity), texts
    ).numpy()
    return scores
