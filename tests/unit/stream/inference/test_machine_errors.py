"""A GPU without memory is the machine's fault, never the bundle's."""

from __future__ import annotations

from typing import Any

import onnxruntime
import pytest

from stream.core.errors import BundleError, FreshetError
from stream.inference import runtime
from stream.inference.machine_errors import machine_fails, no_memory


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=x", "the GPU is out of memory: "),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", "the GPU is out of memory: "),
        ("Failed to allocate memory for requested buffer of size 3221225472", "out of memory: "),
        ("CUDA failure 700: an illegal memory access was encountered", "the accelerator fails: "),
    ],
)
def test_a_graph_that_the_machine_cannot_open_is_no_broken_bundle(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuses)
    with pytest.raises(FreshetError, match=f"^step.onnx: {message}") as caught:
        runtime.session("step.onnx", b"", "cpu")
    assert caught.value.exit_code == 70


def test_a_graph_that_is_broken_is_the_bundles_fault() -> None:
    with pytest.raises(BundleError, match=r"^step.onnx: ONNX Runtime refuses it: "):
        runtime.session("step.onnx", b"no graph", "cpu")


def test_other_errors_are_not_the_machines() -> None:
    assert machine_fails(ValueError("shape mismatch")) == ""
    assert not no_memory(ValueError("shape mismatch"))
    assert no_memory(MemoryError())
