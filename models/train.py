"""Training of the interest network: reads the training part of a split, stops by its own last choices, writes a run.

Every position foretells the user's next choices (cross-entropy over the whole catalogue). Histories are long, so they
are cut into pieces; each epoch first computes the state at every cut with the weights as they are, and a piece starts
from there (as R2D2 stores recurrent states: S. Kapturowski et al., ICLR 2019). Weights are averaged over steps.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.chunks import cut, following, hold_validation, initial_states
from models.data import DataSet, split_last
from models.data.dataset import fingerprint
from models.network import InterestNetwork, NetworkSize
from models.popularity import popularity
from models.ranking import gains, hits, input_rows, interest_ranks, popularity_ranks
from models.rows import Flags, Histories, Rows, histories
from models.run import DataInfo, Run
from models.softmax import catalogue_loss
from models.text import TEXT_DIM, TextEncoder
from stream.errors import DataError
from stream.inputs import UNKNOWN, InputSpec, item_text

Report = Callable[[str, int, int, str], None]
"""(stage, done, total, what to show beside): called often, must be quick."""


@dataclass(frozen=True)
class TrainSettings:
    """Chosen on the validation part of ml-latest-small; none was ever chosen on held-out events.

    holdout: choices per user that nothing here may see; validation: last choices of the rest, for early stopping;
    length, batch: events in a piece, pieces in a step; horizon: how many next choices count as the answer, each `fade`
    times the one before; unknown: share of input items hidden; average: decay of the weight average, per step;
    patience: epochs without a better validation NDCG@10; max_minutes: of wall time, all in (text encoding included).
    """

    seed: int = 0
    epochs: int = 14
    holdout: int = 8
    validation: int = 3
    length: int = 64
    batch: int = 24
    rate: float = 2e-3
    decay: float = 0.01
    horizon: int = 1
    fade: float = 0.8
    unknown: float = 0.01
    average: float = 0.99
    patience: int = 4
    max_minutes: float = 3.0
    threads: int = 0


@dataclass
class Epoch:
    """Figures of one epoch. loss: nats per state; hit10, ndcg10: on the validation part; seconds: since the start."""

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
    """Train on all but the last `holdout` choices of each user. Repeats to the bit with the same seed, data, machine and
    number of epochs. `started`: time.monotonic() from which max_minutes counts. Raises DataError where nothing is left.
    """
    started = time.monotonic() if started is None else started
    part = split_last(data, settings.holdout).train
    spec = InputSpec(data.rating_scale, data.scenes, TEXT_DIM)
    item_ids = tuple(item.item for item in data.items)
    if len(item_ids) < 2 or not len(part):
        raise DataError(f"{data.name}: {len(item_ids)} items and {len(part)} training events: nothing to learn from")
    text = item_vectors(data, encoder, report)
    rows = histories(part, None, item_ids, spec, lambda texts: encoder.encode(texts, _told(report, "comments")))
    torch.manual_seed(settings.seed)
    size = NetworkSize(items=len(item_ids), scenes=len(spec.scenes), text=TEXT_DIM)
    network = InterestNetwork(size, torch.from_numpy(text))
    best, curve, reason, floor = _fit(network, rows, settings, report, started)
    run = Run(
        network=best.requires_grad_(False).eval(),
        spec=spec,
        item_ids=item_ids,
        popularity=popularity(rows, len(item_ids)),
        text=text,
        data=DataInfo(data.name, fingerprint(part), len(part)),
        metrics=_metrics(curve, floor),
        settings=asdict(settings) | {"ended": reason, "epochs_run": len(curve)},
    )
    return Trained(run, curve, reason)


def item_vectors(data: DataSet, encoder: TextEncoder, report: Report = silent) -> NDArray[np.float32]:
    """BERT vectors of the catalogue, f32 [N + 1, X], row 0 zeros."""
    texts = [item_text(item.title, item.text, item.categories) for item in data.items]
    vectors = encoder.encode(texts, _told(report, "item texts"))
    return np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])


def _fit(
    network: InterestNetwork, rows: Histories, settings: TrainSettings, report: Report, started: float
) -> tuple[InterestNetwork, list[Epoch], str, dict[str, float]]:
    draw = np.random.default_rng(settings.seed)
    use, watched = hold_validation(rows, settings.validation)
    floor = _floor(rows, use, watched, network.size.items)
    targets = following(rows, use, settings.horizon)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.decay)
    average = copy.deepcopy(network).requires_grad_(False).eval()
    best = copy.deepcopy(average)
    curve: list[Epoch] = []
    best_at = -1
    steps = 0
    limit = started + 60 * settings.max_minutes
    for epoch in range(settings.epochs):
        begun = time.monotonic()
        first = int(draw.integers(1, settings.length + 1))  # cuts fall elsewhere in every epoch
        pieces = cut(rows, use, first, settings.length)
        h, c = initial_states(network.eval(), rows, pieces, first, settings.length)
        network.train()
        hidden = replace(rows, item=np.where(draw.random(len(rows.item)) < settings.unknown, UNKNOWN, rows.item))
        total = 0.0
        count = 0
        order = draw.permutation(len(pieces.begin))
        for at in range(0, len(order), settings.batch):
            some = order[at : at + settings.batch]
            places, real = pieces.places(some)
            items = network.item_matrix()
            inputs = input_rows(network, items, hidden, places)
            out, _, _ = network.unroll(inputs, h[some], c[some])
            answer = targets[places]  # [B, T, K]
            asked = torch.from_numpy(real & (answer[..., 0] != UNKNOWN))
            if not asked.any():
                continue
            wanted = torch.from_numpy(answer)[asked]
            weights = settings.fade ** torch.arange(settings.horizon) * (wanted != UNKNOWN)
            loss = catalogue_loss(network.query(out[asked]), items, wanted, weights / weights.sum(1, keepdim=True))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            steps += 1
            _blend(average, network, min(settings.average, steps / (steps + 10)))
            total += loss.item() * len(wanted)
            count += len(wanted)
            report(f"epoch {epoch + 1}/{settings.epochs}", at + len(some), len(order), f"loss {loss:.3f}")
        found = interest_ranks(average, rows, watched)
        now = time.monotonic()
        curve.append(Epoch(epoch, total / max(1, count), _mean(hits(found)), _mean(gains(found)), now - started))
        report("validation", 1, 1, f"epoch {epoch + 1}: HR@10 {curve[-1].hit10:.4f} NDCG@10 {curve[-1].ndcg10:.4f}")
        if best_at < 0 or curve[-1].ndcg10 > curve[best_at].ndcg10 or not len(watched):
            best_at = epoch
            best.load_state_dict(average.state_dict())
        if epoch - best_at >= settings.patience:
            return best, curve, f"no better validation NDCG@10 for {settings.patience} epochs", floor
        if now + 1.1 * (now - begun) > limit:
            return best, curve, f"the {settings.max_minutes:g} minutes are used up", floor
    return best, curve, "all epochs done", floor


@torch.no_grad()
def _blend(average: InterestNetwork, network: InterestNetwork, keep: float) -> None:
    for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(weight, 1.0 - keep)


def _floor(rows: Histories, use: Flags, watched: Rows, items: int) -> dict[str, float]:
    counts = popularity(replace(rows, choice=rows.choice & use), items)
    found = popularity_ranks(counts, rows, watched)
    return {"popularity HR@10": _mean(hits(found)), "popularity NDCG@10": _mean(gains(found))}


def _metrics(curve: list[Epoch], floor: dict[str, float]) -> dict[str, float]:
    if not curve:
        return {}
    best = max(curve, key=lambda epoch: epoch.ndcg10)
    figures = {"HR@10": best.hit10, "NDCG@10": best.ndcg10} | floor
    return {f"validation {name}": round(value, 5) for name, value in figures.items()}


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _told(report: Report, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total, "BERT")
