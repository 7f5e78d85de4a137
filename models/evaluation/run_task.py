"""Evaluates a run folder in the harness: on the choices that its training held out, as the worker would serve it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.data import DataSet, split_last
from models.data.dataset import fingerprint
from models.data.split import held_last
from models.evaluation.protocols.held import few_choices
from models.evaluation.protocols.parts import left_out, ordered
from models.interfaces import EvalTask, ProgressCallback, TrainingData, silent
from models.network.blend import log_popularity
from models.network.text import TextEncoder
from models.text_rating.histories import read_histories
from models.training.cache import digest
from models.training.run import Run, blend_numbers
from models.training.sequential.freshet import BlendRanker
from models.training.sequential.network_model import NetworkRanker
from models.training.train import TrainSettings, training_part
from models.training.warm import after
from stream.core.errors import DataError


@dataclass(frozen=True)
class RunModel:
    """A run as a model that is already fitted."""

    run: Run
    name: str = "freshet"
    family: str = "hybrid"

    @property
    def settings(self) -> Mapping[str, Any]:
        """A hash of everything that is served."""
        run = self.run
        weights = [value.numpy() for value in run.network.state_dict().values()]
        near = run.neighbours
        parts = [weights, run.text, run.popularity, near.index, near.weight, blend_numbers(run.blend)]
        if run.text_width:  # otherwise the hash is that of versions without a text term
            parts += [vars(run.projection), run.new, asdict(run.blend)]
        return {"run": digest(*parts)}

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> BlendRanker:
        """Return the run's sum, as the worker serves it. Nothing is fitted."""
        return ranker_of(self.run)


def ranker_of(run: Run) -> BlendRanker:
    """Return the run's sum, as the worker serves it."""
    return BlendRanker(
        NetworkRanker(run.network),
        run.neighbours,
        run.blend,
        log_popularity(run.popularity),
        run.projection,
        run.texts,
    )


def run_task(
    data: DataSet, run: Run, encoder: TextEncoder, holdout: int | None = None, *, filter_seen: bool = True
) -> EvalTask:
    """Return the task of the last `holdout` choices of each user, with the training part that the run had.

    By default `holdout` is that of the run's training. Raises DataError if nothing is held out, or if the run was
    trained on other events, since it may then have learned held-out choices.
    """
    if data.choices != run.spec.choices:
        raise DataError(
            f"choices {', '.join(data.choices)}: the run was trained with {', '.join(run.spec.choices)}; leave --choices out"
        )
    if data.weights != run.spec.weights:
        changed = sorted(name for name, _ in set(data.weights) ^ set(run.spec.weights))
        raise DataError(
            f"--action: the run was trained with other weights of {', '.join(dict.fromkeys(changed))}; leave --action out"
        )
    if "from" in run.settings:  # its items are in the order of the run that it started from
        data = after(run, data)
    last = int(run.settings.get("holdout", 8)) if holdout is None else holdout
    settings = TrainSettings(holdout=last, validation=int(run.settings.get("validation", 3)))
    split = split_last(data, last)
    if fingerprint(split.train) != run.data.sha256:
        raise DataError(
            f"the run was trained on {run.data.events} events of {run.data.name}, not on the {len(split.train)} events before "
            f"the last {last} choices of each user of {data.name}"
        )
    training, _ = training_part(data, settings, encoder, reading=run.reading)
    if training.item_ids != run.item_ids:
        raise DataError(f"the run's catalogue of {len(run.item_ids)} items differs from that of {data.name}")
    rows = read_histories(
        split.train, split.held, run.item_ids, run.spec, encoder.encode, run.reading, timed=data.timed
    )
    positions = np.flatnonzero(rows.judged)
    if not len(positions):
        raise DataError(f"{data.name}: no user has enough choices to hold out the last {last}")
    order = ordered(data)
    left = left_out(order, few_choices(order, held_last(data, last).to_numpy()[order.at], last))
    about = {"last": last, "run": run.data.sha256}
    return EvalTask(f"last-{last}", about, training, rows, positions, filter_seen, left_out=left)
