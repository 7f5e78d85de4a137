"""The figures of a comparison as JSON values: means, intervals, and each model's distance to the best of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from models.data.histories import Doubles, Flags, Rows
from models.evaluation.compare import Comparison, Outcome
from models.evaluation.registry import without_tables
from models.interfaces import EvalTask, TrainingData
from models.metrics.bootstrap import drawn_means, ends
from models.metrics.metrics import (
    ACCURACY,
    EARLIER,
    POPULARITY,
    accuracy,
    activity_groups,
    earlier_groups,
    popularity_groups,
    spread,
)
from models.metrics.popularity import popularity
from models.training.degenerate import notes

PAIRED: Final = ("HR@10", "NDCG@10", "MRR@10")
"""Metrics whose differences to other models have intervals. Precision and F1 are HR times a constant."""
BEST_BY: Final = "NDCG@10"
FLOOR: Final = "popularity"
OURS: Final = "freshet"
GROUPED: Final = ("HR@10", "NDCG@10")


def figures(comparison: Comparison, words: str = "") -> dict[str, Any]:
    """Summarise a comparison.

    The result has the protocol, what else decides it, the evaluated positions and users, the topics whose events count as
    choices, what is left out, notes (models.training.degenerate.notes), and `models`: name -> test, validation,
    intervals, seconds, ... A model that did not run has {"not run": why}.

    The intervals are 95 %, of users drawn with replacement, with the same draws for all models. They are given for each
    metric, for its difference to the best other model by test NDCG@10, to popularity, to freshet, and to the same model
    with other tables ("NDCG@10 - sasrec"), and for that difference in percent of the other model's figure ("NDCG@10 over
    sasrec, %"). The seconds are the time to fit, averaged over seeds.
    """
    task = comparison.task
    owners = owners_of(task)
    values = {outcome.name: test_values(outcome) for outcome in comparison.ran}
    drawn = drawn_of(values, ACCURACY, np.ones(len(owners), np.bool_), owners)
    groups = by_group(task, values, owners)
    models: dict[str, Any] = {}
    for outcome in comparison.outcomes:
        if not outcome.fits:
            models[outcome.name] = {"family": outcome.family, "not run": outcome.refused}
            continue
        models[outcome.name] = {
            **_one(outcome, task, values[outcome.name]),
            "intervals": intervals(outcome.name, drawn, rivals(outcome.name, values)),
            "groups": groups[outcome.name],
        }
    return {
        "protocol": task.name,
        "settings": dict(task.settings),
        "in words": words,
        "filter_seen": task.filter_seen,
        "judged": len(task.positions),
        "users": len(np.unique(owners)),
        "choices": list(task.training.spec.choices),
        "left out": [reason._asdict() for reason in task.left_out],
        "notes": notes(task),
        "items": len(task.training.items),
        "training": {
            "sha256": comparison.training,
            "events": int(task.training.use.sum()),
            "validation": len(task.training.watched),
        },
        "models": models,
    }


def _one(outcome: Outcome, task: EvalTask, values: Mapping[str, Doubles]) -> dict[str, Any]:
    counts = training_counts(task.training)
    spreads = [spread(fit.test.top, task.training.text, counts) for fit in outcome.fits]
    validation = [accuracy(fit.validation) for fit in outcome.fits] if len(task.training.watched) else []
    return {
        "family": outcome.family,
        "test": {name: float(of.mean()) for name, of in values.items()} | _means(spreads),
        "validation": _means([{name: float(of.mean()) for name, of in one.items()} for one in validation]),
        "by seed": {name: [float(accuracy(fit.test.rank)[name].mean()) for fit in outcome.fits] for name in PAIRED},
        "seconds": round(float(np.mean([fit.info.seconds for fit in outcome.fits])), 2),
        "seeds": [fit.seed for fit in outcome.fits],
        "chosen": outcome.fits[0].info.chosen,
        "curve": list(outcome.fits[0].info.curve),
    }


def test_values(outcome: Outcome) -> dict[str, Doubles]:
    """Compute every figure of ACCURACY at every position, f64 [Q], averaged over the seeds."""
    found = [accuracy(fit.test.rank) for fit in outcome.fits]
    return {name: np.mean([one[name] for one in found], axis=0) for name in ACCURACY}


def owners_of(task: EvalTask) -> Rows:
    """Return i64 [Q]: the unit that is drawn, for each position."""
    return task.rows.owner()[task.positions] if task.owners is None else task.owners


def rivals(name: str, values: Mapping[str, Mapping[str, Doubles]]) -> list[str]:
    """Return the models that `name` is compared with: the best of the others, popularity, freshet, and its own other tables."""
    others = [other for other in values if other != name]
    best = sorted(others, key=lambda other: -float(values[other][BEST_BY].mean()))[:1]
    same = [other for other in others if without_tables(other) == without_tables(name)]
    return list(dict.fromkeys([*best, *(other for other in (FLOOR, OURS) if other in others), *same]))


def intervals(name: str, drawn: Mapping[str, Doubles], others: Sequence[str]) -> dict[str, list[float]]:
    """Compute the intervals described in `figures`. `drawn`: f64 [draws, M] of each model, columns as in ACCURACY."""
    out = {metric: ends(drawn[name][:, at]) for at, metric in enumerate(ACCURACY)}
    for other in others:
        for metric in PAIRED:
            mine, theirs = (drawn[which][:, ACCURACY.index(metric)] for which in (name, other))
            out[f"{metric} - {other}"] = ends(mine - theirs)
            if theirs.min() > 0:
                out[f"{metric} over {other}, %"] = ends(100.0 * (mine / theirs - 1.0))
    return out


def drawn_of(
    values: Mapping[str, Mapping[str, Doubles]], names: Sequence[str], inside: Flags, owners: Rows
) -> dict[str, Doubles]:
    """Return f64 [draws, M] of each model: drawn means of the metrics `names` over the positions `inside`."""
    if not values:
        return {}
    table = np.stack([of[name][inside] for of in values.values() for name in names], 1)
    drawn = drawn_means(table, owners[inside])
    return {model: drawn[:, at * len(names) : (at + 1) * len(names)] for at, model in enumerate(values)}


def by_group(
    task: EvalTask, values: Mapping[str, Mapping[str, Doubles]], owners: Rows
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Compute figures by group, for each model.

    Users are grouped by their number of training events, items by how often they were chosen in training. If the data has
    times, choices of items that nobody chose in training are also grouped by how often the item was chosen before, by
    anybody ("new"). Each of these is a list of group, judged, metrics and intervals.
    """
    activity, names = activity_groups(training_events(task))
    popular = popularity_groups(training_counts(task.training))[task.rows.item[task.positions]]
    out: dict[str, dict[str, list[dict[str, Any]]]] = {model: {"users": [], "items": []} for model in values}
    kinds = [("users", activity, names), ("items", popular, POPULARITY)]
    if task.rows.time is not None:
        new = np.where(popular == POPULARITY.index("unseen"), earlier_groups(earlier_choices(task)), -1)
        kinds.append(("new", new, tuple(EARLIER.values())))
        for model in out:
            out[model]["new"] = []
    for kind, group, labels in kinds:
        for number, label in enumerate(labels):
            inside = group == number
            if not inside.any():
                continue
            drawn = drawn_of(values, GROUPED, inside, owners)
            for model, of in values.items():
                found: dict[str, Any] = {"group": label, "judged": int(inside.sum())}
                found |= {name: float(of[name][inside].mean()) for name in GROUPED}
                found["intervals"] = {name: ends(drawn[model][:, at]) for at, name in enumerate(GROUPED)}
                out[model][kind].append(found)
    return out


def earlier_choices(task: EvalTask) -> Rows:
    """Return i64 [Q]: how often the item of each position was chosen before, at an earlier time, by anybody.

    Raises ValueError if there are no times.
    """
    rows = task.rows
    if rows.time is None:
        raise ValueError("earlier choices need times: this is a bug")
    order = np.lexsort((rows.time, rows.item))
    order = order[rows.choice[order]]
    item, time = rows.item[order], rows.time[order]
    starts = np.searchsorted(item, np.arange(len(task.training.items) + 2))
    out = np.empty(len(task.positions), np.int64)
    for number, position in enumerate(task.positions.tolist()):
        begin, end = starts[rows.item[position]], starts[rows.item[position] + 1]
        out[number] = np.searchsorted(time[begin:end], rows.time[position])
    return out


def training_counts(training: TrainingData) -> Rows:
    """Return i64 [N + 1]: how often each item was chosen in the training part."""
    return popularity(training.rows, len(training.items), training.use, weighted=False).astype(np.int64)


def training_events(task: EvalTask) -> Rows:
    """Return i64 [Q]: the number of training events of each position's user; 0 for users held out of the training part."""
    training = task.training
    events = np.bincount(training.rows.owner(), training.use, len(training.rows.users)).astype(np.int64)
    of = dict(zip(training.rows.users, events.tolist(), strict=True))
    each = np.array([of.get(user, 0) for user in task.rows.users], np.int64)
    return each[np.searchsorted(task.rows.starts, task.positions, side="right") - 1]


def lift(whole: Comparison, alone: Comparison) -> dict[str, Any]:
    """Compute each model's gain on the same positions from the additional history, with paired intervals."""
    owners = owners_of(whole.task)
    other = {outcome.name: test_values(outcome) for outcome in alone.ran}
    out: dict[str, Any] = {}
    for outcome in whole.ran:
        if outcome.name not in other:
            continue
        more, less = test_values(outcome), other[outcome.name]
        drawn = drawn_means(np.stack([more[name] - less[name] for name in PAIRED], 1), owners)
        out[outcome.name] = {
            name: {"lift": float((more[name] - less[name]).mean()), "interval": ends(drawn[:, at])}
            for at, name in enumerate(PAIRED)
        }
    return out


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average each name's figures. NaN is left out, since JSON has no NaN."""
    if not found:
        return {}
    means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    return {name: mean for name, mean in means.items() if not math.isnan(mean)}
