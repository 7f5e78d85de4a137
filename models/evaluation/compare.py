"""The harness: it fits every model on the training part, once per seed, and has all of them rank what was held out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from models.evaluation.registry import UNSEEDED, family_of, without_tables
from models.interfaces import EvalTask, Model, ProgressCallback, Ranker, TrainingData, silent
from models.metrics.ranks import Ranks
from models.metrics.top_k import Lists, recommended
from models.training.cache import FitCache, FitInfo, cache_of, digest, task_key, training_key
from models.training.tuning import watched
from stream.core.errors import DataError

CACHE: Final = Path(".cache/evaluate")
WATCHED: Final = 20_000  # validation choices that are ranked; if there are more, a fixed draw of this many


@dataclass(frozen=True)
class Fitted:
    """One model after one fit on one task.

    Attributes:
        seed: Seed of the fit.
        info: What is kept of the fit.
        test: Ranks i64 [Q] and lists of the task's positions.
        validation: Ranks i64 [V] of the validation choices (at most WATCHED of them) among all items.
    """

    seed: int
    info: FitInfo
    test: Lists
    validation: Ranks


@dataclass(frozen=True)
class Outcome:
    """One model on one task, with one fit per seed. `refused` is why it did not run; "" if it ran."""

    name: str
    family: str
    fits: tuple[Fitted, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Comparison:
    """All models on one task. `training` is the key of what fitting read, sha256 (hex)."""

    task: EvalTask
    training: str
    outcomes: tuple[Outcome, ...]

    @property
    def ran(self) -> tuple[Outcome, ...]:
        """The outcomes that have ranks."""
        return tuple(outcome for outcome in self.outcomes if outcome.fits)


def compare(
    tasks: Sequence[EvalTask],
    models: Sequence[Model],
    seeds: Sequence[int] = (0,),
    cache: Path | None = None,
    report: ProgressCallback = silent,
) -> list[Comparison]:
    """Make one comparison per task. Tasks that share a training part share the fits.

    `cache` is the folder in which fits and ranks are kept. What is there is not computed again, and an interrupted fit
    resumes. A model that cannot run on the data (DataError) is left out, with its reason. Raises DataError if there are
    no tasks, models or seeds.
    """
    if not tasks or not models or not seeds:
        raise DataError(f"{len(tasks)} tasks, {len(models)} models, {len(seeds)} seeds: nothing to compare")
    trainings = {id(task.training): task.training for task in tasks}
    known = {at: training_key(training) for at, training in trainings.items()}
    groups: dict[str, list[int]] = {}
    for number, task in enumerate(tasks):
        groups.setdefault(known[id(task.training)], []).append(number)
    outcomes: list[list[Outcome]] = [[] for _ in tasks]
    for key, numbers in groups.items():
        together = [tasks[number] for number in numbers]
        for model in models:
            for number, outcome in zip(numbers, _outcomes(together, key, model, seeds, cache, report), strict=True):
                outcomes[number].append(outcome)
    return [
        Comparison(task, known[id(task.training)], tuple(found)) for task, found in zip(tasks, outcomes, strict=True)
    ]


def _outcomes(
    tasks: list[EvalTask],
    training: str,
    model: Model,
    seeds: Sequence[int],
    cache: Path | None,
    report: ProgressCallback,
) -> list[Outcome]:
    """Return the outcomes of one model on tasks that share one training part."""
    plain = Outcome(model.name, family_of(model))
    seeds = seeds[:1] if without_tables(model.name) in UNSEEDED else seeds
    try:
        by_seed = [_fitted(tasks, training, model, seed, cache, report) for seed in seeds]
    except DataError as error:
        return [Outcome(plain.name, plain.family, refused=str(error).removeprefix(f"{plain.name}: "))] * len(tasks)
    return [Outcome(plain.name, plain.family, tuple(fits)) for fits in zip(*by_seed, strict=True)]


def _fitted(
    tasks: list[EvalTask], training: str, model: Model, seed: int, cache: Path | None, report: ProgressCallback
) -> list[Fitted]:
    fit_cache = cache_of(cache, training, model, seed)
    of_model = partial(_named, report, f"{model.name}, seed {seed}")
    keys = [task_key(task, training) for task in tasks]
    seen_keys = [digest("validation", task.filter_seen) for task in tasks]
    info = fit_cache.info()
    ranker: Ranker | None = None
    out: list[Fitted] = []
    for task, key, seen_key in zip(tasks, keys, seen_keys, strict=True):
        test, validation = fit_cache.lists(key), fit_cache.lists(seen_key)
        if info is None or test is None or validation is None:
            if ranker is None or info is None:
                ranker, info = _fit(task.training, model, seed, fit_cache, of_model)
            rows = task.training.rows
            validation = validation or recommended(
                rows,
                watched(task.training, WATCHED),
                ranker.scorer(rows),
                filter_seen=task.filter_seen,
                name=model.name,
                report=of_model,
            )
            test = test or recommended(
                task.rows,
                task.positions,
                ranker.scorer(task.rows),
                filter_seen=task.filter_seen,
                candidates=task.candidates,
                groups=task.groups,
                name=model.name,
                report=of_model,
            )
            fit_cache.keep_lists(seen_key, validation)
            fit_cache.keep_lists(key, test)
        out.append(Fitted(seed, info, test, validation.rank))
    return out


def _fit(
    training: TrainingData, model: Model, seed: int, fit_cache: FitCache, report: ProgressCallback
) -> tuple[Ranker, FitInfo]:
    """Fit, from the checkpoint if there is one.

    The seconds include what went into it. An earlier fit's figures stay.
    """
    before, begun = fit_cache.spent(), time.monotonic()
    written = _written(fit_cache.checkpoint)

    def timed(stage: str, done: int, total: int, text: str) -> None:
        nonlocal written
        if (now := _written(fit_cache.checkpoint)) != written:
            written = now
            fit_cache.keep_spent(before + time.monotonic() - begun)
        report(stage, done, total, text)

    ranker = model.fit(training, seed, timed, fit_cache.checkpoint)
    seconds = before + time.monotonic() - begun
    curve = tuple(dict(vars(epoch)) for epoch in getattr(ranker, "curve", ()))
    return ranker, fit_cache.keep_info(FitInfo(seconds, dict(getattr(ranker, "chosen", {})), curve))


def _written(path: Path | None) -> int:
    """Return when the file was last written, in ns; 0 if it does not exist."""
    try:
        return path.stat().st_mtime_ns if path else 0
    except OSError:
        return 0


def _named(report: ProgressCallback, who: str, stage: str, done: int, total: int, text: str) -> None:
    report(f"{who}: {stage}", done, total, text)
