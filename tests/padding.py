"""The score graph as CUDA runs it: its TopK pads the rows of scores and, where fewer than k are better, returns the padding.

And as it was exported before: masked by -inf, which ranks below the padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from stream.inference.masking import MASKED

PADDING = np.finfo(np.float32).min  # -3.4e38: better than -inf
PLACES = 13  # 51 rows are padded to 64


def padded(score: bytes) -> bytes:
    """score.onnx with 13 rows of padding behind the catalogue's, where its TopK looks."""
    model: Any = onnx.load_from_string(score)
    graph = model.graph
    top = next(node for node in graph.node if node.op_type == "TopK")
    graph.initializer.extend(
        (
            numpy_helper.from_array(np.array([0, 0, 0, PLACES], np.int64), "padding_places"),
            numpy_helper.from_array(np.array(PADDING, np.float32), "padding_value"),
        )
    )
    pad = helper.make_node("Pad", [top.input[0], "padding_places", "padding_value"], ["padding_scores"], name="padding")
    graph.node.insert(list(graph.node).index(top), pad)
    top.input[0] = "padding_scores"
    return bytes(model.SerializeToString())


def as_exported_before(score: bytes) -> bytes:
    """score.onnx with -inf as its mask."""
    model: Any = onnx.load_from_string(score)
    found = [one for one in model.graph.initializer if (numpy_helper.to_array(one) == MASKED).all()]
    assert sorted(one.name for one in found) == ["tail_hides", "tail_masked"]
    for one in found:
        one.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(one), -np.inf), one.name))
    return bytes(model.SerializeToString())
