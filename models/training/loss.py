"""Cross-entropy of a softmax over the whole catalogue, in few passes over memory.

The [M, N + 1] scores are most of a training step. On a CPU the passes over them cost more than the products do, and
allocating fresh memory for them costs more than both. This form keeps one such matrix from step to step and passes over
it four times. If the CPU multiplies bfloat16 natively (AMX), the scores are bfloat16; the sums are always float32. A target
may be several items with a share each: cross-entropy is linear in the target, so that this needs no further pass.

The full softmax at every position is what makes recurrent recommenders strong: A. Petrov and C. Macdonald, gSASRec,
RecSys 2023; A. Klenitskiy and A. Vasilev, RecSys 2023.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@cache
def native_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices natively (Intel AMX). False if that cannot be determined."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False


class CatalogueLoss:
    """A loss, called as `loss(query, items, targets)`, or with shares behind. One instance serves one network, a step at a time.

    The scores of a step are overwritten by the next step, so `backward` must come before it. `kind` is the type of the
    scores; by default it depends on the device.
    """

    def __init__(self, kind: torch.dtype | None = None, device: torch.device | None = None) -> None:
        native = native_bfloat16() if device is None or device.type == "cpu" else True
        self.kind = kind or (torch.bfloat16 if native else torch.float32)
        self._scores = torch.empty(0, dtype=self.kind)

    def __call__(self, query: Tensor, items: Tensor, targets: Tensor, shares: Tensor | None = None) -> Tensor:
        """Return the mean cross-entropy over M states between the target and the softmax over items 1 to N.

        Args:
            query: f32 [M, D].
            items: f32 [N + 1, D].
            targets: i64 [M], rows from 1; with `shares` i64 [M, K], where row 0 has the share 0.
            shares: f32 [M, K], the probability of each of the K targets of a state; a row has the sum 1.
        """
        loss: Tensor = _Function.apply(query, items, targets, shares, self)
        return loss

    def scores(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Return [rows, columns] of the memory that is kept, uninitialised."""
        if self._scores.numel() < rows * columns or self._scores.device != device:
            self._scores = torch.empty(int(1.2 * rows * columns), dtype=self.kind, device=device)
        return self._scores[: rows * columns].view(rows, columns)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, query: Tensor, items: Tensor, targets: Tensor, shares: Tensor | None, loss: CatalogueLoss
    ) -> Tensor:
        exact = torch.promote_types(loss.kind, torch.float32)
        query, items = query.to(loss.kind), items.to(loss.kind)
        scores = torch.mm(query, items.T, out=loss.scores(len(query), len(items), query.device))
        shares = None if shares is None else shares.to(exact)
        wanted = (query.to(exact) * _target(items, targets, shares)).sum(1)
        scores[:, 0] = -torch.inf  # UNKNOWN is not a candidate
        top = scores.amax(1, keepdim=True)
        mass = scores.sub_(top).exp_()
        total = mass.sum(1, keepdim=True).to(exact)
        context.save_for_backward(query, items, targets, shares, mass, total)
        return (total.log() + top.to(exact))[:, 0].sub(wanted).mean()

    @staticmethod
    def backward(context: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        query, items, targets, shares, mass, total = context.saved_tensors
        exact = total.dtype
        by_query = (mass @ items).to(exact) / total - _target(items, targets, shares)
        by_items = (mass.T @ (query.to(exact) / total).to(mass.dtype)).to(exact)
        asked = query.to(exact)
        if shares is not None:
            asked = (shares[:, :, None] * asked[:, None]).flatten(0, 1)
        by_items.index_add_(0, targets.flatten(), -asked)
        scale = grads[0] / len(query)
        return by_query * scale, by_items * scale, None, None, None


def _target(items: Tensor, targets: Tensor, shares: Tensor | None) -> Tensor:
    """Return the vector of each state's target, [M, D]: the mean of its items by share. At least float32."""
    exact = torch.promote_types(items.dtype, torch.float32)
    if shares is None:
        return items[targets].to(exact)
    return (shares[:, None] @ items[targets].to(exact))[:, 0]
