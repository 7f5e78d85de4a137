"""Recurrences with O(1) work per event, and attention to compare with.

Every recurrence has two forms, `unroll` and `step`, that give the same numbers. It keeps two vectors of W numbers per
user, h and c. Shapes: B users, T events, W width.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import torch
from torch import Tensor, nn

RECURRENT: Final = ("lstm", "gru", "lru")
KINDS: Final = (*RECURRENT, "attention")


class Recurrence(Protocol):
    """Applies events to a state.

    unroll: x [B, T, W], h and c [B, W] -> outputs [B, T, W], last h, last c. step: the same for one event, x [B, W].
    """

    def unroll(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...


class LSTM(nn.Module):
    """The LSTM of S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, Neural Computation 9 (8), 1997."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(width, width, batch_first=True)

    def unroll(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, (h, c) = self.cell(x, (h[None], c[None]))
        return out, h[0], c[0]

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w_in, w_state, b_in, b_state = self.cell.all_weights[0]
        i, f, g, o = (x @ w_in.T + b_in + h @ w_state.T + b_state).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, h, c


class GRU(nn.Module):
    """The GRU of Cho et al. It leaves c unchanged.

    K. Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.GRU(width, width, batch_first=True)

    def unroll(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, h_last = self.cell(x, h[None])
        return out, h_last[0], c

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w_in, w_state, b_in, b_state = self.cell.all_weights[0]
        r_in, z_in, n_in = (x @ w_in.T + b_in).chunk(3, dim=-1)
        r_state, z_state, n_state = (h @ w_state.T + b_state).chunk(3, dim=-1)
        z = torch.sigmoid(z_in + z_state)
        n = torch.tanh(n_in + torch.sigmoid(r_in + r_state) * n_state)
        h = (1 - z) * n + z * h
        return h, h, c


class LRU(nn.Module):
    """A diagonal complex recurrence. h is the real part and c the imaginary part of the state.

    A. Orvieto et al., Resurrecting Recurrent Neural Networks for Long Sequences, ICML 2023. For recommendation: Z. Yue
    et al., Linear Recurrent Units for Sequential Recommendation, WSDM 2024.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        radius = torch.empty(width).uniform_(0.8**2, 0.99**2).sqrt()
        self.decay = nn.Parameter(torch.log(-torch.log(radius)))
        self.phase = nn.Parameter(torch.log(torch.empty(width).uniform_(1e-3, math.pi / 10)))
        self.read = nn.Linear(width, 2 * width)
        self.write = nn.Linear(2 * width, width)

    def _turn(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the real and imaginary part of lambda, and the factor that keeps the state's size: f32 [W] each."""
        radius = torch.exp(-torch.exp(self.decay))
        angle = torch.exp(self.phase)
        return radius * torch.cos(angle), radius * torch.sin(angle), torch.sqrt(1 - radius**2)

    def unroll(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        real, imaginary, scale = self._turn()
        parts = self.read(x) * torch.cat((scale, scale))
        states = []
        for part in parts.unbind(1):
            h, c = real * h - imaginary * c + part[..., : len(real)], real * c + imaginary * h + part[..., len(real) :]
            states.append(torch.cat((h, c), dim=-1))
        return self.write(torch.stack(states, dim=1)), h, c

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        real, imaginary, scale = self._turn()
        first, second = (self.read(x) * torch.cat((scale, scale))).chunk(2, dim=-1)
        h, c = real * h - imaginary * c + first, real * c + imaginary * h + second
        return self.write(torch.cat((h, c), dim=-1)), h, c


class Attention(nn.Module):
    """Causal self-attention over a window, with learned positions. It is here to compare with.

    W.-C. Kang and J. McAuley, Self-Attentive Sequential Recommendation, ICDM 2018. It keeps no state, so it has no
    step.
    """

    def __init__(self, width: int, heads: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def unroll(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size, steps, width = x.shape
        parts = self.into(x).view(size, steps, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(
            parts[0], parts[1], parts[2], dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )
        return self.out(mixed.transpose(1, 2).reshape(size, steps, width)), h, c

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError("attention reads a window and keeps no state, so it cannot be stepped or exported")


class Block(nn.Module):
    """x -> LayerNorm(x + recurrence) -> LayerNorm(that + feed-forward): the block of LRURec and of transformers.

    Without `residual` and `feed` it is the bare recurrence with a LayerNorm, as in GRU4Rec.
    """

    def __init__(self, kind: str, width: int, dropout: float, *, residual: bool, feed: bool) -> None:
        super().__init__()
        plain: dict[str, type[LSTM | GRU | LRU]] = {"lstm": LSTM, "gru": GRU, "lru": LRU}
        self.recurrence: Recurrence = Attention(width, dropout=dropout) if kind == "attention" else plain[kind](width)
        self.residual = residual
        self.norm = nn.LayerNorm(width)
        self.feed = (
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width))
            if feed
            else None
        )
        self.feed_norm = nn.LayerNorm(width) if feed else None
        self.dropout = nn.Dropout(dropout)

    def unroll(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See Recurrence."""
        out, h, c = self.recurrence.unroll(x, h, c)
        return self._around(x, out), h, c

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See Recurrence."""
        out, h, c = self.recurrence.step(x, h, c)
        return self._around(x, out), h, c

    def _around(self, x: Tensor, out: Tensor) -> Tensor:
        out = self.dropout(out)
        y: Tensor = self.norm(x + out if self.residual else out)
        if self.feed is not None and self.feed_norm is not None:
            y = self.feed_norm(y + self.dropout(self.feed(y)))
        return y
