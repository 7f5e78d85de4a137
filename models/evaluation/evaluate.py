"""One evaluation from data to figures. It takes a protocol and names of models, and returns one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.data import DataSet
from models.data.dataset import fingerprint
from models.evaluation.compare import Comparison, compare
from models.evaluation.protocols import RATING, WORDS, make_tasks
from models.evaluation.registry import Wanted, make
from models.evaluation.run_task import RunModel, run_task
from models.evaluation.summary import figures, lift
from models.evaluation.tradeoff import tradeoff
from models.interfaces import EvalTask, Model, ProgressCallback, silent
from models.network.text import TextEncoder
from models.training.degenerate import require_ranking
from models.training.regimes import FROZEN, every
from models.training.run import Run
from stream.core.errors import DataError
from stream.core.features import CHOICES

DEFAULT: Final = "last-8"  # what `freshet train` holds out
MODELS: Final = ("freshet", "popularity")
SCENES: Final = "scene-transfer"
TIMED: Final = "time-split"
SEEN: Final = (
    "streamed: neighbours and popularity hold every choice of every user with an earlier time than the judged one; the network "
    "and all settings are from training and validation",
    "epochs:{0}: neighbours and popularity hold what came before the last full {0:,} events with an earlier time",
)
"""What models whose tables follow the stream look at: streamed, and by epochs."""


@dataclass(frozen=True)
class Question:
    """What to compare, and how.

    Attributes:
        protocol: Name of the protocol.
        models: Names of the models. () for the protocol's default.
        seeds: Number of seeds, from 0.
        preset: See models.evaluation.registry.Wanted.
        max_minutes: See models.evaluation.registry.Wanted.
        filter_seen: Leave out items that the user has already interacted with.
        run: A run to evaluate in place of freshet, on what its training held out.
        cache: Folder of the fit cache. None keeps nothing.
        tables: When neighbours and popularity are counted (models.training.regimes.every), each a model of its own. Other
            than frozen ones need the protocol time-split, and data with times.
        diversity: Strengths of the trade-off (models.evaluation.tradeoff). It needs a run, and () measures only the
            strength that the run is served with, if that is above 0.
    """

    protocol: str = DEFAULT
    models: Sequence[str] = ()
    seeds: int = 1
    preset: str = "auto"
    max_minutes: float = 0.0
    filter_seen: bool = True
    run: Run | None = None
    cache: Path | None = None
    diversity: Sequence[float] = ()
    tables: Sequence[str] = (FROZEN,)


def evaluate(data: DataSet, asked: Question, encoder: TextEncoder, report: ProgressCallback = silent) -> dict[str, Any]:
    """Evaluate models on a data set.

    Raises DataError for unknown names, if the protocol does not fit the data, or if no model ran.

    Returns:
        The data, sha256 of its events, and the figures of the protocol's first task
        (models.evaluation.summary.figures). With a run that is served with diversity, or with `asked.diversity`, `diversity`
        holds the trade-off (models.evaluation.tradeoff). `also` holds the figures of its other tasks, and `lift` those of
        scene-transfer. The protocol `rating` has RMSE and MAE instead, first for random folds.
    """
    if asked.seeds < 1:
        raise DataError(f"seeds: found {asked.seeds}, expected 1 or more")
    if asked.diversity and not asked.run:
        raise DataError("--diversity needs --run: it re-ranks what a run recommends")
    _require_stream(data, asked)
    about = {"data": data.name, "sha256": fingerprint(data.events), "events": len(data.events)}
    if asked.protocol == RATING:
        if asked.run:
            raise DataError("protocol `rating` cannot evaluate a run: a run ranks items")
        return about | _rating(data, asked, encoder, report)
    tasks, models = _posed(data, asked, encoder, report)
    require_ranking(tasks)
    found = compare(tasks, models, tuple(range(asked.seeds)), asked.cache, report)
    if not any(comparison.ran for comparison in found):
        raise DataError(_none_ran({outcome.name: outcome.refused for outcome in found[0].outcomes}))
    first, *others = [_figures(comparison) for comparison in found]
    if asked.run and (asked.diversity or asked.run.diversity.strength):
        task, strength = found[0].task, asked.run.diversity.strength
        ranker = RunModel(asked.run).fit(task.training, 0)
        first["diversity"] = tradeoff(task, ranker, asked.diversity, strength, report)
    first["notes"] += [SEEN[number > 1].format(number) for tables in asked.tables if (number := every(tables))]
    if others:
        first["also"] = others
    if asked.protocol == SCENES and len(found) == 2:
        first["lift"] = lift(*found)
    return about | first


def _require_stream(data: DataSet, asked: Question) -> None:
    """Raise DataError if tables are to follow the stream where that would tell what is held out, or cannot be done."""
    following = [tables for tables in asked.tables if every(tables)]
    if not following:
        return
    if asked.run:
        raise DataError(f"--tables {following[0]}: a run has frozen tables; leave --run out")
    if asked.protocol != TIMED:
        raise DataError(
            f"--tables {following[0]}: found protocol {asked.protocol}, expected {TIMED}: elsewhere events that are held out "
            "come before others in time"
        )
    if not data.timed:
        raise DataError(f"--tables {following[0]}: {data.name} gives only an order within each user; expected times")


def _none_ran(refused: Mapping[str, str]) -> str:
    return f"no model ran: {'; '.join(f'{name}: {why}' for name, why in refused.items())}"


def _posed(
    data: DataSet, asked: Question, encoder: TextEncoder, report: ProgressCallback
) -> tuple[Sequence[EvalTask], Sequence[Model]]:
    names = tuple(asked.models) or MODELS
    models = make(
        Wanted(names, asked.preset, asked.max_minutes, asked.tables)
    )  # first, so that a wrong name is found at once

    def encode(texts: Sequence[str]) -> Any:
        return encoder.encode(texts, lambda done, total: report("texts", done, total, "BERT"))

    if asked.run is None:
        return make_tasks(asked.protocol, data, encode, filter_seen=asked.filter_seen), models
    if asked.protocol != DEFAULT:
        raise DataError(
            f"protocol {asked.protocol} cannot evaluate a run, which has seen what it holds out; use {DEFAULT}"
        )
    task = run_task(data, asked.run, encoder, filter_seen=asked.filter_seen)
    return [task], [RunModel(asked.run), *(model for model in models if model.name != RunModel.name)]


def _figures(comparison: Comparison) -> dict[str, Any]:
    name = comparison.task.name
    return figures(comparison, WORDS.get(name, WORDS[DEFAULT] if "run" in comparison.task.settings else ""))


def _rating(data: DataSet, asked: Question, encoder: TextEncoder, report: ProgressCallback) -> dict[str, Any]:
    from models.rating_prediction import MODELS as RATING_MODELS
    from models.rating_prediction import rating_protocol

    if data.choices != CHOICES:
        raise DataError("protocol `rating` predicts the value of every event; leave --choices out")
    names = RATING_MODELS if not asked.models or "all" in asked.models else asked.models
    seeds = tuple(range(asked.seeds))
    first = rating_protocol(data, "random", names, seeds, encoder.encode, report)
    parts = [first]
    try:
        parts.append(rating_protocol(data, "time", names, seeds, encoder.encode, report))
    except DataError as error:  # there are no times to split at, but the folds are valid
        first["notes"].append(f"no split in time: {error}")
    reasons = [(name, of.get("not run", "")) for part in parts for name, of in part["models"].items()]
    if all(why for _, why in reasons):
        raise DataError(_none_ran(dict(reasons)))
    return {**first, "also": parts[1:]}
