"""What torch says after each user's events: the reference that serving is held against."""

from __future__ import annotations

import torch
from torch import Tensor

from models.network import InterestNetwork
from models.rows import Histories


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
        )
        last.append(network.unroll(inputs[None], zeros, zeros)[1])
    return torch.cat(last)
