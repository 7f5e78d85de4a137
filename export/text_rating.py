"""Exports text rating as a graph: the layers above the shared lower layers of the text network, with golden vectors.

text.onnx then also outputs the shared layers' results. A comment without a value therefore costs only the tuned layers,
not a second BERT. The signatures are in docs/bundle.md.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.export import Dim

from export.graphs import TextVector, export_graph
from models.text_rating.reading import Reading
from models.text_rating.tuned import TunedReader
from stream.core.errors import DataError
from stream.inference.bundle import ReadingEntry

Arrays = dict[str, NDArray[Any]]
SENTENCES: Final = (
    "Great. I love it and use it every day.",
    "Broke after a week. A waste of money!",
    "It is okay, nothing special, but it does what it says.",
    "gut",
)


class TextAndTrunk(nn.Module):
    """Returns TextVector and the outputs of the first `layers` layers: [B, L] -> [B, T], [B, L, T]."""

    def __init__(self, bert: nn.Module, layers: int) -> None:
        super().__init__()
        self.text = TextVector(bert)
        self.layers = layers

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        out = self.text.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, output_hidden_states=True
        )
        return self.text.pool(out.last_hidden_state, attention_mask), out.hidden_states[self.layers]


class RatingValue(nn.Module):
    """Maps outputs of the shared layers [B, L, T] and the mask [B, L] to ratings [B] on `scale`."""

    def __init__(self, reading: Reading, scale: tuple[float, float]) -> None:
        super().__init__()
        self.reader: TunedReader = reading.reader
        self.layers = reading.settings.frozen
        (low, high), (least, most) = reading.scale, scale
        self.stretch = (most - least) / (high - low)
        self.shift = least - low * self.stretch
        self.least, self.most = scale

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        value = self.reader.head(self.reader.vector(hidden, attention_mask, self.layers))
        on_scale: Tensor = (value * self.stretch + self.shift).clamp(self.least, self.most)
        return on_scale


def text_and_trunk_graph(bert: Any, reading: Reading) -> onnx.ModelProto:
    """Return text.onnx of a bundle that reads ratings.

    Raises DataError if text rating shares no layers with the text network.
    """
    if not reading.settings.frozen:
        raise DataError(
            "text rating: frozen is 0, so it shares no layers with the text network and cannot be served; "
            "expected at least 1 frozen layer"
        )
    bert.set_attn_implementation("eager")
    ids = torch.ones(2, 16, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": ids.clone(), "token_type_ids": torch.zeros_like(ids)}
    extent = {0: Dim("B", min=1), 1: Dim("L", min=2, max=512)}
    module = TextAndTrunk(bert, reading.settings.frozen)
    return export_graph(module, inputs, {name: dict(extent) for name in inputs}, ("vector", "hidden"))


def rating_graph(reading: Reading, scale: tuple[float, float]) -> onnx.ModelProto:
    """Return rating.onnx. `scale` is the bundle's rating scale."""
    reading.reader.bert.set_attn_implementation("eager")
    mask = torch.ones(2, 16, dtype=torch.int64)
    width = reading.reader.bert.config.hidden_size
    inputs = {"hidden": torch.zeros(2, 16, width), "attention_mask": mask}
    batch, length = Dim("B", min=1), Dim("L", min=2, max=512)
    extents = {name: {0: batch, 1: length} for name in inputs}
    return export_graph(RatingValue(reading, scale), inputs, extents, ("value",))


def reading_golden(
    reading: Reading, scale: tuple[float, float], bert: Any, tokenizer: bytes, text: Arrays
) -> dict[str, Arrays]:
    """Compute golden vectors with torch: `rating` for the graph alone, `reading` from sentences through both graphs.

    `text` holds the golden vectors of text.onnx. `reading` proves its second output: the components are large, and what
    matters is the rating.
    """
    module = RatingValue(reading, scale).eval()
    trunk = TextAndTrunk(bert, reading.settings.frozen).eval()
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.inference_mode():
        _, hidden = trunk(*(torch.from_numpy(text[name]) for name in names))
        mask = torch.from_numpy(text["attention_mask"])
        golden = {
            "rating": {
                "hidden": hidden.numpy(), "attention_mask": text["attention_mask"], "value": module(hidden, mask).numpy(),
            },
        }  # fmt: skip
        values = []
        for sentence in SENTENCES:
            ids = torch.tensor([Tokenizer.from_str(tokenizer.decode()).encode(sentence).ids])
            _, hidden = trunk(ids, torch.ones_like(ids), torch.zeros_like(ids))
            values.append(module(hidden, torch.ones_like(ids)).item())
    golden["reading"] = {"sentences": np.array(SENTENCES), "values": np.array(values, np.float32)}
    return golden


def reading_entry(reading: Reading) -> ReadingEntry:
    """Return the manifest's entry about text rating."""
    return ReadingEntry(
        layers=reading.settings.frozen, scale=reading.scale, data=dict(reading.data), metrics=dict(reading.metrics)
    )
