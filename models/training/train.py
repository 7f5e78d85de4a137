"""Trains freshet's model on the training part of a data set, and on nothing else, into a run that can be exported."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from models.data import DataSet, split_last
from models.data.actions import often
from models.data.choices import require_choices
from models.data.dataset import fingerprint
from models.data.histories import Floats
from models.interfaces import ProgressCallback, TrainingData, silent
from models.metrics.popularity import popularity
from models.metrics.ranks import gains, hits, popularity_ranks, ranks
from models.network.text import TEXT_DIM, TextEncoder
from models.text_rating.histories import read_histories
from models.text_rating.reading import Reading
from models.training.batching import hold_validation
from models.training.cache import digest, training_key
from models.training.degenerate import UNWATCHED, require_order
from models.training.diversity import BUDGET, choose
from models.training.regimes import FROZEN, STREAMED
from models.training.run import DataInfo, Run
from models.training.sequential.freshet import BlendRanker, Freshet
from models.training.sequential.network_model import Epoch, epochs_kept
from models.training.start import DAYS, REPLAY
from models.training.tables import require_times
from models.training.warm import after, begin, grown_spec, learned_rows, over_items, require_alike, texts_of
from stream.core.errors import DataError
from stream.core.features import InputSpec, item_text

__all__ = ["Epoch", "ProgressCallback", "TrainSettings", "Trained", "run_of", "silent", "train", "training_part"]


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes:
        seed: Seed of the training.
        holdout: Choices per user that training must not see.
        validation: Last choices of the rest, for early stopping and for choosing weights.
        preset: One of models.training.sequential.presets; `auto` chooses by the data.
        epochs: Maximum number of epochs; None takes the preset's.
        max_minutes: Limit of wall time for everything, including text encoding.
        diversity_budget: The share of validation NDCG@10 that more diverse slates may cost (models.training.diversity).
        tables: FROZEN, or STREAMED for serving beside a tally: neighbours, popularity and the weights of the sum are then chosen
            with tables that follow the stream, and the run says how a tally should count them.
        days: If training starts from a run: days before the newest event from which all is learned.
        replay: If training starts from a run: share of what is older that is learned from again in an epoch.
        head: If training starts from a run: keep its step graph and the vectors that it reads, and learn what is behind the
            state: the query, output vectors of the items, tables and the weights of the sum. States stay valid.
    """

    seed: int = 0
    holdout: int = 8
    validation: int = 3
    preset: str = "auto"
    epochs: int | None = None
    max_minutes: float = 3.0
    diversity_budget: float = BUDGET
    tables: str = FROZEN
    days: float = DAYS
    replay: float = REPLAY
    head: bool = False


@dataclass(frozen=True)
class Trained:
    """A run and how it was made.

    Attributes:
        run: The run.
        curve: Figures of each epoch.
        reason: Why training ended.
        floor: HR@10 of popularity on the validation part.
        notes: What a reader must know besides the figures.
    """

    run: Run
    curve: list[Epoch] = field(default_factory=list)
    reason: str = ""
    floor: float = 0.0
    notes: tuple[str, ...] = ()


SHARE: Final = 0.9
LIVE_SHARE: Final = 0.6
"""Share of the time for the network; with tables that follow the stream. The rest is for what is chosen after it."""


class CutOff(KeyboardInterrupt):
    """Training was interrupted. `epochs` is how many the checkpoint holds; 0 if there is none."""

    def __init__(self, epochs: int) -> None:
        super().__init__(f"after {epochs} epochs")
        self.epochs = epochs


def train(
    data: DataSet,
    settings: TrainSettings,
    encoder: TextEncoder,
    report: ProgressCallback = silent,
    started: float | None = None,
    reading: Reading | None = None,
    checkpoints: Path | None = None,
    start: Run | None = None,
) -> Trained:
    """Train on all but the last `holdout` choices of each user. The whole catalogue is known.

    If the data has times, validation also decides whether old choices count less in the neighbours, and with which
    half-life. The run's settings say which (`neighbours_half_life_days`, 0 for none). With tables that follow the stream it
    also decides the half-life of popularity and how far choices pair; the run's own tables are counted the same way, once.

    On one thread the result is the same to the bit with the same seed, data, machine and number of epochs (which
    `max_minutes` may change). On several threads, sums may differ in their last bits.

    Args:
        data: The data set.
        settings: How to train.
        encoder: Encodes the texts.
        report: Called with the progress. The stage `note` has what a reader must know before the figures.
        started: time.monotonic() from which max_minutes counts.
        reading: Gives a value to comments without one. It becomes part of the run, so it does so in serving too.
        checkpoints: Folder from which an interrupted training resumes after its last epoch, if data and settings are
            the same.
        start: A run to start from: its weights, its rows of items, its reading if none is given. Neighbours, popularity and
            the weights of the sum are made from the data as without it.

    Raises:
        DataError: The run to start from does not fit the data, there is nothing left to learn from, no event follows
            another, or training ends with a validation NDCG@10 of 0.
        CutOff: KeyboardInterrupt came while the model was fitted.
    """
    started = time.monotonic() if started is None else started
    if settings.tables not in (FROZEN, STREAMED):
        raise DataError(f"tables {settings.tables}: expected {FROZEN} or {STREAMED}")
    if start is not None:
        reading = reading or start.reading
    training, part = training_part(data, settings, encoder, report, reading, start)
    if settings.tables == STREAMED:
        require_times(f"{data.name}: tables {STREAMED}", training.rows)
    if not len(training.watched):
        report("note", 1, 1, UNWATCHED)
    left = settings.max_minutes - (time.monotonic() - started) / 60
    chosen = {} if settings.epochs is None else {"epochs": settings.epochs}
    # The weights of the sum are chosen after the epochs. A part of the time is reserved for that.
    streamed = settings.tables == STREAMED
    fitting = {**chosen, "max_minutes": max(1e-6, (LIVE_SHARE if streamed else SHARE) * left)}
    begun = (
        None
        if start is None
        else begin(start, training, settings.days, settings.replay, settings.seed, head=settings.head)
    )
    model = Freshet(settings.preset, fit=fitting, tables=settings.tables, reaches=streamed, start=begun)
    checkpoint = checkpoints / f"{_key(training, settings, model)}.pt" if checkpoints else None
    try:
        ranker = model.fit(training, settings.seed, report, checkpoint)
    except KeyboardInterrupt:
        raise CutOff(epochs_kept(checkpoint)) from None
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    metrics = figures(training, ranker)
    _require_gain(data.name, training, ranker, metrics)
    run = run_of(data, training, ranker, DataInfo(data.name, fingerprint(part), len(part)), metrics)
    if start is not None and settings.head:  # what came after the step's training is served by its text
        run = over_items(run, start.item_ids, run.text[: len(start.item_ids) + 1])
    run = replace(
        run,
        settings=asdict(settings)
        | {
            "ended": ranker.interest.reason,
            "epochs_run": len(ranker.curve),
            "neighbours_half_life_days": ranker.half_life,
            **({} if start is None else {"from": asdict(start.data)}),
        },
        protocol=f"last {settings.validation} choices of each user before the held-out ones (validation), seen items left out",
        seconds=time.monotonic() - started,
        seeds=(settings.seed,),
        reading=reading,
        diversity=choose(training, ranker, ranker.item_vectors(), settings.diversity_budget, report),
    )
    floor = metrics.get("validation popularity HR@10", 0.0)
    return Trained(run, ranker.curve, ranker.interest.reason, floor, () if metrics else (UNWATCHED,))


def _require_gain(name: str, training: TrainingData, ranker: BlendRanker, metrics: dict[str, float]) -> None:
    """Raise DataError if the model ranks no validation choice among the first ten."""
    if metrics.get("validation NDCG@10", 1.0) > 0:
        return
    raise DataError(
        f"{name}: training ended with NDCG@10 0 on the {len(training.watched):,} validation choices. Found "
        f"{len(ranker.curve)} epochs ({ranker.interest.reason}) and popularity at {metrics['validation popularity NDCG@10']:g}; "
        "expected a figure above 0. No run is written. More --epochs and --max-minutes, or more events, may help"
    )


def training_part(
    data: DataSet,
    settings: TrainSettings,
    encoder: TextEncoder,
    report: ProgressCallback = silent,
    reading: Reading | None = None,
    start: Run | None = None,
) -> tuple[TrainingData, pl.DataFrame]:
    """Return what training may see of `data`, and the table of its events.

    With `start` the run's items, scenes and actions come first, in its order. Raises DataError if the events are too few, or if
    the run does not fit.
    """
    if start is not None:
        require_alike(start, data)
        data = after(start, data)
    part = split_last(data, settings.holdout).train
    require_choices(data.name, data.events, data.choices, data.weights)
    require_order(data.name, part)
    item_ids = tuple(item.item for item in data.items)
    if len(item_ids) < 2 or not len(part):
        raise DataError(f"{data.name}: nothing to learn from: {len(item_ids)} items and {len(part)} training events")
    scenes, actions = replace(data, events=part).scenes, often(part)
    spec = InputSpec(data.rating_scale, scenes, TEXT_DIM, data.choices, data.weights, actions)
    text = item_vectors(data, encoder, report)
    learned = None
    if start is not None:
        spec = start.spec if settings.head else grown_spec(start, spec)
        text, learned = texts_of(start, data, text, keep=settings.head), learned_rows(start, item_ids)
    progress = _progress(report, "comments")
    rows = read_histories(
        part, None, item_ids, spec, lambda texts: encoder.encode(texts, progress), reading, timed=data.timed
    )
    use, watched = hold_validation(rows, settings.validation)
    return TrainingData(data.items, spec, text, rows, use, watched, learned), part


def run_of(
    data: DataSet, training: TrainingData, ranker: BlendRanker, info: DataInfo, metrics: dict[str, float]
) -> Run:
    """Turn a fitted model into a run that is ready to export. A network that reads no actions is given none."""
    network = ranker.interest.network
    return Run(
        network=network,
        spec=training.spec if network.size.reads_actions else replace(training.spec, actions=()),
        item_ids=training.item_ids,
        popularity=popularity(training.rows, len(training.items)),
        text=training.text,
        data=info,
        metrics=metrics,
        blend=ranker.blend,
        neighbours=ranker.neighbours,
        tables=None if ranker.live is None else ranker.live.settings,
        projection=ranker.projection,
        new=ranker.texts.new,
    )


def item_vectors(data: DataSet, encoder: TextEncoder, report: ProgressCallback = silent) -> Floats:
    """Return the BERT vectors of the catalogue, f32 [N + 1, X]. Row 0 is zeros."""
    texts = [item_text(item.title, item.text, item.categories) for item in data.items]
    vectors = encoder.encode(texts, _progress(report, "item texts"))
    return np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])


def figures(training: TrainingData, ranker: BlendRanker) -> dict[str, float]:
    """Measure HR@10 and NDCG@10 of the whole sum, its recurrent part and popularity on the validation choices."""
    rows, positions = training.rows, training.watched
    if not len(positions):
        return {}
    counts = popularity(rows, len(training.items), training.use)
    found = {
        "": ranks(rows, positions, ranker.scorer(rows)),
        "recurrent ": ranks(rows, positions, ranker.interest.scorer(rows)),
        "popularity ": popularity_ranks(counts, rows, positions),
    }
    values: dict[str, float] = {}
    for name, of in found.items():
        values[f"validation {name}HR@10"] = round(float(hits(of).mean()), 5)
        values[f"validation {name}NDCG@10"] = round(float(gains(of).mean()), 5)
    return values


def _key(training: TrainingData, settings: TrainSettings, model: Freshet) -> str:
    """Return the key of everything that decides the weights. A training that resumes may be given more time."""
    settled = {**model.settings, "fit": {"epochs": settings.epochs}}
    return digest(training_key(training), replace(settings, max_minutes=0.0, diversity_budget=0.0), settled)


def _progress(report: ProgressCallback, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total, "BERT")
