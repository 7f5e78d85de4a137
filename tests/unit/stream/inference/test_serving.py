"""Which provider a worker computes on: a GPU without memory, or one that fails, is left by `auto` and named by `cuda`."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from stream.core.errors import BundleError, MachineError
from stream.inference import runtime as provider
from stream.inference import serving
from stream.inference.serving import Threads, open_for
from tests.unit.stream.observability.test_status import BUNDLE

OUT = "CUBLAS failure 3: the resource allocation failed ; GPU=0 ; expr=cublasCreate(&cublas_handle_);"


@dataclass
class Sessions:
    """In the place of Models and of Encoder. fails: what a call raises on a thread that is not the first one's."""

    provider: str
    fails: Exception | None = None
    threads: list[str] = field(default_factory=list)

    def check_golden(self, *_: Any) -> None:
        self.threads.append(threading.current_thread().name.rsplit("_", 1)[0])
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the sessions raise: `open` at their opening on CUDA, `call` at a call there."""
    raises: dict[str, Any] = {"open": None, "call": None}

    def make(_: Any, name: str, like: Any = None) -> Sessions:
        if name == "cuda" and raises["open"] is not None:
            raise raises["open"]
        return Sessions(name, raises["call"] if name == "cuda" else None)

    monkeypatch.setattr(provider, "resolve", lambda policy: "cpu" if policy == "cpu" else "cuda")
    monkeypatch.setattr(serving, "open_models", make)
    monkeypatch.setattr(serving, "open_encoder", make)
    return raises


@pytest.mark.parametrize("at", ["open", "call"])
@pytest.mark.parametrize("error", [MachineError("step.onnx: the GPU is out of memory"), RuntimeError(OUT)])
def test_where_the_gpu_fails_auto_takes_the_cpu_and_cuda_says_so(
    at: str, error: Exception, opened: dict[str, Any]
) -> None:
    opened[at] = error
    found = open_for(BUNDLE, "auto", Threads())
    assert (found.models.provider, found.encoder.provider) == ("cpu", "cpu")
    assert "the GPU is out of memory" in found.why_cpu
    with pytest.raises(MachineError, match=r"^provider cuda: .*the GPU is out of memory"):
        open_for(BUNDLE, "cuda", Threads())


def test_a_broken_bundle_is_no_reason_to_take_the_cpu(opened: dict[str, Any]) -> None:
    opened["open"] = BundleError("step.onnx: 3 float16 steps away from its golden vectors, expected 2 at most")
    with pytest.raises(BundleError):
        open_for(BUNDLE, "auto", Threads())


def test_every_thread_that_will_call_them_has_proved_them(opened: dict[str, Any]) -> None:
    found = open_for(BUNDLE, "auto", Threads())
    models: Any = found.models
    encoder: Any = found.encoder
    assert models.threads == ["models"]
    assert encoder.threads == ["texts", "urgent-texts"]
    assert found.why_cpu == ""
