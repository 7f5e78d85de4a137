"""The gate on real ratings: what is as good passes, and each kind of broken run is refused by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from models.data import DataSet, generate, read
from models.data.histories import Flags, Histories, Rows
from models.evaluation.gate import DAY, Limits, Verdict, day_of, judge, judged_since, not_finite, ratio_ends
from models.network.text import TextEncoder
from models.training import trainer
from models.training.batching import following
from models.training.run import Run
from models.training.train import TrainSettings, train
from stream.core.errors import DataError
from stream.core.messages import RATING
from tests.bundles import tiny_run
from tests.conftest import data_folder

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = TrainSettings(preset="dense", epochs=8, holdout=0, max_minutes=9.0, diversity_budget=0.0)
LIMITS = Limits(most_days=4000)


@pytest.fixture(scope="module")
def ratings() -> DataSet:
    """The ratings of those who came on three days or more, of films that many of them rated."""
    data = read(data_folder("ml-latest-small"))
    rated = data.events.filter(pl.col("behaviour") == RATING)
    days = rated.group_by("user").agg((pl.col("time") // DAY).n_unique().alias("days")).filter(pl.col("days") >= 3)
    rated = rated.join(days, on="user", how="semi", maintain_order="left")
    rated = rated.filter(pl.len().over("item") >= 25)
    known = set(rated["item"].unique())
    return replace(data, events=rated, items=tuple(item for item in data.items if item.item in known))


@pytest.fixture(scope="module")
def since(ratings: DataSet) -> int:
    return judged_since(ratings, LIMITS)


@pytest.fixture(scope="module")
def part(ratings: DataSet, since: int) -> DataSet:
    """What training may see."""
    return replace(ratings, events=ratings.events.filter(pl.col("time") < since))


@pytest.fixture(scope="module")
def served(part: DataSet, encoder: TextEncoder) -> Run:
    older = replace(part, events=part.events.head(int(0.95 * len(part.events))))
    return train(older, SETTINGS, encoder).run


@pytest.fixture(scope="module")
def gate(ratings: DataSet, since: int, served: Run, encoder: TextEncoder) -> Callable[[Run], Verdict]:
    return lambda new: judge(ratings, since, served, new, encoder, LIMITS)


def names(of: Verdict) -> list[str]:
    return [reason.name for reason in of.reasons]


def test_the_served_run_passes_beside_itself(gate: Callable[[Run], Verdict], served: Run) -> None:
    verdict = gate(served)
    assert verdict.passed
    assert verdict.figures["users"] >= LIMITS.users
    assert verdict.figures["interval"] == [1.0, 1.0]
    assert verdict.figures["older_choices"] > 0.98 * LIMITS.kept, "first events of users are not judged"
    assert verdict.figures["older_fall"] == 0
    assert verdict.figures["similarities"] == 1.0


def test_an_update_on_newer_days_passes(
    ratings: DataSet, since: int, part: DataSet, served: Run, encoder: TextEncoder
) -> None:
    """A few users say little: the limits are wider here."""
    update = train(part, replace(SETTINGS, epochs=2), encoder, start=served).run
    verdict = judge(ratings, since, served, update, encoder, replace(LIMITS, ratio=0.8, fall=0.05))
    assert verdict.passed, verdict
    assert verdict.figures["similarities"] > 0.9


def test_another_training_from_nothing_is_no_mix_of_rows(
    part: DataSet, served: Run, encoder: TextEncoder, gate: Callable[[Run], Verdict]
) -> None:
    verdict = gate(train(part, replace(SETTINGS, seed=1, epochs=5), encoder).run)
    assert verdict.figures["similarities"] > 0.08, "a few epochs each"
    assert not {"rows", "labels", "not-finite"} & set(names(verdict))


def test_shuffled_rows_are_refused_as_such(gate: Callable[[Run], Verdict], served: Run) -> None:
    shuffled = np.random.default_rng(0).permutation(len(served.item_ids))
    verdict = gate(replace(served, item_ids=tuple(served.item_ids[row] for row in shuffled)))
    assert names(verdict)[:2] == ["rows", "prequential"]
    assert "rows belong to other items" in verdict.reasons[0].text


def test_nan_is_refused_with_its_place(gate: Callable[[Run], Verdict], served: Run) -> None:
    weights = {name: value.clone() for name, value in served.network.state_dict().items()}
    weights["query_item.bias"][3] = torch.nan
    broken = tiny_copy(served)
    broken.network.load_state_dict(weights)
    verdict = gate(broken)
    assert names(verdict) == ["not-finite"]
    assert "the tensor 'query_item.bias' holds 1 values that are not finite" in verdict.reasons[0].text
    assert "popularity.npy" in not_finite(replace(served, popularity=np.full_like(served.popularity, np.inf)))


def tiny_copy(run: Run) -> Run:
    """The run with a network of its own."""
    network = type(run.network)(run.network.size, run.network.text).requires_grad_(False).eval()
    return replace(run, network=network)


def test_labels_of_the_day_before_are_refused_as_such(
    part: DataSet,
    encoder: TextEncoder,
    gate: Callable[[Run], Verdict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each state learns to predict what its user chose a day before, as if labels and states were joined a day apart."""

    def yesterday(rows: Histories, use: Flags) -> Rows:
        assert rows.time is not None
        labels = following(rows, use)
        for begin, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
            times = rows.time[begin:end]
            at = begin + np.searchsorted(times, times - DAY, side="right") - 1
            labels[begin:end] = np.where((labels[begin:end] > 0) & (at >= begin), rows.item[np.maximum(at, begin)], 0)
        return labels

    monkeypatch.setattr(trainer, "following", yesterday)
    spoilt = train(part, replace(SETTINGS, epochs=6), encoder).run
    verdict = gate(spoilt)
    assert "labels" in names(verdict), verdict
    assert "a day before" in next(reason.text for reason in verdict.reasons if reason.name == "labels")


def test_a_run_that_forgets_is_refused(gate: Callable[[Run], Verdict], served: Run) -> None:
    """It has no neighbours any more, which are most of the sum here."""
    verdict = gate(replace(served, blend=replace(served.blend, neighbour=0.0)))
    assert "forgetting" in names(verdict)
    assert verdict.figures["older_fall"] > LIMITS.fall


def test_days_are_added_until_there_are_enough_users(ratings: DataSet) -> None:
    newest = int(ratings.events["time"][-1]) // DAY * DAY
    assert judged_since(ratings, Limits(users=1)) == newest
    assert judged_since(ratings, Limits(days=3, users=1)) == newest - 2 * DAY
    assert judged_since(ratings, Limits(users=10**6, most_days=7)) == newest - 6 * DAY
    with pytest.raises(DataError, match="all events are within the 20000 days"):
        judged_since(ratings, Limits(days=20_000, most_days=20_000))
    with pytest.raises(DataError, match="needs times"):
        judged_since(replace(ratings, timed=False), LIMITS)
    assert day_of(0) == "1970-01-01"


def test_runs_that_count_other_choices_are_not_compared(encoder: TextEncoder) -> None:
    world, run = generate(users=20, items=50, events=20), tiny_run(9)
    other = replace(run, spec=replace(run.spec, choices=("clicks",)))
    with pytest.raises(DataError, match="other events as choices"):
        judge(world, judged_since(world, Limits(users=1)), run, other, encoder)


def test_the_ratio_is_paired() -> None:
    draw = np.random.default_rng(0)
    served = draw.random(500)
    owners = np.arange(500) // 5
    low, high = ratio_ends(np.stack((served, 1.1 * served), 1), owners)
    assert low == pytest.approx(1.1)
    assert high == pytest.approx(1.1)
    assert ratio_ends(np.zeros((10, 2)), np.arange(10)) == [1.0, 1.0]
