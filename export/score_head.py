"""The hand-written end of score.onnx: popularity, neighbours and texts of the last items, mask, top k.

The sum is that of models/network/blend.py.

Torch's exporter writes what is learned. Here, `k` and the number of live items are inputs, which torch would fix as
constants. Neighbours and log-popularity are inputs, too, so that tables from the stream can take the place of the
bundle's own. What validation chose (their weights in the sum, the decay by age) is inside the graph, so its hash covers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper

from models.network.blend import Blend
from stream.inference.masking import LEAST, MASKED

PREFIX = "tail_"  # of every name made here, so that none collides with torch's


class Tail:
    """Appends nodes to one graph. Values are named after their meaning; `append_tail` shows the shapes."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append one operator and return the name of its only output."""
        made = PREFIX + name
        self.graph.node.append(helper.make_node(operator, inputs, [made], name=f"{PREFIX}node_{name}", **attributes))
        return made

    def constant(self, name: str, value: Any) -> str:
        """Append an initializer and return its name."""
        made = PREFIX + name
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), made))
        return made

    def column(self, value: str, number: int, name: str) -> str:
        """Take column `number` of an int64 [R, 3] as [R, 1]."""
        first, end = self.constant(f"{name}_first", [number]), self.constant(f"{name}_end", [number + 1])
        return self.node("Slice", [value, first, end, self.constant(f"{name}_axis", [1])], name)


def append_tail(graph: GraphProto, item_width: int, blend: Blend, text_width: int = 0) -> None:
    """Extend the graph h -> query [B, D] to the whole of score.onnx (docs/bundle.md), in place.

    Parts with weight 0 are left out. All inputs stay in any case. With `text_width` (P) above 0 each row of `items` is an
    item's vector and its projected text, so that one product gives interest and texts.
    """
    tail = Tail(graph)
    items = tail.node("Transpose", ["items"], "items", perm=[1, 0])  # [D, N]
    query = _texts(tail, blend, item_width, text_width) if text_width else "query"
    products = tail.node("MatMul", [query, items], "products")  # [B, N]
    bias = tail.node("Max", ["bias", tail.constant("masked", MASKED)], "bias")  # [N], finite
    base = _popularity(tail, bias, blend) if blend.prior else bias
    scores = tail.node("Add", [products, base], "live")
    if blend.neighbour:
        scores = _neighbours(tail, scores, blend)
    _best(tail, scores)
    make = helper.make_tensor_value_info
    graph.input.extend(
        (
            make("items", TensorProto.FLOAT, ["N", item_width + text_width]),
            make("bias", TensorProto.FLOAT, ["N"]),
            make("hidden", TensorProto.INT64, ["S", 2]),
            make("recent", TensorProto.INT64, ["R", 3]),
            make("count", TensorProto.INT64, ["B"]),
            make("k", TensorProto.INT64, [1]),
            make("near", TensorProto.INT32, ["M", "W"]),  # half the size of int64
            make("weight", TensorProto.FLOAT, ["M", "W"]),
            make("popularity", TensorProto.FLOAT, ["M"]),
        )
    )
    del graph.output[:]
    graph.output.extend(
        (make("scores", TensorProto.FLOAT, ["B", "K"]), make("rows", TensorProto.INT64, ["B", "K"])),
    )


def _popularity(tail: Tail, bias: str, blend: Blend) -> str:
    """Append bias + prior * evidence / (evidence + count) * log-popularity, [B, N].

    The log-popularity of rows behind those of the tables is 0.
    """
    first, one = tail.constant("zero", [0]), tail.constant("one", [1])
    tabled = tail.node("Shape", ["popularity"], "tabled")
    later = tail.node("Sub", [tail.node("Shape", ["bias"], "rows"), tabled], "later")
    popularity = tail.node("Mul", ["popularity", tail.constant("prior", np.float32(blend.prior))], "popularity")
    padded = tail.node("Pad", [popularity, tail.node("Concat", [first, later], "pads", axis=0)], "padded")
    line = tail.node("Unsqueeze", [padded, first], "line")  # [1, N]
    evidence = tail.constant("evidence", np.float32(blend.evidence))
    known = tail.node("Cast", ["count"], "known", to=TensorProto.FLOAT)
    share = tail.node("Div", [evidence, tail.node("Add", [evidence, known], "sum")], "share")
    share = tail.node("Unsqueeze", [share, one], "shares")  # [B, 1]
    return tail.node("Gemm", [share, line, bias], "with_prior")  # one pass over [B, N] for product and bias


def _texts(tail: Tail, blend: Blend, item_width: int, text_width: int) -> str:
    """Append the decayed mean of the recent items' projected texts, times its weight, to the query: [B, D + P].

    For each user the texts are added in the order of `recent`, independent of the other users in the batch.
    """
    one, unit = tail.constant("text_one", [1]), tail.constant("text_least", np.float32(1.0))
    user = tail.column("recent", 0, "text_user")  # [R, 1]
    rows = tail.node("Squeeze", [tail.column("recent", 1, "text_row"), one], "text_rows")  # [R]
    age = tail.node("Squeeze", [tail.column("recent", 2, "text_age"), one], "text_ages")
    share = tail.node("Gather", [tail.constant("text_decay", blend.text_decay()), age], "text_share")  # [R]
    vectors = tail.node("Gather", ["items", rows], "text_vectors")  # [R, D + P]
    bounds = tail.constant("text_first", [item_width]), tail.constant("text_end", [item_width + text_width])
    texts = tail.node("Slice", [vectors, *bounds, one], "texts")  # [R, P]
    if blend.text_new != blend.text:  # texts of new items are longer (models.network.blend.scaled_texts)
        length = tail.node("ReduceL2", [texts, one], "text_length", keepdims=1)
        texts = tail.node("Div", [texts, tail.node("Max", [length, unit], "text_longer")], "text_unit")
    parts = tail.node("Mul", [texts, tail.node("Unsqueeze", [share, one], "text_shares")], "text_parts")
    users = tail.node("Shape", ["count"], "text_users")
    size = tail.node("Concat", [users, tail.constant("text_width", [text_width])], "text_size", axis=0)
    none = tail.constant("text_none", np.zeros(1, np.float32))
    sums = tail.node("Expand", [none, size], "text_empty"), tail.node("Expand", [none, users], "text_nothing")
    total = tail.node("ScatterND", [sums[0], user, parts], "text_total", reduction="add")  # [B, P]
    whole = tail.node("ScatterND", [sums[1], user, share], "text_whole", reduction="add")  # [B]
    # The newest choice has share 1, so that the sum is below 1 only if there is none.
    whole = tail.node("Max", [whole, unit], "text_divisor")
    factor = tail.node("Div", [tail.constant("text", np.float32(blend.text)), whole], "text_factor")
    mean = tail.node("Mul", [total, tail.node("Unsqueeze", [factor, one], "text_factors")], "text_mean")
    return tail.node("Concat", ["query", mean], "text_query", axis=1)


def _neighbours(tail: Tail, scores: str, blend: Blend) -> str:
    """Add the faded weights of the recent items' neighbours to the scores [B, N].

    For each user they are added in the order of `recent`, independent of the other users in the batch. Rows behind those
    of the tables have no neighbours, as row 0.
    """
    user = tail.column("recent", 0, "user")  # [R, 1]
    rows = tail.node("Squeeze", [tail.column("recent", 1, "row"), tail.constant("second", [1])], "recent_rows")  # [R]
    known = tail.node("Less", [rows, tail.node("Shape", ["near"], "tabled_rows", start=0, end=1)], "is_known")
    rows = tail.node("Where", [known, rows, tail.constant("unknown", 0)], "known_recent")
    decay = tail.node("Gather", [tail.constant("decay", blend.decay()), tail.column("recent", 2, "age")], "faded")
    weight = tail.node("Gather", ["weight", rows], "weights")  # [R, W]
    updates = tail.node("Mul", [weight, decay], "updates")
    near = tail.node("Gather", ["near", rows], "near")
    near = tail.node("Cast", [near], "near_rows", to=TensorProto.INT64)  # [R, W]
    users = tail.node("Expand", [user, tail.node("Shape", [near], "near_shape")], "users")
    last = tail.constant("last", [-1])
    pairs = [tail.node("Unsqueeze", [one, last], f"{one}_pair") for one in (users, near)]
    positions = tail.node("Concat", pairs, "places", axis=-1)  # [R, W, 2]
    return tail.node("ScatterND", [scores, positions, updates], "blended", reduction="add")


def _best(tail: Tail, scores: str) -> None:
    """Put MASKED at the hidden pairs, take the k best, then put -inf at empty places (stream/inference/masking.py)."""
    start, end = tail.constant("start", [0]), tail.constant("end", [1])
    count = tail.node("Slice", [tail.node("Shape", ["hidden"], "hidden_shape"), start, end, start], "pairs")  # [S]
    updates = tail.node("Expand", [tail.constant("hides", np.array([MASKED])), count], "hide")
    scores = tail.node("ScatterND", [scores, "hidden", updates], "open")
    best = PREFIX + "best"
    top = helper.make_node("TopK", [scores, "k"], [best, "rows"], name=f"{PREFIX}top", axis=-1, largest=1, sorted=1)
    tail.graph.node.append(top)
    none = tail.node("LessOrEqual", [best, tail.constant("least", LEAST)], "none")
    nothing = tail.constant("nothing", np.float32(-np.inf))
    tail.graph.node.append(helper.make_node("Where", [none, nothing, best], ["scores"], name=f"{PREFIX}settled"))
