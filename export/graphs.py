"""Exports the trained torch modules as ONNX graphs (step, score, text, item) with the signatures of docs/bundle.md.

Torch's exporter writes the learned part. The tail of the score graph is written by hand (export/score_head.py). Every
graph is stripped, because the exporter leaves stack traces with source paths in it.
"""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from export.score_head import append_tail
from models.network.blend import Blend
from models.network.network import STATE_LIMIT, InterestNetwork
from models.network.projection import Project, Projection
from stream.core.features import NUMBERS
from stream.inference.bundle import OPSET


class Step(nn.Module):
    """Applies one event for each of B users. States go in and out as float16; the computation is float32."""

    def __init__(self, network: InterestNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, item: Tensor, behaviour: Tensor, scene: Tensor, numbers: Tensor, comment: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.next(self.network.inputs(item, behaviour, scene, numbers, comment), h, c)

    def next(self, row: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next h and c, given the blocks' input [B, W] and the states."""
        h, c = self.network.step(row, h.float(), c.float())
        return h.clamp(-STATE_LIMIT, STATE_LIMIT).half(), c.clamp(-STATE_LIMIT, STATE_LIMIT).half()


class ActingStep(Step):
    """`Step` for a network that reads actions. It has one more input, after `scene`."""

    def forward(  # type: ignore[override]
        self,
        item: Tensor,
        behaviour: Tensor,
        scene: Tensor,
        action: Tensor,
        numbers: Tensor,
        comment: Tensor,
        h: Tensor,
        c: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return self.next(self.network.inputs(item, behaviour, scene, numbers, comment, action), h, c)


def step_module(network: InterestNetwork) -> Step:
    """Return the module of step.onnx.

    Its inputs are in the order of stream.core.features.InputRows, followed by h and c. `action` exists only if the
    network reads it.
    """
    return ActingStep(network) if network.size.reads_actions else Step(network)


class Query(nn.Module):
    """Maps float16 states [B, H] to the queries [B, D] that are multiplied with the item matrix."""

    def __init__(self, network: InterestNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, h: Tensor) -> Tensor:
        return self.network.query(h.float())


class ItemTower(nn.Module):
    """Maps text vectors [B, T] to item vectors [B, D]."""

    def __init__(self, network: InterestNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, text: Tensor) -> Tensor:
        return self.network.item_vector(text)


class HeadedTower(nn.Module):
    """The tower of a network with output vectors: also returns those, and the projected texts if there is a projection."""

    def __init__(self, network: InterestNetwork, projection: Projection | None, more: float) -> None:
        super().__init__()
        self.network = network
        self.project = None if projection is None else Project(projection)
        self.more = more

    def forward(self, text: Tensor) -> tuple[Tensor, ...]:
        both = self.network.item_vector(text), self.network.output_vector(text)
        return both if self.project is None else (*both, self.project(text) * self.more)


class ProjectingTower(nn.Module):
    """`ItemTower` for a sum with texts. It also returns the projected texts [B, P], `more` times as long as unit length."""

    def __init__(self, network: InterestNetwork, projection: Projection, more: float) -> None:
        super().__init__()
        self.network = network
        self.project = Project(projection)
        self.more = more

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.item_vector(text), self.project(text) * self.more


class TextVector(nn.Module):
    """BERT, mean pooling over real tokens and L2 norm: [B, L] -> [B, T] (Sentence-BERT, Reimers and Gurevych 2019)."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        out = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return self.pool(out.last_hidden_state, attention_mask)

    def pool(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Pool the outputs of the last layer [B, L, T] into vectors [B, T]."""
        weight = attention_mask[..., None].to(tokens.dtype)
        mean = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=-1)


def step_graph(network: InterestNetwork) -> onnx.ModelProto:
    """Return step.onnx."""
    size, rows = network.size, 3
    index = torch.zeros(rows, dtype=torch.int64)
    state = torch.zeros(rows, size.hidden, dtype=torch.float16)
    inputs = {
        "item": torch.zeros(rows, size.item),
        "behaviour": index,
        "scene": index.clone(),  # a separate tensor: the exporter merges inputs that are the same tensor
        **({"action": index.clone()} if size.reads_actions else {}),
        "numbers": torch.zeros(rows, NUMBERS),
        "comment": torch.zeros(rows, size.text),
        "h": state,
        "c": state.clone(),
    }
    batch = Dim("B", min=1)
    return export_graph(step_module(network), inputs, {name: {0: batch} for name in inputs}, ("h_next", "c_next"))


def item_graph(network: InterestNetwork, projection: Projection | None = None, more: float = 1.0) -> onnx.ModelProto:
    """Return item.onnx. With a projection it has the output `projected`, of length `more`; with output vectors also `output`."""
    inputs, extents = {"text": torch.zeros(3, network.size.text)}, {"text": {0: Dim("B", min=1)}}
    if network.size.untied:
        names = ("item", "output") if projection is None else ("item", "output", "projected")
        return export_graph(HeadedTower(network, projection, more), inputs, extents, names)
    if projection is None:
        return export_graph(ItemTower(network), inputs, extents, ("item",))
    return export_graph(ProjectingTower(network, projection, more), inputs, extents, ("item", "projected"))


def text_graph(bert: Any) -> onnx.ModelProto:
    """Return text.onnx for a transformers BertModel."""
    bert.set_attn_implementation("eager")  # a third fewer operators than the decomposed fused form
    ids = torch.ones(2, 16, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": ids.clone(), "token_type_ids": torch.zeros_like(ids)}
    extent = {0: Dim("B", min=1), 1: Dim("L", min=2, max=512)}
    return export_graph(TextVector(bert), inputs, {name: dict(extent) for name in inputs}, ("vector",))


def score_graph(network: InterestNetwork, blend: Blend, text_width: int = 0) -> onnx.ModelProto:
    """Return score.onnx: query(h) @ items.T, the other terms of models/network/blend.py, the masks, and top k.

    `text_width` is P; 0 for no text term.
    """
    state = torch.zeros(3, network.size.hidden, dtype=torch.float16)
    model = export_graph(Query(network), {"h": state}, {"h": {0: Dim("B", min=1)}}, ("query",))
    append_tail(model.graph, network.size.item, blend, text_width)
    onnx.checker.check_model(model, full_check=True)
    return model


def serialise(model: onnx.ModelProto) -> bytes:
    """Return the bytes of the file. The same graph always gives the same bytes."""
    return bytes(model.SerializeToString(deterministic=True))


def export_graph(
    module: nn.Module, inputs: dict[str, Tensor], extents: dict[str, dict[int, Dim]], outputs: tuple[str, ...]
) -> onnx.ModelProto:
    """Run torch's exporter silently, then strip and check the graph.

    `extents` maps each input to its dynamic axes, and each axis to its name and bounds.
    """
    # The exporter prints and warns about torchvision and about axes with equal constraints. Neither needs any action.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(extents.values()),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model: onnx.ModelProto = program.model_proto
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def strip(model: onnx.ModelProto) -> None:
    """Remove names of source files, stack traces and intermediate shapes, in place."""
    parts: list[Any] = [
        model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output,
    ]  # fmt: skip
    for part in parts:
        for field in ("metadata_props", "doc_string"):
            part.ClearField(field)
    model.graph.ClearField("value_info")
