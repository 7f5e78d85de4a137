"""What a worker computes with: the bundle's models and encoder, on what the setting `provider` allows, and their threads."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from stream.core.errors import MachineError
from stream.inference import runtime
from stream.inference.bundle import Bundle
from stream.inference.machine_errors import machine_fails
from stream.inference.models import Models, open_models
from stream.inference.runtime import Policy
from stream.inference.text_encoder import Encoder, open_encoder


def _step_back() -> None:
    """Lower the calling thread's priority: where cores are short, a comment's text waits rather than everybody's slates."""
    if sys.platform == "linux":  # elsewhere priorities belong to processes
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


@dataclass(frozen=True)
class Threads:
    """One for the step and the scores, one for the texts of comments, one for the texts that have waited too long for it."""

    models: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "models"))
    texts: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "texts", initializer=_step_back))
    urgent: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "urgent-texts"))


@dataclass(frozen=True)
class Opened:
    """Sessions on one provider, proved by the golden vectors. why_cpu: why they are on the CPU where `auto` was to choose."""

    models: Models
    encoder: Encoder
    why_cpu: str = ""


def open_for(bundle: Bundle, policy: Policy, threads: Threads) -> Opened:
    """The bundle's sessions on what `policy` allows; `auto` takes the CPU where the GPU has no memory left, or fails.

    Raises as `stream.inference.models.open_models` does, MachineError where the machine fails.
    """
    if runtime.resolve(policy) == "cuda":
        try:
            return _open_on_cuda(bundle, threads)
        except Exception as error:  # what ONNX Runtime raises has no common base
            short = str(error) if isinstance(error, MachineError) else machine_fails(error)
            if not short:
                raise
            if policy == "cuda":
                raise MachineError(f"provider cuda: {short}") from None
            return Opened(open_models(bundle, "cpu"), open_encoder(bundle, "cpu"), short)
    return Opened(
        open_models(bundle, "cpu"), open_encoder(bundle, "cpu"), runtime.why_no_cuda() if policy == "auto" else ""
    )


def _open_on_cuda(bundle: Bundle, threads: Threads) -> Opened:
    """The threads that serve events call their sessions here: ONNX Runtime makes what CUDA needs for a thread at its first call,
    which else would fail once partitions are claimed. (That of the catalogue encodes new items before they are.)"""
    models, encoder = open_models(bundle, "cuda"), open_encoder(bundle, "cuda")
    threads.models.submit(models.check_golden).result()
    for texts in (threads.texts, threads.urgent):
        texts.submit(encoder.check_golden, bundle).result()
    return Opened(models, encoder)
