"""The report as one HTML page. It loads nothing from elsewhere, and is light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from models.evaluation.report import plots

FOUR: Final = ("collaborative", "content", "deep", "language model", "hybrid", "popularity")
DRAWN: Final = (
    "Intervals: 95 %, users drawn 2,000 times with replacement. Over the best other: the paired difference in NDCG@10."
)
STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #5f6770; --line: #d9dde2; --page: #ffffff; --best: #eef4fb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --dim: #9aa3ad; --line: #363c44; --page: #16191d; --best: #1f2a37; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 62rem; margin: 2rem auto;
  padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.4rem; } h3 { font-size: 1rem; }
p, figcaption, .dim { max-width: 52rem; } figcaption, .dim { color: var(--dim); font-size: .87rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--dim); } th:first-child, td:first-child, td.text, th.text { text-align: left; }
tr.best td { background: var(--best); } td.wrap { white-space: normal; text-align: left; }
figure { margin: .8rem 0; overflow-x: auto; } svg { max-width: 100%; height: auto; }
.key { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .35rem; }
details { margin: .4rem 0; } pre { font-size: .8rem; overflow-x: auto; }
"""


def page(found: Mapping[str, Any]) -> str:
    """Return the page for what models.evaluation.evaluate.evaluate returned."""
    title = f"{found['data']}: {found['protocol']}"
    tasks = [found, *found.get("also", ())]
    body = [f"<h1>{escape(title)}</h1>", _about(found)]
    body += [_ratings(one) if one["protocol"] == "rating" else _task(one, len(tasks) > 1) for one in tasks]
    if "lift" in found:
        body.append(_lift(found["lift"]))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>\n{chr(10).join(body)}\n</body></html>\n"
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
    return f"<p>{escape(' '.join(lines))}</p>"


def _task(one: Mapping[str, Any], named: bool) -> str:
    models = {name: of for name, of in one["models"].items() if "not run" not in of}
    part = str(one["settings"].get("part", ""))
    out = [f"<h2>{escape(part.capitalize() or one['protocol'])}</h2>"] if named else []
    out.append(f'<p class="dim">{one["judged"]:,} choices of {one["users"]:,} users are judged.</p>')
    out.append(_left_out(one))
    if models:
        out += [
            "<h2>Kinds of model</h2>" if not named else "<h3>Kinds of model</h3>",
            '<p class="dim">For each kind, the model that is best on the validation part, judged on the test part.</p>',
            _kinds(models),
            "<h3>All models</h3>",
            _accuracy(models),
            _figure(plots.intervals(models), DRAWN),
            "<h3>Lists</h3>",
            _lists(models),
            _figure(plots.scatter(models), "Diversity against accuracy. Colours are those of the kinds above."),
            "<h3>Fairness</h3>",
            _figure(plots.groups(models, "users"), "Users by how many events they have in the training part."),
            _figure(plots.groups(models, "items"), "Items taken, by how often they were chosen in training. Head and tail are "
                    "the most and the least chosen items that make up a fifth of all choices each."),
            _curves(models),
        ]  # fmt: skip
    return "\n".join([*out, _refused(one["models"]), _settings(models)])


def _left_out(one: Mapping[str, Any]) -> str:
    """Return the list of what is not evaluated, and the notes."""
    lines = [
        f"Not judged: {reason['events']:,} events of {reason['users']:,} users: {reason['why']}."
        for reason in one["left out"]
    ]
    lines += [f"Note: {note}." for note in one["notes"]]
    return '<ul class="dim">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _kinds(models: plots.Models) -> str:
    rows = []
    for family in FOUR:
        inside = [name for name in models if models[name]["family"] == family]
        if inside:
            name = max(inside, key=lambda name: float((models[name]["validation"] or models[name]["test"])["NDCG@10"]))
            test = models[name]["test"]
            rows.append([_key(models[name]) + escape(family), escape(name), *_numbers(test, ("HR@10", "NDCG@10", "MRR@10")),
                         *_numbers(test, ("diversity@10", "coverage@10", "novelty@10")), _seconds(models[name])])  # fmt: skip
    head = ("kind", "model", "HR@10", "NDCG@10", "MRR@10", "diversity", "coverage", "novelty, bits", "training")
    return _table(head, rows)


def _accuracy(models: plots.Models) -> str:
    metrics = ("HR@10", "HR@20", "NDCG@10", "NDCG@20", "MRR@10")
    rows = [
        [_key(models[name]) + escape(name), *_numbers(models[name]["test"], metrics), _over(models[name]["intervals"]),
         _seconds(models[name]), str(len(models[name]["seeds"]))]
        for name in plots.by_metric(models)
    ]  # fmt: skip
    head = ("model", *metrics, "over the best other", "training", "seeds")
    return _table(head, rows, best=True) + _every(models)


def _every(models: plots.Models) -> str:
    """Return all metrics at all cuts, with models as columns, folded away."""
    names = plots.by_metric(models)
    metrics = [name for name in models[names[0]]["test"] if name.endswith(("@5", "@10", "@20"))]
    rows = [[escape(metric), *(_numbers(models[name]["test"], [metric])[0] for name in names)] for metric in metrics]
    return f"<details><summary>Every metric</summary>{_table(('metric', *names), rows)}</details>"


def _lists(models: plots.Models) -> str:
    metrics = ("coverage@10", "diversity@10", "novelty@10", "Gini@10")
    rows = [[escape(name), *_numbers(models[name]["test"], metrics)] for name in plots.by_metric(models)]
    words = (
        "Coverage: share of the items that are recommended to at least one user. Diversity: 1 minus the mean cosine of the texts "
        "of a list's items. Novelty: mean -log2 of the items' share of all choices. Gini: 0 if all items are recommended equally "
        "often."
    )
    return f'<p class="dim">{words}</p>' + _table(("model", *metrics), rows)


def _curves(models: plots.Models) -> str:
    drawn = plots.curves(models)
    return f"<h3>Training</h3>{_figure(drawn, 'Epochs of the networks, first seed.')}" if drawn else ""


def _lift(lift: Mapping[str, Any]) -> str:
    rows = []
    for name, of in lift.items():
        cells = []
        for metric in ("HR@10", "NDCG@10"):
            low, high = of[metric]["interval"]
            cells += [f"{of[metric]['lift']:+.4f}", f"{low:+.4f} to {high:+.4f}"]
        rows.append([escape(name), *cells])
    words = "The whole history compared with that of the new scene alone, on the same choices. Intervals are paired, over users."
    head = ("model", "HR@10", "95 %", "NDCG@10", "95 %")
    return f'<h2>What other scenes add</h2><p class="dim">{words}</p>' + _table(head, rows)


def _ratings(one: Mapping[str, Any]) -> str:
    ran = {name: of for name, of in one["models"].items() if "not run" not in of}
    rows = []
    for name in sorted(ran, key=lambda name: float(ran[name]["RMSE"])):
        cells = [escape(name)]
        for metric in ("RMSE", "MAE"):
            low, high = ran[name]["intervals"][metric]
            cells += [f"{ran[name][metric]:.4f}", f"{low:.4f} to {high:.4f}"]
        rows.append([*cells, _seconds(ran[name])])
    head = ("model", "RMSE", "95 %", "MAE", "95 %", "training")
    return f"<h2>{escape(one['split'].capitalize())}</h2>" + _table(head, rows, best=True) + _refused(one["models"])


def _refused(models: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"<li>{escape(name)}: {escape(of['not run'])}</li>" for name, of in models.items() if "not run" in of]
    return f'<h3>Not run</h3><ul class="dim">{"".join(lines)}</ul>' if lines else ""


def _settings(models: plots.Models) -> str:
    rows = [[escape(name), ", ".join(f"{escape(str(key))} {escape(_short(value))}" for key, value in of["chosen"].items())]
            for name, of in models.items() if of["chosen"]]  # fmt: skip
    if not rows:
        return ""
    return f"<details><summary>Settings that validation chose</summary>{_table(('model', 'chosen'), rows, wrap=True)}</details>"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, best: bool = False, wrap: bool = False) -> str:
    """Return a table. Cells are HTML. With `best` the first row is highlighted."""
    words = ("model", "kind", "chosen")
    marks = [
        ' class="wrap"' if wrap and at else ' class="text"' if name in words else "" for at, name in enumerate(head)
    ]
    top = "".join(f"<th{mark}>{escape(name)}</th>" for name, mark in zip(head, marks, strict=True))
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(row, marks, strict=True))
        lines.append(f'<tr class="best">{cells}</tr>' if best and not number else f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _figure(drawn: str, words: str) -> str:
    return f"<figure>{drawn}<figcaption>{escape(words)}</figcaption></figure>" if drawn else ""


def _numbers(of: Mapping[str, float], metrics: Sequence[str]) -> list[str]:
    return [
        f"{of[name]:.2f}" if name.startswith("novelty") else f"{of[name]:.4f}" if name in of else "-"
        for name in metrics
    ]


def _over(intervals: Mapping[str, Sequence[float]]) -> str:
    for name, (low, high) in intervals.items():
        if name.startswith("NDCG@10 over "):
            other = name.removeprefix("NDCG@10 over ").removesuffix(", %")
            return f"{low:+.1f} to {high:+.1f} % ({escape(other)})"
    return "-"


def _key(of: Mapping[str, Any]) -> str:
    return f'<span class="key" style="background:{plots.colour(of)}"></span>'


def _seconds(of: Mapping[str, Any]) -> str:
    seconds = float(of["seconds"])
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
