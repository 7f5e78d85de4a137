"""What stream.inference.onnx_check refuses in an ONNX file, without the onnx package; here that package makes the files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from stream.core.errors import BundleError
from stream.inference import onnx_check


def model(domain: str = "", opset: int = 20, weight: float = 1.0) -> onnx.ModelProto:
    """x + w."""
    made = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"], domain=domain)],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array([weight, 2], np.float32), "w")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


def external() -> onnx.ModelProto:
    made = model()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return made


def in_branch(inner: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph hidden in the branch of an If."""
    made = model()
    made.graph.node.append(
        helper.make_node("If", ["c"], ["z"], then_branch=inner.graph, else_branch=model().graph, name="hidden")
    )
    return made


def functions() -> onnx.ModelProto:
    made = model()
    made.functions.add(name="mine", domain="mine")
    return made


def sparse() -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.add()
    made.graph.sparse_initializer[0].dims.append(2)
    return made


def custom_import() -> onnx.ModelProto:
    made = model()
    made.opset_import.add(domain="com.microsoft", version=1)
    return made


def test_a_plain_graph_passes() -> None:
    onnx_check.check("a.onnx", model().SerializeToString(), 20)
    onnx_check.check("a.onnx", in_branch(model()).SerializeToString(), 20)
    onnx_check.check("a.onnx", model(weight=-np.inf).SerializeToString(), 20)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (external, "external data"),
        (lambda: in_branch(external()), "external data"),
        (lambda: model(domain="com.microsoft"), "domain 'com.microsoft'"),
        (lambda: in_branch(model(domain="mine")), "domain 'mine'"),
        (custom_import, "operator sets"),
        (lambda: model(opset=21), "version 20"),
        (functions, "functions"),
        (sparse, "sparse"),
        (lambda: model(weight=np.nan), "'w' holds NaN"),
        (lambda: onnx.ModelProto(), "no graph"),
    ],
)
def test_refusals_name_file_and_reason(make: Callable[[], onnx.ModelProto], reason: str) -> None:
    with pytest.raises(BundleError, match=reason) as caught:
        onnx_check.check("a.onnx", make().SerializeToString(), 20)
    assert str(caught.value).startswith("a.onnx: ")


@pytest.mark.parametrize("cut", [1, 5, 30, 60])
def test_a_cut_file_is_not_readable(cut: int) -> None:
    with pytest.raises(BundleError, match=r"^a\.onnx: "):
        onnx_check.check("a.onnx", model().SerializeToString()[:-cut], 20)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_bundle_error(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"^a\.onnx: "):
        onnx_check.check("a.onnx", content, 20)
