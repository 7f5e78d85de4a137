"""The interest network: a few O(1) recurrent blocks per event, one dot product per item.

item vector = id embedding + text tower (tied: read and scored) -> gate by context -> blocks -> query -> dot product.
It is unrolled for training and stepped for serving, with the same weights and the same numbers (a test checks this).
Shapes: B users, T events, D item width, W block width, H stored width, X text width (384), N items. Row 0 is UNKNOWN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from models.network.blocks import KINDS, Block
from stream.core.features import NUMBERS
from stream.core.messages import BEHAVIOURS

STATE_LIMIT = 60_000.0  # below the largest float16: h and c are stored as float16
FEATURES: Final = ("behaviour", "scene", "value", "gap", "comment", "action")
"""What may enter besides the item. Each is a separate ablation. `item_text` switches the item text."""


@dataclass(frozen=True)
class NetworkSize:
    """Shape and kind of a network.

    item and width are multiples of 16, so that vectorised kernels have no remainder.

    Attributes:
        items: N.
        scenes: Number of known scenes.
        item: D.
        width: W of each of the `blocks`.
        blocks: Number of blocks.
        kind: Kind of their recurrence (models.network.blocks.KINDS).
        window: Number of events that attention sees.
        text: X.
        comment: Width of the comment's part.
        context: Width of each other feature's part.
        dropout: Dropout in the blocks.
        item_dropout: Dropout of the blocks' input.
        id_dropout: Share of id embeddings hidden in a step, so that the text alone must suffice.
        features: The features in use, of FEATURES.
        item_text: Whether the text tower is in use.
        normalise: Give items and query unit length, with `temperature` between them.
        temperature: See `normalise`.
        residual: Whether the blocks have a residual path.
        feed: Whether the blocks have a feed-forward part.
        actions: A, how many actions the network knows by name.
        untied: Whether the items have output vectors of their own, which are scored; else the vectors that are read are.
    """

    items: int
    scenes: int
    item: int = 64
    width: int = 128
    blocks: int = 1
    kind: str = "lstm"
    window: int = 50
    text: int = 384
    comment: int = 32
    context: int = 16
    dropout: float = 0.2
    item_dropout: float = 0.2
    id_dropout: float = 0.1
    features: tuple[str, ...] = FEATURES
    item_text: bool = True
    normalise: bool = False
    temperature: float = 0.07
    residual: bool = True
    feed: bool = True
    actions: int = 0
    untied: bool = False

    @property
    def reads_actions(self) -> bool:
        """Whether there are actions and the feature is in use.

        If not, there are no weights and no step input for them.
        """
        return self.actions > 0 and "action" in self.features

    @property
    def hidden(self) -> int:
        """H: the h of all blocks' recurrences, followed by the last block's output."""
        return (self.blocks + 1) * self.width


class InterestNetwork(nn.Module):
    """The network of this module. `text` is float32 [N + 1, X], the items' BERT vectors; row 0 is zeros.

    The stored state is h [H] = (h of each block, output of the last) and c [H] = (c of each block, zeros). Through the
    residual path the output holds the newest item, so that short term and long term both reach the score.
    """

    text: Tensor

    def __init__(self, size: NetworkSize, text: Tensor) -> None:
        super().__init__()
        if size.kind not in KINDS or set(size.features) - set(FEATURES):
            raise ValueError(f"network: kind {size.kind!r}, features {size.features}; expected {KINDS}, {FEATURES}")
        self.size = size
        self.register_buffer("text", text, persistent=False)
        self.ids = nn.Embedding(size.items + 1, size.item)
        self.text_tower = _tower(size)
        self.behaviour = nn.Embedding(len(BEHAVIOURS), size.context)
        self.scene = nn.Embedding(size.scenes + 1, size.context)
        self.comment = nn.Linear(size.text, size.comment, bias=False)
        around = 2 * size.context + NUMBERS + size.comment
        self.item_in = nn.Linear(size.item, size.width, bias=False) if size.item != size.width else nn.Identity()
        self.item_norm = nn.LayerNorm(size.width)
        self.gate = nn.Linear(around, size.width)
        self.shift = nn.Linear(around, size.width)
        self.item_dropout = nn.Dropout(size.item_dropout)
        self.position = nn.Embedding(size.window, size.width) if size.kind == "attention" else None
        self.chain = [
            Block(size.kind, size.width, size.dropout, residual=size.residual, feed=size.feed)
            for _ in range(size.blocks)
        ]
        self.blocks = nn.ModuleList(self.chain)
        self.query_item = nn.Linear(size.width, size.item)
        nn.init.normal_(self.ids.weight, std=size.item**-0.5)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        with torch.no_grad():
            self.query_item.weight.mul_(0.1).add_(torch.eye(size.item, size.width))
            self.query_item.bias.zero_()
        mask = torch.zeros(around)
        start = 0
        for name, wide in (
            ("behaviour", size.context), ("scene", size.context), ("value", 2), ("gap", 2), ("comment", size.comment),
        ):  # fmt: skip
            mask[start : start + wide] = float(name in size.features)
            start += wide
        self.register_buffer("used", mask, persistent=False)
        self.action: nn.Embedding | None = None
        if size.reads_actions:  # last, so that all other weights start as they do without actions
            # Row 0 stays zeros, and so does the row of a name that training never sees. Such events are read as if they
            # had no action. The other rows start from zeros too.
            self.action = nn.Embedding(size.actions + 1, size.context, padding_idx=0)
            nn.init.zeros_(self.action.weight)
            self.action_gate = nn.Linear(size.context, size.width, bias=False)
            self.action_shift = nn.Linear(size.context, size.width, bias=False)
        if size.untied:
            self.out_ids = nn.Embedding(size.items + 1, size.item)
            self.out_tower = _tower(size)

    used: Tensor

    def item_vector(self, text: Tensor) -> Tensor:
        """Map text vectors [M, X] to item vectors [M, D] of items unseen in training."""
        return self._finish(self.text_tower(text))

    def output_vector(self, text: Tensor) -> Tensor:
        """Map text vectors [M, X] to what is scored of items unseen in training, [M, D]."""
        return self._finish(self.out_tower(text)) if self.size.untied else self.item_vector(text)

    def item_matrix(self) -> Tensor:
        """Return [N + 1, D]: the vector of every item. Row 0 is UNKNOWN."""
        return self._matrix(self.ids, self.text_tower)

    def output_matrix(self) -> Tensor:
        """Return [N + 1, D]: what is scored of every item. It is `item_matrix` unless the network is untied."""
        return self._matrix(self.out_ids, self.out_tower) if self.size.untied else self.item_matrix()

    def _matrix(self, table: nn.Embedding, tower: nn.Module) -> Tensor:
        ids: Tensor = table.weight
        if self.size.item_text:
            if self.training and self.size.id_dropout:
                keep = torch.rand(len(ids), 1, device=ids.device) >= self.size.id_dropout
                ids = ids * keep
            ids = ids + tower(self.text)
        return self._finish(ids)

    def _finish(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1) if self.size.normalise else vectors

    def inputs(
        self,
        item: Tensor,
        behaviour: Tensor,
        scene: Tensor,
        numbers: Tensor,
        comment: Tensor | None,
        action: Tensor | None = None,
    ) -> Tensor:
        """Turn rows of stream.core.features into what the blocks read, [..., W].

        Scene, behaviour and action enter by a gate and a shift. Scenes therefore share the item's meaning and still
        differ (FiLM: E. Perez et al., AAAI 2018).

        Args:
            item: [..., D].
            behaviour: i64 [...].
            scene: i64 [...].
            numbers: [..., NUMBERS].
            comment: [..., X]. None if there are no texts.
            action: i64 [...]. None if no event has one.
        """
        x: Tensor = self.item_norm(self.item_in(item))
        if self.size.features:
            read = x.new_zeros(*x.shape[:-1], self.size.comment) if comment is None else self.comment(comment)
            parts = (self.behaviour(behaviour), self.scene(scene), numbers, read)
            around = torch.cat(parts, dim=-1) * self.used
            acted = None if self.action is None or action is None else self.action(action)
            gate = 1 + self.gate(around)
            x = x * (gate if acted is None else gate + self.action_gate(acted)) + self.shift(around)
            x = x if acted is None else x + self.action_shift(acted)
        dropped: Tensor = self.item_dropout(x)
        return dropped

    def unroll(self, inputs: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map inputs [B, T, W], h and c [B, H] to outputs of the last block [B, T, W], last h, last c."""
        width = self.size.width
        y = inputs
        if self.position is not None:
            y = y + self.position(torch.arange(y.shape[1], device=y.device))
        h_last, c_last = [], []
        for number, block in enumerate(self.chain):
            part = slice(number * width, (number + 1) * width)
            y, h_block, c_block = block.unroll(y, h[:, part].contiguous(), c[:, part].contiguous())
            h_last.append(h_block)
            c_last.append(c_block)
        return y, torch.cat((*h_last, y[:, -1]), dim=-1), torch.cat((*c_last, c[:, -width:]), dim=-1)

    def step(self, inputs: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Apply one event: inputs [B, W], h and c [B, H] -> next h, next c.

        It uses the weights of `unroll`, with the cells written out.
        """
        width = self.size.width
        y = inputs
        h_next, c_next = [], []
        for number, block in enumerate(self.chain):
            part = slice(number * width, (number + 1) * width)
            y, h_block, c_block = block.step(y, h[:, part], c[:, part])
            h_next.append(h_block)
            c_next.append(c_block)
        return torch.cat((*h_next, y), dim=-1), torch.cat((*c_next, c[:, -width:]), dim=-1)

    def query(self, h: Tensor) -> Tensor:
        """Map stored states [..., H] to the queries [..., D] that are multiplied with the item matrix."""
        return self.project(h[..., -self.size.width :])

    def project(self, output: Tensor) -> Tensor:
        """Map outputs of the last block [..., W] to queries [..., D]."""
        query: Tensor = self.query_item(output)
        return nn.functional.normalize(query, dim=-1) / self.size.temperature if self.size.normalise else query


def _tower(size: NetworkSize) -> nn.Sequential:
    """Return a text tower: [M, X] -> [M, D]."""
    return nn.Sequential(
        nn.Linear(size.text, 2 * size.item), nn.GELU(), nn.Linear(2 * size.item, size.item, bias=False)
    )
