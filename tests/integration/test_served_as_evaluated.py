"""The bundle that serves is the one that was evaluated: fed the same events, a real worker hits as often as the harness.

It runs by this file's name; test_ranked_alike.py compares lists and scores in `make test-faults`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.demo.progress import Board
from deploy.demo.run import Options, run
from models.data import DataSet, read
from models.evaluation.evaluate import Question, evaluate
from models.network.text import TextEncoder
from models.training.run import load_run
from models.training.train import TrainSettings
from stream.settings import load
from tests.real_data import first_raters

pytestmark = [pytest.mark.integration, pytest.mark.slow]
USERS = 250


@pytest.fixture
def data(movielens: Path) -> DataSet:
    return first_raters(read(movielens), USERS)


def hit_rate(report: dict[str, Any]) -> float:
    """HR@10 of the lists as they are served: re-ranked with the run's own diversity."""
    if "diversity" not in report:  # strength 0
        return float(report["models"]["freshet"]["test"]["HR@10"])
    found = report["diversity"]
    (point,) = (one for one in found["dpp"]["points"] if one["strength"] == found["served"])
    return float(point["metrics"]["HR@10"])


@pytest.mark.timeout(600)
def test_the_worker_hits_as_often_as_the_harness_says(data: DataSet, tmp_path: Path) -> None:
    settings = TrainSettings(epochs=2, max_minutes=2.0)
    served, code = run(data, load(), settings, Options(tmp_path), Board())
    assert code == 0

    (folder,) = tmp_path.glob("trained-*")
    trained = load_run(folder)
    report = evaluate(data, Question(run=trained), TextEncoder())
    evaluated = hit_rate(report)
    print(
        f"diversity {trained.diversity.strength:g}, HR@10 of {report['judged']} choices: "
        f"served {served.hit10:.5f}, evaluated {evaluated:.5f}"
    )
    assert report["judged"] == served.events > 1000
    assert served.hit10 > served.hit10_popularity
    assert served.hit10 == pytest.approx(evaluated, abs=1e-3)
