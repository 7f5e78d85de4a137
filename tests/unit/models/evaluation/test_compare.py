"""The harness: what is kept is not fitted again, an interrupted fit goes on, a model that cannot run is named; the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.data import generate
from models.data.histories import Floats, Histories, Rows
from models.evaluation.ablation import PARTS, row_name
from models.evaluation.compare import compare
from models.evaluation.evaluate import Question, evaluate
from models.evaluation.protocols import make_tasks
from models.evaluation.registry import COMPARED, Wanted, make
from models.evaluation.summary import figures, lift, training_counts
from models.interfaces import EvalTask, Model, ProgressCallback, Scorer, TrainingData, silent
from models.network.text import TEXT_DIM
from stream.core.errors import DataError

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = generate(users=40, items=50, events=14)


def no_text(texts: Sequence[str]) -> Floats:
    return np.zeros((len(texts), TEXT_DIM), np.float32)


@pytest.fixture(scope="module")
def task() -> EvalTask:
    (task,) = make_tasks("leave-one-out", DATA, no_text)
    return task


@dataclass
class Told:
    """Scores as given, to look at what the harness makes of them. fits: seeds that it was fitted with."""

    score: Callable[[Histories, Rows, int], torch.Tensor]
    name: str = "told"
    family: str = "other"
    settings: Mapping[str, Any] = field(default_factory=dict)
    fits: list[int] = field(default_factory=list)
    fails: int = 0

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Any:
        self.fits.append(seed)
        if checkpoint is not None:
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            done = int(checkpoint.read_text()) if checkpoint.exists() else 0
            checkpoint.write_text(str(done + 1))
            report("epoch", done + 1, 2, "")
            if done < self.fails:
                raise KeyboardInterrupt
        return Ranker(lambda rows, positions: self.score(rows, positions, seed))


@dataclass
class Ranker:
    score: Callable[[Histories, Rows], torch.Tensor]

    def scorer(self, rows: Histories) -> Scorer:
        return lambda positions: self.score(rows, positions)


def oracle(rows: Histories, positions: Rows, seed: int) -> torch.Tensor:
    """The item taken first; with an odd seed, second after the item of row 1 (or 2)."""
    scores = torch.zeros(len(positions), len(DATA.items) + 1)
    scores[torch.arange(len(positions)), torch.from_numpy(rows.item[positions])] = 1.0
    if seed % 2:
        other = np.where(rows.item[positions] == 1, 2, 1)
        scores[torch.arange(len(positions)), torch.from_numpy(other)] = 2.0
    return scores


def wrong(rows: Histories, positions: Rows, seed: int) -> torch.Tensor:
    return -oracle(rows, positions, 0)


def test_every_name_makes_its_model() -> None:
    models = make(Wanted(["all"], "sparse", 1.5))
    assert [model.name for model in models] == list(COMPARED)
    assert {model.family for model in models} == {  # type: ignore[attr-defined]
        "popularity", "collaborative", "content", "language model", "deep", "hybrid",
    }  # fmt: skip
    by_name = {model.name: model for model in models}
    for name in ("freshet", "sasrec", "gru4rec"):
        assert by_name[name].settings["preset"] == "sparse"
        assert by_name[name].settings["fit"]["max_minutes"] == 1.5


def test_ablations_leave_out_what_the_data_has(task: EvalTask) -> None:
    rows = [model.name for model in make(Wanted(["ablations"]))]
    assert rows == ["freshet", *(row_name(part) for part in PARTS)]
    models = make(Wanted(["without-gap", "without-text", "without-comment"], max_minutes=0.001))
    (found,) = compare([task], models)
    refused = {outcome.name: outcome.refused for outcome in found.outcomes if outcome.refused}
    assert refused == {f"without-{part}": f"the data has no {part} to read" for part in ("text", "comment")}


def test_distances_to_freshet_are_told(task: EvalTask) -> None:
    (found,) = compare([task], [Told(oracle), Told(wrong, "wrong"), Told(wrong, "freshet")])
    assert figures(found)["models"]["wrong"]["intervals"]["NDCG@10 - freshet"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("names", "preset", "message"),
    [(["nobody"], "auto", "nobody"), ([], "auto", "none"), (["als"], "x", "preset x")],
)
def test_a_name_that_does_not_exist_is_said(names: list[str], preset: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(Wanted(names, preset))


def test_figures_are_means_over_seeds(task: EvalTask) -> None:
    (found,) = compare([replace(task, filter_seen=False)], [Told(oracle), Told(wrong, "wrong")], (0, 1))
    row = figures(found)["models"]["told"]
    assert row["test"]["HR@10"] == 1.0
    assert row["test"]["NDCG@10"] == pytest.approx((1 + 1 / np.log2(3)) / 2)
    assert row["by seed"]["MRR@10"] == pytest.approx([1.0, 0.5])
    assert row["intervals"]["HR@10 - wrong"] == [1.0, 1.0]
    assert "HR@10 over wrong, %" not in row["intervals"]  # nothing to divide by
    assert row["seeds"] == [0, 1]
    assert set(row["validation"]) >= {"HR@10", "NDCG@10"}


def test_popularity_is_what_counting_says(task: EvalTask) -> None:
    (found,) = compare([task], make(Wanted(["popularity"])), (0, 1, 2))
    counts = training_counts(task.training)
    hits = []
    for position in task.positions.tolist():
        begin = task.rows.starts[np.searchsorted(task.rows.starts, position, side="right") - 1]
        wanted = task.rows.item[position]
        unseen = [row for row in range(1, len(counts)) if row not in task.rows.item[begin:position]]
        hits.append(wanted in unseen and sum(counts[row] >= counts[wanted] for row in unseen) <= 10)
    figure = figures(found)["models"]["popularity"]
    assert figure["test"]["HR@10"] == pytest.approx(np.mean(hits))
    assert figure["seeds"] == [0]  # its seed decides nothing
    assert sum(one["judged"] for one in figure["groups"]["users"]) == len(task.positions)
    assert sum(one["judged"] for one in figure["groups"]["items"]) == len(task.positions)


def test_what_is_kept_is_not_fitted_again(task: EvalTask, tmp_path: Path) -> None:
    model = Told(oracle)
    first = compare([task], [model], (0, 1), tmp_path)
    again = compare([task], [model], (0, 1), tmp_path)
    assert model.fits == [0, 1]
    assert figures(first[0]) == figures(again[0])
    compare([replace(task, positions=task.positions[1:])], [model], (0,), tmp_path)
    compare([task], [replace(model, settings={"other": 1})], (0,), tmp_path)
    assert model.fits == [0, 1, 0, 0]


def test_an_interrupted_fit_goes_on_from_its_checkpoint(task: EvalTask, tmp_path: Path) -> None:
    model = Told(oracle, fails=1)
    with pytest.raises(KeyboardInterrupt):
        compare([task], [model], (0,), tmp_path)
    (found,) = compare([task], [model], (0,), tmp_path)
    (checkpoint,) = tmp_path.glob("*/checkpoint.pt")
    assert checkpoint.read_text() == "2"
    assert found.ran[0].fits[0].info.seconds > 0


def test_tasks_of_one_training_share_the_fit(tmp_path: Path) -> None:
    tasks = make_tasks("cold-items", DATA, no_text)
    model = Told(oracle)
    found = compare(tasks, [model], (0,), tmp_path)
    assert model.fits == [0]
    assert [one.task.settings["part"] for one in found] == ["among cold items", "among all items"]


def test_a_model_that_cannot_run_is_named(task: EvalTask) -> None:
    (found,) = compare([task], [*make(Wanted(["content"])), Told(oracle)])
    row = figures(found)["models"]
    assert "no item texts" in row["content"]["not run"]
    assert row["told"]["test"]["HR@10"] == 1.0


def test_scores_that_are_no_numbers_are_refused(task: EvalTask) -> None:
    (found,) = compare([task], [Told(lambda rows, positions, seed: oracle(rows, positions, seed) * torch.nan)])
    assert "not finite numbers" in found.outcomes[0].refused


def test_lift_is_the_paired_difference(task: EvalTask) -> None:
    def knows(rows: Histories, positions: Rows, seed: int) -> torch.Tensor:
        return oracle(rows, positions, 0) if len(rows.item) == len(task.rows.item) else wrong(rows, positions, 0)

    whole, alone = make_tasks("scene-transfer", DATA, no_text)
    more, less = compare([whole, alone], [Told(knows)])
    assert lift(more, less)["told"]["HR@10"]["lift"] > 0.5


def test_nothing_to_compare_is_said(task: EvalTask) -> None:
    models: list[Model] = make(Wanted(["popularity"]))
    with pytest.raises(DataError, match="nothing to compare"):
        compare([task], models, ())


class NoTexts:
    """Stands for models.network.text.TextEncoder where texts do not matter."""

    def encode(self, texts: Sequence[str], progress: Any = None) -> Floats:
        return no_text(texts)


def test_one_evaluation_is_one_document() -> None:
    found = evaluate(DATA, Question("cold-users", ("popularity", "item-knn")), NoTexts())  # type: ignore[arg-type]
    assert found["data"] == "generated"
    assert found["protocol"] == "cold-users"
    assert {one["settings"]["part"] for one in (found, *found["also"])} == {
        "after 1 event", "after 2 events", "after 3 events", "after 5 events",
    }  # fmt: skip
    assert found["models"]["item-knn"]["test"]["HR@10"] <= 1


def test_ratings_have_their_own_figures() -> None:
    found = evaluate(DATA, Question("rating", ("mean", "bias")), NoTexts())  # type: ignore[arg-type]
    assert set(found["models"]) == {"mean", "bias"}
    assert found["models"]["bias"]["RMSE"] > 0
    assert [found["split"][:6], found["also"][0]["split"][:4]] == ["random", "time"]
