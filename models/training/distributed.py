"""Where training runs: on the GPU if there is one, on several of them under torchrun, else on the CPU.

Under torchrun (`torchrun --nproc-per-node N -m deploy.cli train ...`) every process runs the same epochs, takes every
N-th batch and shares its gradients, so that all hold the same weights. Only the first process writes files, and its
clock decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn


def training_device() -> torch.device:
    """Return this process's own GPU, or the CPU.

    On a GPU, products may be rounded to TF32. The catalogue's scores are bfloat16 there (models/training/loss.py);
    everything else is float32.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def together() -> Iterator[bool]:
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Yields whether this process is the one that writes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield True
        return
    device = training_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield rank() == 0
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Return the rank of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """Return how many processes train."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share_gradients(network: nn.Module, states: int) -> None:
    """Replace the gradients by the mean over all processes' states. `states` is how many this process's loss covers."""
    if size() == 1:
        return
    gradients = [
        parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        for parameter in network.parameters()
    ]
    flat = torch.cat([gradient.flatten() for gradient in gradients] + [gradients[0].new_ones(1)]) * states
    distributed.all_reduce(flat)
    flat /= flat[-1].clamp(min=1)
    at = 0
    for parameter in network.parameters():
        parameter.grad = flat[at : at + parameter.numel()].view_as(parameter)
        at += parameter.numel()


def agreed(value: Any) -> Any:
    """Return the first process's value, in all processes."""
    if size() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held)
    return held[0]
