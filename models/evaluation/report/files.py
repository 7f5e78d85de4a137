"""Writes report.html, report.json and report.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from models.evaluation.report.page import page

COLUMNS: Final = ("data", "protocol", "part", "filter_seen", "judged", "model", "family", "seeds", "seconds", "on", "metric",
                  "value", "low", "high")  # fmt: skip


def write_report(found: Mapping[str, Any], folder: Path) -> None:
    """Write the report of what models.evaluation.evaluate.evaluate returned.

    It creates the folder and replaces older reports.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(found, indent=1), "utf-8")
    (folder / "report.csv").write_text(table(found), "utf-8")
    (folder / "report.html").write_text(page(found), "utf-8")


def table(found: Mapping[str, Any]) -> str:
    """Return CSV, one figure per line. on: test or validation. low, high: 95 %, empty if there is no interval."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in (found, *found.get("also", ())):
        writer.writerows(_lines(str(found["data"]), one))
    return out.getvalue()


def _lines(data: str, one: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    part = one.get("split") or one["settings"].get("part", "")
    task = (data, one["protocol"], part, one.get("filter_seen", ""), one.get("judged", one.get("ratings")))
    for name, of in one["models"].items():
        if "not run" in of:
            continue
        seeds = len(of.get("seeds", one.get("seeds", ())))
        model = (name, of.get("family", ""), seeds, of["seconds"])
        parts = {on: of[on] for on in ("test", "validation") if on in of}
        parts = parts or {"test": {metric: of[metric] for metric in ("RMSE", "MAE")}}
        for on, values in parts.items():
            for metric, value in values.items():
                low, high = of["intervals"].get(metric, ("", "")) if on == "test" else ("", "")
                yield (*task, *model, on, metric, value, low, high)
