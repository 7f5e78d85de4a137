"""Fits any InterestNetwork to TrainingData: epochs, early stopping, checkpoints.

It is the base of freshet, SASRec and GRU4Rec.
"""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from models.data.histories import Histories
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.network.network import InterestNetwork, NetworkSize
from models.network.scorer import interest_scorer
from models.training import distributed
from models.training.degenerate import require_following
from models.training.sequential.presets import PRESETS, suited, texts_given
from models.training.start import Start
from models.training.trainer import FitSettings, Fitting
from stream.core.errors import DataError

SLOWER: Final = 0.5
"""Factor of the learning rate if training starts from a run."""


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch.

    Attributes:
        epoch: Number of the epoch, from 0.
        loss: Nats per state.
        hit10: HR@10 on the validation part.
        ndcg10: NDCG@10 on the validation part.
        seconds: Time since the start.
    """

    epoch: int
    loss: float
    hit10: float
    ndcg10: float
    seconds: float


@dataclass(frozen=True)
class NetworkRanker:
    """A fitted network, in eval mode. `reason` is why fitting ended."""

    network: InterestNetwork
    curve: list[Epoch] = field(default_factory=list)
    reason: str = ""

    def scorer(self, rows: Histories) -> Scorer:
        """See models.interfaces.Ranker."""
        return interest_scorer(self.network, rows)


class NetworkModel:
    """A network with its settings. A named preset, or one chosen by the data, is overridden by single settings.

    Args:
        name: Name of the model.
        preset: Name of a preset; `auto` chooses by the data.
        network: Arguments of NetworkSize besides items and scenes.
        fit: Fields of FitSettings.
        start: What the network starts from; None: random weights.
    """

    family = "deep"

    def __init__(
        self,
        name: str,
        preset: str = "auto",
        network: Mapping[str, Any] | None = None,
        fit: Mapping[str, Any] | None = None,
        start: Start | None = None,
    ) -> None:
        self._name = name
        self._start = start
        self._preset = preset
        self._network = dict(network or {})
        self._fit = dict(fit or {})

    @property
    def name(self) -> str:
        """The model's name on the command line."""
        return self._name

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the result."""
        return {
            "preset": self._preset,
            "presets": {
                name: {"network": preset.network, "fit": asdict(preset.fit)} for name, preset in PRESETS.items()
            },
            "network": self._network,
            "fit": self._fit,
            **({} if self._start is None else {"start": self._start.key()}),
        }

    def size_and_fit(self, training: TrainingData) -> tuple[NetworkSize, FitSettings]:
        """Return the complete settings for this data. Raises DataError if the preset is not that of the run to start from."""
        if self._start is not None:
            return self._start.network.size, self._fit_from(self._start.network.size)
        preset = PRESETS[suited(training) if self._preset == "auto" else self._preset]
        chosen = {"item_text": texts_given(training)} | preset.network | self._network
        spec = training.spec
        size = NetworkSize(
            items=len(training.items),
            scenes=len(spec.scenes),
            text=training.text.shape[1],
            actions=len(spec.actions),
            **chosen,
        )
        return size, FitSettings(**(asdict(preset.fit) | self._fit))

    def _fit_from(self, size: NetworkSize) -> FitSettings:
        """Return how to fit a network that starts from a run of this size."""
        for name, preset in PRESETS.items():
            differs = [key for key, value in preset.network.items() if getattr(size, key) != value]
            if self._preset == name and differs:
                raise DataError(
                    f"--preset {name}: the run to start from has another {', '.join(differs)}; leave --preset out, or train "
                    "without --from"
                )
        preset = PRESETS["sparse" if size.normalise else "dense"]
        slower = {"rate": SLOWER * preset.fit.rate}
        return FitSettings(**(asdict(preset.fit) | slower | self._fit))

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> NetworkRanker:
        """See models.interfaces.Model. On one thread, the same seed and data give the same bits (unless time runs out).

        Raises DataError if no choice follows another event, or if the first epoch diverges.
        """
        require_following(self._name, training)
        size, settings = self.size_and_fit(training)
        torch.manual_seed(seed)
        if self._start is None:
            network = InterestNetwork(size, torch.from_numpy(training.text))
        else:
            network = copy.deepcopy(self._start.network).requires_grad_(True)
        network = network.to(distributed.training_device())
        return run(Fitting(network, training, settings, seed, self._start), settings, report, checkpoint, self._name)


def run(
    fitting: Fitting, settings: FitSettings, report: ProgressCallback, checkpoint: Path | None, name: str = "network"
) -> NetworkRanker:
    """Run epochs until one of four reasons to stop. Return the best network by validation NDCG@10.

    An epoch that diverges is not on the curve and is never kept. If it is the first, DataError is raised, with `name`.
    """
    best = copy.deepcopy(fitting.average)
    floor = fitting.validate()[1] if fitting.starts else -1.0  # what an epoch has to beat
    curve: list[Epoch] = []
    spent = 0.0
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location="cpu")
        fitting.restore(saved["fitting"])
        best.load_state_dict(saved["best"])
        curve = [Epoch(*row) for row in saved["curve"]]
        spent = curve[-1].seconds
        report(
            "validation", 1, 1, f"epoch {len(curve)} is the last that was kept of this network; fitting resumes there"
        )
    started = time.monotonic() - spent
    reason = ended(curve, settings, fitting.watched)
    while not reason:
        epoch = len(curve)
        stage = f"epoch {epoch + 1}/{settings.epochs}"
        loss = fitting.epoch(lambda done, total, now, stage=stage: report(stage, done, total, f"loss {now:.3f}"))  # type: ignore[misc]
        if distributed.agreed(fitting.diverged(loss)):
            if not curve:
                raise DataError(
                    f"{name}: diverged in epoch 1: the loss is {loss:g}; expected finite losses and weights. "
                    "Try another --preset or --seed"
                )
            reason = f"epoch {epoch + 1} diverged; the {'best ' if fitting.watched else ''}epoch before it is kept"
            break
        hit10, ndcg10 = fitting.validate()
        curve.append(distributed.agreed(Epoch(epoch, loss, hit10, ndcg10, time.monotonic() - started)))
        if fitting.watched:  # otherwise both figures are 0 and mean nothing
            report("validation", 1, 1, f"epoch {epoch + 1}: HR@10 {hit10:.4f} NDCG@10 {ndcg10:.4f}")
        if not fitting.watched or (best_epoch(curve) == epoch and ndcg10 > floor):
            best.load_state_dict(fitting.average.state_dict())
        if checkpoint is not None and not distributed.rank():
            save(checkpoint, fitting, best, curve)
        reason = ended(curve, settings, fitting.watched)
    return NetworkRanker(best.cpu(), curve, reason)


def best_epoch(curve: list[Epoch]) -> int:
    """Return the first epoch with the highest validation NDCG@10."""
    return int(np.argmax([epoch.ndcg10 for epoch in curve]))


def ended(curve: list[Epoch], settings: FitSettings, watched: int) -> str:
    """Return why no further epoch should run; "" if one should."""
    if not curve:
        return ""
    if watched and len(curve) - 1 - best_epoch(curve) >= settings.patience:
        return f"no better validation NDCG@10 for {settings.patience} epochs"
    if len(curve) >= settings.epochs:
        return "all epochs done"
    last = curve[-1].seconds - (curve[-2].seconds if len(curve) > 1 else 0.0)
    if settings.max_minutes and curve[-1].seconds + 1.1 * last > 60 * settings.max_minutes:
        return f"the time limit of {_duration(settings.max_minutes)} is reached"
    return ""


def _duration(minutes: float) -> str:
    """Return a time for people: whole seconds below two minutes, else minutes with at most one decimal."""
    return f"{max(1, round(60 * minutes))} s" if minutes < 2 else f"{round(minutes, 1):g} minutes"


def save(checkpoint: Path, fitting: Fitting, best: InterestNetwork, curve: list[Epoch]) -> None:
    """Write a temporary file, then rename it. A crash leaves the older checkpoint."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    rows = [tuple(asdict(epoch).values()) for epoch in curve]
    beside = checkpoint.with_suffix(".partial")
    content = io.BytesIO()
    torch.save({"fitting": fitting.state(), "best": best.state_dict(), "curve": rows}, content)
    beside.write_bytes(content.getbuffer())  # so that a full disk is an OSError
    beside.replace(checkpoint)


def epochs_kept(checkpoint: Path | None) -> int:
    """Return how many epochs a checkpoint holds; 0 if there is none."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    return len(torch.load(checkpoint, weights_only=True, map_location="cpu")["curve"])
