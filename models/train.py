"""From a data set to a run: texts, rows, fitting with early stopping. Reads the training part of a split only."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.data import DataSet, split_last
from models.data.dataset import fingerprint
from models.fitting import Fitting, TrainSettings
from models.network import InterestNetwork, NetworkSize
from models.popularity import popularity
from models.rows import histories
from models.run import DataInfo, Run
from models.text import TEXT_DIM, TextEncoder
from stream.errors import DataError
from stream.inputs import InputSpec, item_text

__all__ = ["Epoch", "Report", "TrainSettings", "Trained", "train"]

Report = Callable[[str, int, int, str], None]
"""(stage, done, total, what to show beside): called often, must be quick."""


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch, from 0. loss: nats per state; hit10, ndcg10: on the validation part; seconds: since the start."""

    epoch: int
    loss: float
    hit10: float
    ndcg10: float
    seconds: float


@dataclass(frozen=True)
class Trained:
    """A run and how it came about. `reason`: why training ended."""

    run: Run
    curve: list[Epoch] = field(default_factory=list)
    reason: str = ""


def silent(stage: str, done: int, total: int, text: str) -> None:
    """Reports nothing."""


def train(
    data: DataSet, settings: TrainSettings, encoder: TextEncoder, report: Report = silent, started: float | None = None
) -> Trained:
    """Train on all but the last `holdout` choices of each user; the catalogue is known whole.

    Repeats to the bit with the same seed, data, machine and number of epochs (`max_minutes` may change the last).
    `started`: time.monotonic() from which max_minutes counts. Raises DataError where nothing is left to learn from.
    """
    started = time.monotonic() if started is None else started
    part = split_last(data, settings.holdout).train
    item_ids = tuple(item.item for item in data.items)
    if len(item_ids) < 2 or not len(part):
        raise DataError(f"{data.name}: {len(item_ids)} items and {len(part)} training events: nothing to learn from")
    spec = InputSpec(data.rating_scale, replace(data, events=part).scenes, TEXT_DIM)
    text = item_vectors(data, encoder, report)
    rows = histories(part, None, item_ids, spec, lambda texts: encoder.encode(texts, _told(report, "comments")))
    torch.manual_seed(settings.seed)
    size = NetworkSize(items=len(item_ids), scenes=len(spec.scenes), text=TEXT_DIM)
    fitting = Fitting(InterestNetwork(size, torch.from_numpy(text)), rows, settings)
    network, curve, reason = _fit(fitting, settings, report, started)
    run = Run(
        network=network,
        spec=spec,
        item_ids=item_ids,
        popularity=popularity(rows, len(item_ids)),
        text=text,
        data=DataInfo(data.name, fingerprint(part), len(part)),
        metrics=_metrics(curve, fitting.floor()),
        settings=asdict(settings) | {"ended": reason, "epochs_run": len(curve)},
    )
    return Trained(run, curve, reason)


def item_vectors(data: DataSet, encoder: TextEncoder, report: Report = silent) -> NDArray[np.float32]:
    """BERT vectors of the catalogue, f32 [N + 1, X], row 0 zeros."""
    texts = [item_text(item.title, item.text, item.categories) for item in data.items]
    vectors = encoder.encode(texts, _told(report, "item texts"))
    return np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])


def _fit(
    fitting: Fitting, settings: TrainSettings, report: Report, started: float
) -> tuple[InterestNetwork, list[Epoch], str]:
    """Epochs until one of three reasons to stop -> the best network by validation NDCG@10, the curve, the reason."""
    best = copy.deepcopy(fitting.average)
    curve: list[Epoch] = []
    best_at = 0
    for epoch in range(settings.epochs):
        begun = time.monotonic()
        stage = f"epoch {epoch + 1}/{settings.epochs}"
        loss = fitting.epoch(
            lambda done, total, now, stage=stage: report(stage, done, total, f"loss {now:.3f}")  # type: ignore[misc]
        )
        hit10, ndcg10 = fitting.validate()
        ended = time.monotonic()
        curve.append(Epoch(epoch, loss, hit10, ndcg10, ended - started))
        report("validation", 1, 1, f"epoch {epoch + 1}: HR@10 {hit10:.4f} NDCG@10 {ndcg10:.4f}")
        if epoch == 0 or ndcg10 > curve[best_at].ndcg10 or not fitting.watched:
            best_at = epoch
            best.load_state_dict(fitting.average.state_dict())
        if epoch - best_at >= settings.patience:
            return best, curve, f"no better validation NDCG@10 for {settings.patience} epochs"
        if ended + 1.1 * (ended - begun) > started + 60 * settings.max_minutes:
            return best, curve, f"the {settings.max_minutes:g} minutes are used up"
    return best, curve, "all epochs done"


def _metrics(curve: Sequence[Epoch], floor: tuple[float, float]) -> dict[str, float]:
    if not curve:
        return {}
    best = max(curve, key=lambda epoch: epoch.ndcg10)
    figures = {
        "HR@10": best.hit10,
        "NDCG@10": best.ndcg10,
        "popularity HR@10": floor[0],
        "popularity NDCG@10": floor[1],
    }
    return {f"validation {name}": round(value, 5) for name, value in figures.items()}


def _told(report: Report, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total, "BERT")
