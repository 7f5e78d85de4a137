"""The recurrent interest network: one LSTM step per event, one dot product per item.

Unrolled for training, stepped for serving: the same weights, and the same numbers (a test).
Shapes: B users, T events, D item width, H hidden width, X text width (384), N items; row 0 is UNKNOWN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stream.events import BEHAVIOURS
from stream.inputs import NUMBERS

STATE_LIMIT = 60_000.0  # below the largest float16: h and c are stored as float16


@dataclass(frozen=True)
class NetworkSize:
    """Widths; item and hidden are multiples of 16, so that vectorised kernels have no tail."""

    items: int
    scenes: int
    item: int = 64
    hidden: int = 128
    text: int = 384
    comment: int = 32
    context: int = 16
    dropout: float = 0.2
    id_dropout: float = 0.1


class InterestNetwork(nn.Module):
    """Item vector = id embedding + projected BERT text (tied: read and scored), LSTM, residual feed-forward.

    text: float32 [N + 1, X], the items' BERT vectors, row 0 zeros. Rows of the id embedding are dropped at random while
    training (`id_dropout`), so that an item without a learned id (`item_vector`) is scored from its text alone.
    """

    text: Tensor

    def __init__(self, size: NetworkSize, text: Tensor) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("text", text, persistent=False)
        self.ids = nn.Embedding(size.items + 1, size.item)
        self.text_tower = nn.Sequential(nn.Linear(size.text, size.item), nn.GELU(), nn.Linear(size.item, size.item))
        self.behaviour = nn.Embedding(len(BEHAVIOURS), size.context)
        self.scene = nn.Embedding(size.scenes + 1, size.context)
        self.comment = nn.Linear(size.text, size.comment, bias=False)
        self.item_norm = nn.LayerNorm(size.item)
        width = size.item + 2 * size.context + NUMBERS + size.comment
        self.lstm = nn.LSTM(width, size.hidden, batch_first=True)
        self.hidden_norm = nn.LayerNorm(size.hidden)
        self.feed = nn.Sequential(
            nn.Linear(size.hidden, 2 * size.hidden), nn.GELU(), nn.Linear(2 * size.hidden, size.hidden)
        )
        self.query_norm = nn.LayerNorm(size.hidden)
        self.query_item = nn.Linear(size.hidden, size.item)
        self.dropout = nn.Dropout(size.dropout)
        nn.init.normal_(self.ids.weight, std=size.item**-0.5)

    def item_vector(self, text: Tensor) -> Tensor:
        """Text vectors [M, X] -> item vectors [M, D] of items unseen in training."""
        vectors: Tensor = self.text_tower(text)
        return vectors

    def item_matrix(self) -> Tensor:
        """[N + 1, D]: the vector of every item, row 0 UNKNOWN."""
        ids: Tensor = self.ids.weight
        if self.training and self.size.id_dropout:
            keep = torch.rand(len(ids), 1, device=ids.device) >= self.size.id_dropout
            ids = ids * keep
        return ids + self.item_vector(self.text)

    def inputs(self, item: Tensor, behaviour: Tensor, scene: Tensor, numbers: Tensor, comment: Tensor) -> Tensor:
        """The row of stream.inputs -> what the LSTM reads.

        item [..., D], behaviour and scene i64 [...], numbers [..., NUMBERS], comment [..., X] -> [..., width].
        """
        parts = (self.item_norm(item), self.behaviour(behaviour), self.scene(scene), numbers, self.comment(comment))
        return torch.cat(parts, dim=-1)

    def unroll(self, inputs: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """inputs [B, T, *], h and c [B, H] -> hidden states [B, T, H], last h, last c."""
        out, (h_last, c_last) = self.lstm(inputs, (h[None], c[None]))
        return out, h_last[0], c_last[0]

    def step(self, inputs: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One event: inputs [B, *], h and c [B, H] -> next h, next c. The weights of `unroll`, the cell written out."""
        w_in, w_state, b_in, b_state = self.lstm.all_weights[0]
        gates = inputs @ w_in.T + b_in + h @ w_state.T + b_state  # [B, 4H]
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def query(self, h: Tensor) -> Tensor:
        """Hidden states [..., H] -> what is multiplied with the item matrix [..., D]."""
        h = h + self.feed(self.hidden_norm(self.dropout(h)))
        vectors: Tensor = self.query_item(self.query_norm(h))
        return vectors
