"""The report as one HTML page. It loads nothing from elsewhere, and is light or dark as the reader's system is.

Here its figures become words and tables; the folder `templates` makes them HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from models.evaluation.report import plots

FAMILIES: Final = ("collaborative", "content", "deep", "language model", "hybrid", "popularity")
TEMPLATES: Final = Environment(
    loader=PackageLoader("models.evaluation.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Cell(NamedTuple):
    """A cell of a table: its text, after a dot of `colour`; "" for no dot."""

    text: str
    colour: str = ""


class Table(NamedTuple):
    """A table.

    Attributes:
        head: Names of the columns.
        rows: Cells, row by row.
        best: Whether the first row is highlighted.
        wrap: Whether cells after the first may have several lines.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    best: bool = False
    wrap: bool = False


def page(found: Mapping[str, Any]) -> str:
    """Return the page for what models.evaluation.evaluate.evaluate returned."""
    tasks = [found, *found.get("also", ())]
    return TEMPLATES.get_template("report.html").render(
        title=f"{found['data']}: {found['protocol']}",
        about=_about(found),
        tasks=[_ratings(one) if one["protocol"] == "rating" else _ranking(one) for one in tasks],
        named=len(tasks) > 1,
        lift=_lift(found["lift"]) if "lift" in found else None,
        diversity=_diversity(found["diversity"]) if "diversity" in found else None,
    )


def _about(found: Mapping[str, Any]) -> str:
    lines = [f"{found['events']:,} events, sha256 {found['sha256'][:16]}."]
    if found["protocol"] == "rating":
        lines.append(f"{found['ratings']:,} ratings of {found['users']:,} users. The review of a rating is never read.")
    else:
        seen = (
            "Items that the user has already interacted with are left out."
            if found["filter_seen"]
            else "Items that the user has already interacted with are ranked too."
        )
        lines.append(f"{found['items']:,} items; {found['training']['events']:,} events to learn from. {seen}")
        lines.append(found["in words"])
    return " ".join(lines)


def _ranking(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return what templates/ranking.html shows of a task."""
    models = {name: of for name, of in one["models"].items() if "not run" not in of}
    about = {
        "template": "ranking.html",
        "heading": str(one["settings"].get("part", "")).capitalize() or one["protocol"],
        "judged": one["judged"],
        "users": one["users"],
        "left_out": _left_out(one),
        "ran": bool(models),
        "not_run": _not_run(one["models"]),
        "chosen": _chosen(models),
    }
    if not models:
        return about
    return about | {
        "kinds": _kinds(models),
        "accuracy": _accuracy(models),
        "every": _every(models),
        "lists": _lists(models),
        "intervals": plots.intervals(models),
        "diversity": plots.scatter(models),
        "by_user": plots.groups(models, "users"),
        "by_item": plots.groups(models, "items"),
        "curves": plots.curves(models),
    }


def _ratings(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return what templates/ratings.html shows of a task."""
    ran = {name: of for name, of in one["models"].items() if "not run" not in of}
    rows = []
    for name in sorted(ran, key=lambda name: float(ran[name]["RMSE"])):
        texts = [name]
        for metric in ("RMSE", "MAE"):
            low, high = ran[name]["intervals"][metric]
            texts += [f"{ran[name][metric]:.4f}", f"{low:.4f} to {high:.4f}"]
        rows.append(_row(*texts, _seconds(ran[name])))
    errors = Table(("model", "RMSE", "95 %", "MAE", "95 %", "training"), rows, best=True)
    return {
        "template": "ratings.html",
        "heading": one["split"].capitalize(),
        "errors": errors,
        "not_run": _not_run(one["models"]),
    }


def _left_out(one: Mapping[str, Any]) -> list[str]:
    """Return what is not evaluated, and the notes."""
    lines = [
        f"Not evaluated: {reason['events']:,} events of {reason['users']:,} users: {reason['why']}."
        for reason in one["left out"]
    ]
    return lines + [f"Note: {note}." for note in one["notes"]]


def _kinds(models: plots.Models) -> Table:
    metrics = ("HR@10", "NDCG@10", "MRR@10", "diversity@10", "coverage@10", "novelty@10")
    rows = []
    for family in FAMILIES:
        inside = [name for name in models if models[name]["family"] == family]
        if inside:
            name = max(inside, key=lambda name: float((models[name]["validation"] or models[name]["test"])["NDCG@10"]))
            of = models[name]
            rows.append([Cell(family, plots.colour(of)), *_row(name, *_numbers(of["test"], metrics), _seconds(of))])
    head = ("kind", "model", "HR@10", "NDCG@10", "MRR@10", "diversity", "coverage", "novelty, bits", "training")
    return Table(head, rows)


def _accuracy(models: plots.Models) -> Table:
    metrics = ("HR@10", "HR@20", "NDCG@10", "NDCG@20", "MRR@10")
    rows = []
    for name in plots.by_metric(models):
        of = models[name]
        texts = (*_numbers(of["test"], metrics), _over(of["intervals"]), _seconds(of), str(len(of["seeds"])))
        rows.append([Cell(name, plots.colour(of)), *_row(*texts)])
    return Table(("model", *metrics, "over the best other", "training", "seeds"), rows, best=True)


def _every(models: plots.Models) -> Table:
    """Return all metrics at all cuts, with models as columns."""
    names = plots.by_metric(models)
    metrics = [name for name in models[names[0]]["test"] if name.endswith(("@5", "@10", "@20"))]
    rows = [_row(metric, *(_numbers(models[name]["test"], [metric])[0] for name in names)) for metric in metrics]
    return Table(("metric", *names), rows)


def _lists(models: plots.Models) -> Table:
    metrics = ("coverage@10", "diversity@10", "novelty@10", "Gini@10")
    rows = [_row(name, *_numbers(models[name]["test"], metrics)) for name in plots.by_metric(models)]
    return Table(("model", *metrics), rows)


def _lift(lift: Mapping[str, Any]) -> Table:
    rows = []
    for name, of in lift.items():
        texts = [name]
        for metric in ("HR@10", "NDCG@10"):
            low, high = of[metric]["interval"]
            texts += [f"{of[metric]['lift']:+.4f}", f"{low:+.4f} to {high:+.4f}"]
        rows.append(_row(*texts))
    return Table(("model", "HR@10", "95 %", "NDCG@10", "95 %"), rows)


def _diversity(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what templates/diversity.html shows of models.evaluation.tradeoff.tradeoff."""
    points = found["dpp"]["points"]
    names = list(points[0]["metrics"])
    names = [name for name in points[0]["intervals"] if name in names] + [
        name for name in names if name not in points[0]["intervals"]
    ]
    rows, changes = [], []
    for point in points:
        head = f"{point['strength']:g}{' (served)' if point['strength'] == found['served'] else ''}"
        rows.append(_row(head, *(_with_interval(point, name) for name in names)))
        changes.append(_row(head, *(_change(point, name) for name in names)))
    return {
        "served": found["served"],
        "figures": Table(("strength", *names), rows),
        "changes": Table(("strength", *names), changes),
        "curve": plots.tradeoff(found),
        "groups": plots.tradeoff_groups(found),
    }


def _with_interval(point: Mapping[str, Any], name: str) -> str:
    text = f"{point['metrics'][name]:.4f}"
    if name not in point["intervals"]:
        return text
    low, high = point["intervals"][name]
    return f"{text} ({low:.3f}-{high:.3f})"


def _change(point: Mapping[str, Any], name: str) -> str:
    if name not in point["change"]:
        return "-"
    text = f"{100 * point['change'][name]:+.1f} %"
    if name not in point["change intervals"]:
        return text
    low, high = (100 * end for end in point["change intervals"][name])
    return f"{text} ({low:+.1f} to {high:+.1f})"


def _not_run(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{name}: {of['not run']}" for name, of in models.items() if "not run" in of]


def _chosen(models: plots.Models) -> Table:
    """Return the settings that validation chose, of each model that has any."""
    rows = [
        _row(name, ", ".join(f"{key} {_short(value)}" for key, value in of["chosen"].items()))
        for name, of in models.items()
        if of["chosen"]
    ]
    return Table(("model", "chosen"), rows, wrap=True)


def _row(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _numbers(of: Mapping[str, float], metrics: Sequence[str]) -> list[str]:
    return [
        f"{of[name]:.2f}" if name.startswith("novelty") else f"{of[name]:.4f}" if name in of else "-"
        for name in metrics
    ]


def _over(intervals: Mapping[str, Sequence[float]]) -> str:
    for name, (low, high) in intervals.items():
        if name.startswith("NDCG@10 over "):
            other = name.removeprefix("NDCG@10 over ").removesuffix(", %")
            return f"{low:+.1f} to {high:+.1f} % ({other})"
    return "-"


def _seconds(of: Mapping[str, Any]) -> str:
    seconds = float(of["seconds"])
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
