"""What diversity costs: the metrics of a run's test lists, re-ranked with several strengths (stream/core/diversity.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from models.data.histories import Doubles, Flags, Rows
from models.evaluation.summary import owners_of, training_counts, training_events
from models.interfaces import EvalTask, ProgressCallback, silent
from models.metrics.bootstrap import drawn_means, ends
from models.metrics.metrics import LIST, POPULARITY, activity_groups, gini, popularity_groups, recommended_times
from models.metrics.ranks import gains, hits, placed
from models.metrics.variety import DISTANCE, DIVERGENCE, VARIETY
from models.training.diversity import Candidates, candidates
from models.training.sequential.freshet import BlendRanker
from stream.core.diversity import Method
from stream.core.errors import DataError

EACH: Final = (f"NDCG@{LIST}", f"HR@{LIST}", *VARIETY)
"""Metrics of single lists; they have intervals."""
ALL: Final = (f"coverage@{LIST}", f"Gini@{LIST}")
"""Metrics of all lists together."""
GROUPED: Final = (EACH[0], EACH[1], DISTANCE, DIVERGENCE)
METHODS: Final[tuple[Method, ...]] = ("dpp", "mmr")
MOST: Final = 101


def parse_strengths(text: str) -> tuple[float, ...]:
    """Return the strengths in a text such as `0,.1,...,1`, ascending, with 0. `...` goes on in equal steps.

    Raises DataError for anything else.
    """
    expected = "expected numbers from 0 to 1 separated by commas, such as 0,.1,...,1"
    parts = [part.strip() for part in text.split(",")]
    found: list[float] = []
    try:
        for at, part in enumerate(parts):
            if part != "...":
                found.append(float(part))
                continue
            if not 1 < at < len(parts) - 1:
                raise ValueError
            step, end = found[-1] - found[-2], float(parts[at + 1])
            if not (step > 0.0 and found[-2] >= 0.0 and found[-1] < end <= 1.0) or (end - found[-1]) / step > MOST:
                raise ValueError
            while found[-1] + step < end - 1e-9:
                found.append(round(found[-1] + step, 9))
    except ValueError:
        raise DataError(f"--diversity {text!r}: {expected}") from None
    if not all(0.0 <= one <= 1.0 for one in found) or len(found) > MOST:
        raise DataError(f"--diversity {text!r}: {expected}, at most {MOST}")
    return tuple(sorted({0.0, *found}))


def tradeoff(
    task: EvalTask, ranker: BlendRanker, strengths: Sequence[float], served: float, report: ProgressCallback = silent
) -> dict[str, Any]:
    """Re-rank the lists of a task's positions with several strengths and measure them.

    Args:
        task: The task.
        ranker: What scores.
        strengths: Ascending, from 0. `served` is added.
        served: The strength that the run's bundle has.
        report: Called with the progress.

    Returns:
        `served` and, for each of METHODS, one entry per strength: `strength`, `metrics` (EACH and ALL), `intervals` (EACH),
        `change` (relative to strength 0, EACH and ALL) and `change intervals` (EACH), all 95 %, of users drawn with
        replacement; and `groups`: users and items -> group, judged, and `points` with GROUPED for each strength.
        Metrics that the data cannot give are left out.
    """
    strengths = sorted({0.0, *strengths, served})
    only = task.candidates if task.candidates is None or task.groups is None else task.candidates[task.groups]
    found = candidates(
        task.rows,
        task.positions,
        ranker.scorer(task.rows),
        ranker.item_vectors(),
        task.training.items,
        filter_seen=task.filter_seen,
        only=only,
    )
    out: dict[str, Any] = {"served": served, "judged": len(task.positions)}
    for method in METHODS:
        lists = []
        for number, strength in enumerate(strengths, start=1):
            lists.append(found.lists(strength, LIST, method))
            report(f"diversity, {method}", number, len(strengths), f"strength {strength:g}")
        out[method] = _figures(task, found, lists, strengths)
    return out


def _figures(task: EvalTask, found: Candidates, lists: list[Rows], strengths: Sequence[float]) -> dict[str, Any]:
    wanted, owners = task.rows.item[task.positions], owners_of(task)
    each: dict[str, Doubles] = {name: np.empty((len(wanted), len(lists))) for name in EACH}
    points: list[dict[str, Any]] = []
    items = len(task.training.items)
    for at, (some, strength) in enumerate(zip(lists, strengths, strict=True)):
        place = placed(some, wanted)
        values = {EACH[0]: gains(place), EACH[1]: hits(place), **found.variety(some)}
        for name, of in values.items():
            each[name][:, at] = of
        times = recommended_times(some.astype(np.int32), items)
        whole = {ALL[0]: float((times > 0).mean()), ALL[1]: gini(times)}
        points.append({"strength": strength, "metrics": whole, "intervals": {}, "change": {}, "change intervals": {}})
    for name, of in each.items():
        _add(points, name, of, owners)
    for name in ALL:
        for point in points:
            if points[0]["metrics"][name]:
                point["change"][name] = point["metrics"][name] / points[0]["metrics"][name] - 1.0
    return {"points": points, "groups": _groups(task, each, owners, strengths)}


def _add(points: list[dict[str, Any]], name: str, values: Doubles, owners: Rows) -> None:
    """Add a metric, f64 [Q, strengths], with its intervals to the points."""
    use = ~np.isnan(values).any(1)
    if not use.any():
        return
    means, drawn = values[use].mean(0), drawn_means(values[use], owners[use])
    for at, point in enumerate(points):
        point["metrics"][name] = float(means[at])
        point["intervals"][name] = ends(drawn[:, at])
        if means[0] > 0 and drawn[:, 0].min() > 0:
            point["change"][name] = float(means[at] / means[0] - 1.0)
            point["change intervals"][name] = ends(drawn[:, at] / drawn[:, 0] - 1.0)


def _groups(
    task: EvalTask, each: Mapping[str, Doubles], owners: Rows, strengths: Sequence[float]
) -> dict[str, list[dict[str, Any]]]:
    """Return the means of GROUPED for each group of users (by activity) and of items (by popularity)."""
    activity, names = activity_groups(training_events(task))
    popular = popularity_groups(training_counts(task.training))[task.rows.item[task.positions]]
    out: dict[str, list[dict[str, Any]]] = {"users": [], "items": []}
    for kind, group, labels in (("users", activity, names), ("items", popular, POPULARITY)):
        for number, label in enumerate(labels):
            inside = group == number
            if inside.any():
                out[kind].append(
                    {"group": label, "judged": int(inside.sum()), "points": _means(each, inside, strengths)}
                )
    return out


def _means(each: Mapping[str, Doubles], inside: Flags, strengths: Sequence[float]) -> list[dict[str, float]]:
    points: list[dict[str, float]] = [{"strength": strength} for strength in strengths]
    for name in GROUPED:
        values = each[name][inside]
        values = values[~np.isnan(values).any(1)]
        if len(values):
            for point, mean in zip(points, values.mean(0).tolist(), strict=True):
                point[name] = mean
    return points
