"""What a worker computes with: the bundle's models and encoder on an allowed provider, and their threads."""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from stream.core.diversity import Diversity
from stream.core.errors import MachineError, SettingsError
from stream.core.filters import parse
from stream.core.placements import Placement
from stream.inference import runtime
from stream.inference.bundle import Bundle
from stream.inference.machine_errors import machine_fails
from stream.inference.models import Models, open_models
from stream.inference.runtime import Policy
from stream.inference.text_encoder import Encoder, open_encoder
from stream.settings import DEFAULT_PLACEMENT, Settings, placement_of


def step_back() -> None:
    """Lower the calling thread's priority, so that its work waits rather than all slates if cores are scarce."""
    if sys.platform == "linux":  # elsewhere priorities belong to processes
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


@dataclass(frozen=True)
class Threads:
    """One thread for the step and the scores, one for comment texts, and one for texts that have waited too long."""

    models: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "models"))
    texts: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "texts", initializer=step_back))
    urgent: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "urgent-texts"))


@dataclass(frozen=True)
class Opened:
    """Sessions on one provider, checked with the golden vectors.

    Attributes:
        models: The step and score sessions.
        encoder: The text sessions.
        why_cpu: The reason why `auto` has chosen the CPU; "" otherwise.
    """

    models: Models
    encoder: Encoder
    why_cpu: str = ""


def open_for(bundle: Bundle, policy: Policy, threads: Threads, like: Encoder | None = None) -> Opened:
    """Open the bundle's sessions on a provider that `policy` allows.

    `auto` uses the CPU if the GPU is out of memory or fails. The encoder shares sessions of the same graphs with `like`.

    Raises the errors of `stream.inference.models.open_models`, and MachineError if the machine fails.
    """
    if runtime.resolve(policy) == "cuda":
        try:
            return _open_on_cuda(bundle, threads, like)
        except Exception as error:  # what ONNX Runtime raises has no common base
            short = str(error) if isinstance(error, MachineError) else machine_fails(error)
            if not short:
                raise
            if policy == "cuda":
                raise MachineError(f"provider cuda: {short}") from None
            return Opened(open_models(bundle, "cpu"), open_encoder(bundle, "cpu", like), short)
    why = runtime.why_no_cuda() if policy == "auto" else ""
    return Opened(open_models(bundle, "cpu"), open_encoder(bundle, "cpu", like), why)


def placements_of(settings: Settings, bundle: Bundle) -> dict[str, Placement]:
    """Return name -> placement, `default` first."""
    found = {}
    for name in settings.placement_names:
        own = placement_of(settings, name)
        strength = bundle.diversity if own.diversity is None else own.diversity
        found[name] = Placement(
            name="" if name == DEFAULT_PLACEMENT else name,
            size=settings.slate_size if own.size is None else own.size,
            filtered=None if own.filter is None else parse(own.filter),
            diversity=Diversity(strength, settings.diversity_candidates),
            filter_seen=bool(own.filter_seen),
        )
    return found


def published_of(settings: Settings, bundle: Bundle) -> tuple[Placement, ...]:
    """Return the placements for which workers publish slates, in the order in which they are written."""
    found = placements_of(settings, bundle)
    return tuple(found[name] for name in settings.published_in_order)


def check_fit(settings: Settings, bundle: Bundle) -> None:
    """Raise SettingsError if a setting contradicts the bundle: the model would take each rating for another one."""
    if settings.rating_scale != bundle.spec.rating_scale:
        found, expected = json.dumps(settings.rating_scale), json.dumps(bundle.spec.rating_scale)
        raise SettingsError(
            f"rating_scale: found {found}, expected {expected}, on which the bundle {bundle.id[:12]}... was trained; set "
            f"FRESHET_RATING_SCALE='{expected}' for the worker and all other commands, or point CURRENT at a bundle with {found}"
        )


def _open_on_cuda(bundle: Bundle, threads: Threads, like: Encoder | None) -> Opened:
    """Open sessions on CUDA, and call them once in each thread that serves events.

    ONNX Runtime allocates a thread's CUDA resources at its first call. Otherwise that call could fail after partitions
    are claimed. (The catalogue's thread encodes new items before that.)
    """
    models, encoder = open_models(bundle, "cuda"), open_encoder(bundle, "cuda", like)
    threads.models.submit(models.check_golden).result()
    for texts in (threads.texts, threads.urgent):
        texts.submit(encoder.check_golden, bundle).result()
    return Opened(models, encoder)
