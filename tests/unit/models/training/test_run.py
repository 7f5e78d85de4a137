"""The run folder: what is written is what is read, and what does not fit is named."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.training.run import load_run, save_run
from stream.core.errors import DataError
from tests.bundles import ring, tiny_run


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = tiny_run(9)
    save_run(run, tmp_path)
    again = load_run(tmp_path)
    for name in (
        "spec",
        "item_ids",
        "data",
        "metrics",
        "blend",
        "protocol",
        "intervals",
        "seconds",
        "seeds",
        "max_tokens",
    ):
        assert getattr(again, name) == getattr(run, name), name
    assert asdict(again.network.size) == asdict(run.network.size)
    for mine, other in (
        (again.neighbours.index, run.neighbours.index),
        (again.neighbours.weight, run.neighbours.weight),
    ):
        assert mine.dtype == other.dtype
        assert np.array_equal(mine, other)


@pytest.mark.parametrize(
    ("index", "weight", "reason"),
    [
        (ring(8, 2).index, ring(8, 2).weight, r"neighbours: index \(9, 2\)"),
        (ring(9, 2).index, ring(9, 2).weight.astype(np.float64), "float64"),
        (ring(9, 2).index, ring(9, 2).weight * np.nan, "finite"),
        (ring(9, 2).index * 2, ring(9, 2).weight, "outside 0 .. 9"),
    ],
)
def test_neighbours_that_do_not_fit(tmp_path: Path, index: Any, weight: Any, reason: str) -> None:
    save_run(tiny_run(9), tmp_path)
    np.savez(tmp_path / "neighbours.npz", index=index, weight=weight)
    with pytest.raises(DataError, match=reason):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"schema": 1}, "schema 1"), ({"blend": {"last": 99}}, "last in 0"), ({"blend": {"faded": 1}}, "faded")],
)
def test_a_run_json_that_does_not_fit(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    save_run(tiny_run(9), tmp_path)
    about = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(about | change))
    with pytest.raises(DataError, match=reason):
        load_run(tmp_path)
