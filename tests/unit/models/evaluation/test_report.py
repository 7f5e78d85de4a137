"""The report: one page that loads nothing, and every figure as CSV."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from models.evaluation.report import write_report
from models.evaluation.report.plots import spread_out
from models.metrics.metrics import ACCURACY, SPREAD


def model(family: str, ndcg: float, **more: Any) -> dict[str, Any]:
    test = dict.fromkeys((*ACCURACY, *SPREAD), 0.1) | {"NDCG@10": ndcg, "diversity@10": 0.4 + ndcg}
    groups = [{"group": label, "judged": 5, "HR@10": 0.1, "NDCG@10": ndcg, "intervals": {"HR@10": [0, 1], "NDCG@10": [0, 1]}}
              for label in ("few", "many")]  # fmt: skip
    return {
        "family": family,
        "test": test,
        "validation": test,
        "intervals": {name: [0.05, 0.2] for name in ACCURACY} | {"NDCG@10 over other, %": [-1.0, 12.0]},
        "groups": {"users": groups, "items": groups},
        "seconds": 130.0,
        "seeds": [0, 1],
        "chosen": {"fade": 0.5},
        "curve": [],
    } | more  # fmt: skip


EPOCHS = [{"epoch": at, "loss": 5.0 - at, "hit10": 0.1, "ndcg10": 0.05 * at, "seconds": 10.0 * at} for at in range(3)]
FOUND = {
    "data": "<b>books</b>", "sha256": "0" * 64, "events": 100, "protocol": "leave-one-out", "settings": {},
    "in words": "The last choice.", "filter_seen": True, "judged": 10, "users": 9, "items": 20,
    "left out": [{"why": "users of fewer than 3 choices", "users": 2, "events": 3}], "notes": ["ten items or fewer"],
    "training": {"sha256": "1" * 64, "events": 80, "validation": 9},
    "models": {
        "popularity": model("popularity", 0.01),
        "freshet": model("hybrid", 0.09, curve=EPOCHS),
        "sasrec": model("deep", 0.08, curve=EPOCHS),
        "content": {"family": "content", "not run": "content: not run: no <item> texts"},
    },
}  # fmt: skip


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what would be loaded."""

    VOID = frozenset(("meta", "br", "path", "use"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new"
    write_report(FOUND, folder)
    return folder


def test_the_page_needs_nothing_else(folder: Path) -> None:
    text = (folder / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert all(link.startswith("#") for link in page.links)
    assert "@import" not in text
    assert re.search(r"url\((?!#)", text) is None
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in page.links} | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_the_page_tells_all_models(folder: Path) -> None:
    text = (folder / "report.html").read_text("utf-8")
    assert "<b>" not in text
    assert "no &lt;item&gt; texts" in text
    assert text.count("<svg") == 5  # intervals, diversity, two kinds of groups, curves
    assert text.index("freshet") < text.index("popularity</td>")
    assert "prefers-color-scheme: dark" in text
    assert "2.2 min" in text


def test_figures_come_back_from_the_files(folder: Path) -> None:
    assert json.loads((folder / "report.json").read_text("utf-8")) == FOUND
    with (folder / "report.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    (line,) = (one for one in lines if (one["model"], one["on"], one["metric"]) == ("freshet", "test", "NDCG@10"))
    assert (float(line["value"]), float(line["low"]), float(line["high"])) == (0.09, 0.05, 0.2)
    assert {one["model"] for one in lines} == {"popularity", "freshet", "sasrec"}


def test_without_texts_there_is_no_diversity(tmp_path: Path) -> None:
    models = {name: dict(of) for name, of in FOUND["models"].items() if "test" in of}  # type: ignore[attr-defined]
    for of in models.values():
        of["test"] = {name: value for name, value in of["test"].items() if name != "diversity@10"}
    write_report({**FOUND, "models": models}, tmp_path)
    assert (tmp_path / "report.html").read_text("utf-8").count("<svg") == 4


def test_ratings_are_a_table(tmp_path: Path) -> None:
    of = {"RMSE": 0.9, "MAE": 0.7, "seconds": 1.0, "intervals": {"RMSE": [0.8, 1.0], "MAE": [0.6, 0.8]}}
    found = {"data": "d", "sha256": "0", "events": 9, "protocol": "rating", "split": "random, 5 folds", "seeds": [0],
             "ratings": 9, "users": 3, "models": {"svd": of, "svdpp": {"not run": "too large"}}}  # fmt: skip
    write_report({**found, "also": [{**found, "split": "time"}]}, tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text.count("0.9000") == 2
    assert text.count("too large") == 2
    assert (tmp_path / "report.csv").read_text().count("RMSE") == 2


@pytest.mark.parametrize("values", [[0.9, 0.89, 0.88, 0.1], [0.05, 0.04, 0.03, 0.02, 0.01], [1.0]])
def test_labels_keep_their_distance(values: list[float]) -> None:
    positions = spread_out(values, 0.1, 1.0)
    assert all(high - low >= 0.1 - 1e-9 for high, low in pairwise(positions))
    assert min(positions) >= 0.05 - 1e-9


def test_what_diversity_costs_is_drawn(tmp_path: Path) -> None:
    def point(strength: float) -> dict[str, Any]:
        values = {"NDCG@10": 0.1 - 0.05 * strength, "ILD": 0.5 + strength / 4, "calibration KL": 1 - strength / 2}
        return {
            "strength": strength,
            "metrics": {"coverage@10": 0.3, **values},
            "intervals": {name: [value - 0.01, value + 0.01] for name, value in values.items()},
            "change": dict.fromkeys(values, 0.5 * strength),
            "change intervals": {name: [-0.1, 0.7] for name in values},
        }

    def group(name: str, gain: float) -> dict[str, Any]:
        points = [{"strength": one, "NDCG@10": gain - gain * one / 2} for one in (0.0, 0.4, 1.0)]
        return {"group": name, "judged": 5, "points": points}

    groups = [group("few <3", 0.1), group("unseen", 0.0)]
    curve = {"points": [point(one) for one in (0.0, 0.4, 1.0)], "groups": {"users": groups, "items": groups}}
    write_report(FOUND | {"diversity": {"served": 0.4, "judged": 6, "dpp": curve, "mmr": curve}}, tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert not page.open
    assert not [link for link in page.links if not link.startswith("#")]
    assert "0.4 (served)" in text
    assert "+20.0 % (-10.0 to +70.0)" in text
    assert "few &lt;3" in text
    assert "few <3" not in text
