"""The plots of the report as inline SVG.

Text and axes take the page's colour, so they are readable on light and on dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

METRIC: Final = "NDCG@10"
INK: Final = "#010203"  # becomes currentColor
FAMILIES: Final = {
    "popularity": "#8a8f98",
    "collaborative": "#3b82c4",
    "content": "#3f9b5f",
    "language model": "#b8860b",
    "deep": "#c2557a",
    "hybrid": "#7c5cc4",
}
OTHER: Final = "#8a8f98"
LINES: Final[Mapping[str, Mapping[str, str]]] = {
    "dpp": {"colour": "#7c5cc4", "line": "-"},
    "mmr": {"colour": "#b8860b", "line": "--"},
}
"""Method of re-ranking -> how its line looks."""
GROUPS: Final = ("#3b82c4", "#3f9b5f", "#b8860b", "#c2557a")
STYLE: Final = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
}

Models = Mapping[str, Mapping[str, Any]]
"""Name -> figures, for models that ran."""


def intervals(models: Models) -> str:
    """Plot NDCG@10 of every model with its 95 % interval, best on top."""
    names = by_metric(models)
    figure, axes = _figure(7.2, 0.7 + 0.27 * len(names))
    for y, name in enumerate(reversed(names)):
        value = models[name]["test"][METRIC]
        low, high = models[name]["intervals"][METRIC]
        axes.plot([low, high], [y, y], color=colour(models[name]), linewidth=2, alpha=0.55, solid_capstyle="round")
        axes.plot(value, y, "o", color=colour(models[name]), markersize=5)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set(xlabel=f"{METRIC} and its 95 % interval", xlim=(0, None), ylim=(-0.6, len(names) - 0.4))
    axes.grid(axis="x", alpha=0.15, color=INK)
    return _svg(figure, "intervals")


def scatter(models: Models) -> str:
    """Plot intra-list diversity against accuracy; "" if items have no texts.

    Names are on the right, ordered by accuracy.
    """
    names = [name for name in by_metric(models) if "diversity@10" in models[name]["test"]]
    if not names:
        return ""
    figure, axes = _figure(7.2, max(3.2, 0.28 * len(names)))
    x = [models[name]["test"]["diversity@10"] for name in names]
    y = [models[name]["test"][METRIC] for name in names]
    room = max(max(x) - min(x), 0.02)
    top = 1.12 * max(*y, 1e-6)
    right = max(x) + 0.12 * room
    axes.set(xlabel="intra-list diversity@10: 1 - mean cosine of item texts", ylabel=METRIC, ylim=(0, top))
    axes.set_xlim(min(x) - 0.08 * room, right + 0.42 * room)
    for name, at, value, label in zip(names, x, y, spread_out(y, top / (len(names) + 3), top), strict=True):
        axes.plot([at, right], [value, label], color=INK, linewidth=0.5, alpha=0.25)
        axes.plot(at, value, "o", color=colour(models[name]), markersize=7)
        axes.text(right + 0.01 * room, label, name, va="center", color=INK)
    axes.grid(alpha=0.12, color=INK)
    return _svg(figure, "scatter")


def groups(models: Models, kind: str) -> str:
    """Plot bars of NDCG@10 by group, with intervals. `kind` is users (by training events) or items (by popularity)."""
    names = by_metric(models)
    labels = list(dict.fromkeys(one["group"] for name in names for one in models[name]["groups"][kind]))
    figure, panels = _figure(max(3.4, 1.35 + 1.55 * len(labels)), 0.95 + 0.22 * len(names), len(labels), shared=True)
    for axes, label in zip(np.atleast_1d(panels), labels, strict=True):
        judged = 0
        for y, name in enumerate(reversed(names)):
            (found,) = (one for one in models[name]["groups"][kind] if one["group"] == label)
            judged, value = found["judged"], found[METRIC]
            low, high = found["intervals"][METRIC]
            axes.barh(y, value, color=colour(models[name]), alpha=0.75, height=0.7)
            axes.plot([low, high], [y, y], color=INK, linewidth=0.8, alpha=0.7)
        axes.set_title(f"{label}\nn = {judged:,}", fontsize=9)
        axes.xaxis.set_major_locator(_locator(3))
    ends = [one["intervals"][METRIC][1] for name in names for one in models[name]["groups"][kind]]
    np.atleast_1d(panels)[0].set_xlim(0, 1.03 * max(*ends, 1e-6))  # of all panels
    np.atleast_1d(panels)[0].set_yticks(range(len(names)), list(reversed(names)))
    figure.supxlabel(METRIC, fontsize=9, color=INK)
    return _svg(figure, f"groups-{kind}")


def curves(models: Models) -> str:
    """Plot loss and validation NDCG@10 of each epoch over the minutes of training; "" if no model has a curve."""
    names = [name for name in models if models[name]["curve"]]
    if not names:
        return ""
    figure, (left, right) = _figure(7.2, 2.9, 2)
    marks = ("-", "--", ":", "-.")
    for at, name in enumerate(names):
        curve = models[name]["curve"]
        minutes = [epoch["seconds"] / 60 for epoch in curve]
        line = {"linestyle": marks[at % len(marks)], "color": colour(models[name]), "linewidth": 1.5}
        left.plot(minutes, [epoch["loss"] for epoch in curve], label=name, **line)
        right.plot(minutes, [epoch["ndcg10"] for epoch in curve], **line)
    left.set(xlabel="minutes of training", ylabel="loss, nats per state")
    right.set(xlabel="minutes of training", ylabel=f"validation {METRIC}", ylim=(0, None))
    left.legend(frameon=False, labelcolor=INK)
    return _svg(figure, "curves")


def tradeoff(found: Mapping[str, Any]) -> str:
    """Plot diversity and calibration against accuracy, one point per strength, with intervals of the accuracy."""
    points = found["dpp"]["points"]
    names = [name for name in ("ILD", "ILD of categories", "calibration KL") if name in points[0]["metrics"]]
    figure, panels = _figure(2.6 * len(names) + 0.6, 3.2, len(names))
    for axes, name in zip(np.atleast_1d(panels), names, strict=True):
        for method, look in LINES.items():
            points = found[method]["points"]
            x = [point["metrics"][name] for point in points]
            y = [point["metrics"][METRIC] for point in points]
            axes.plot(x, y, color=look["colour"], linewidth=1.2, marker=".", markersize=4, linestyle=look["line"])
            if method == "dpp":
                for point, at, value in zip(points, x, y, strict=True):
                    low, high = point["intervals"][METRIC]
                    axes.plot([at, at], [low, high], color=look["colour"], linewidth=0.7, alpha=0.4)
                    if point["strength"] == found["served"]:
                        axes.plot(
                            at, value, "o", color=look["colour"], markersize=8, fillstyle="none", markeredgewidth=1.5
                        )
                for at in (0, -1):
                    axes.annotate(
                        f"{points[at]['strength']:g}", (x[at], y[at]), (4, 4), textcoords="offset points", color=INK
                    )
        axes.set(xlabel=name, ylim=(0, None))
        axes.xaxis.set_major_locator(_locator(4))
        axes.grid(alpha=0.12, color=INK)
    first = np.atleast_1d(panels)[0]
    first.set_ylabel(METRIC)
    for method, look in LINES.items():
        first.plot([], [], color=look["colour"], linestyle=look["line"], marker=".", label=method.upper())
    first.legend(frameon=False, labelcolor=INK, loc="lower left")
    return _svg(figure, "tradeoff")


def tradeoff_groups(found: Mapping[str, Any]) -> str:
    """Plot NDCG@10 by strength for each group of users and of items, relative to strength 0."""
    figure, panels = _figure(7.2, 2.9, 2, shared=True)
    for axes, kind in zip(panels, ("users", "items"), strict=True):
        for at, one in enumerate(found["dpp"]["groups"][kind]):
            first = one["points"][0][METRIC]
            if not first:
                continue
            x = [point["strength"] for point in one["points"]]
            y = [100.0 * (point[METRIC] / first - 1.0) for point in one["points"]]
            axes.plot(
                x, y, color=GROUPS[at % len(GROUPS)], linewidth=1.3, label=f"{one['group']} (n = {one['judged']:,})"
            )
        axes.axvline(found["served"], color=INK, linewidth=0.6, alpha=0.4)
        axes.set_title(kind, fontsize=9)
        axes.set(xlabel="strength")
        axes.legend(frameon=False, labelcolor=INK, fontsize=8, loc="lower left")
        axes.grid(alpha=0.12, color=INK)
    panels[0].set_ylabel(f"{METRIC}, change in %")
    return _svg(figure, "tradeoff-groups")


def by_metric(models: Models) -> list[str]:
    """Return the names, highest test NDCG@10 first."""
    return sorted(models, key=lambda name: -float(models[name]["test"][METRIC]))


def colour(of: Mapping[str, Any]) -> str:
    """Return the colour of a model's family."""
    return FAMILIES.get(of["family"], OTHER)


def spread_out(values: Sequence[float], gap: float, top: float) -> list[float]:
    """Place labels near their values (highest first), at least `gap` apart and below `top`."""
    heights: list[float] = []
    for value in values:
        heights.append(min(value, (heights[-1] if heights else top) - gap))
    low = 0.5 * gap - heights[-1] if heights else 0.0
    if low > 0:  # pushed out below the axis: place them again from the bottom up
        for at in reversed(range(len(heights))):
            floor = 0.5 * gap if at == len(heights) - 1 else heights[at + 1] + gap
            heights[at] = max(heights[at], floor)
    return heights


def _figure(width: float, height: float, columns: int = 1, *, shared: bool = False) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            1, columns, figsize=(width, height), layout="constrained", sharex=shared, sharey=shared
        )
        return figure, axes


def _locator(most: int) -> Any:
    # The number of the last tick would overlap the first one of the next panel.
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, prune="upper")


def _svg(figure: Any, name: str) -> str:
    """Return the plot as SVG. `name` makes its ids unique within the page."""
    from matplotlib import pyplot

    out = io.StringIO()
    with pyplot.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', svg)
    size = f"{float(width.group(1)) * 4 / 3:.0f}px" if width else "100%"
    return re.sub(
        r'<svg([^>]*?) (?:width|height)="[^"]*"([^>]*?) (?:width|height)="[^"]*"',
        rf'<svg\1 style="width:{size}"\2',
        svg,
        count=1,
    )
