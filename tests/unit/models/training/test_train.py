"""Training: learns what popularity cannot, repeats with its seed, and never sees what is held out. Real BERT texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from models.data import DataSet, generate, split_last
from models.data.dataset import in_order
from models.evaluation.evaluate import Question, evaluate
from models.evaluation.run_task import run_task
from models.network.text import TextEncoder
from models.training.curve import write_curve
from models.training.run import load_run, save_run
from models.training.sequential.network_model import ended
from models.training.tables import HALF_LIVES
from models.training.train import CutOff, Epoch, Trained, TrainSettings, train
from models.training.trainer import FitSettings
from stream.core.errors import DataError
from stream.core.messages import Item

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = TrainSettings(epochs=2, preset="dense")


@pytest.fixture(scope="module")
def world() -> DataSet:
    return generate(users=120, items=160, events=40)


@pytest.fixture(scope="module")
def trained(world: DataSet, encoder: TextEncoder) -> Trained:
    return train(world, replace(QUICK, epochs=12), encoder)


def weights(of: Trained) -> dict[str, torch.Tensor]:
    return of.run.network.state_dict()


def equal(one: Trained, two: Trained) -> bool:
    return all(torch.equal(value, weights(two)[name]) for name, value in weights(one).items())


def judged(world: DataSet, of: Trained, encoder: TextEncoder) -> dict[str, Any]:
    return evaluate(world, Question(run=of.run), encoder)


def test_tables_that_follow_the_stream_say_how_a_tally_counts_them(
    world: DataSet, encoder: TextEncoder, tmp_path: Path
) -> None:
    found = train(world, replace(QUICK, tables="streamed"), encoder).run
    assert found.tables is not None
    assert found.tables.tables == "streamed"
    assert found.tables.near.half_life in (0, *HALF_LIVES)
    assert found.tables.prior in (0, *HALF_LIVES)
    assert found.tables.near.reach in (5, 10, 20)
    save_run(found, tmp_path)
    assert load_run(tmp_path).tables == found.tables
    with pytest.raises(DataError, match="expected frozen or streamed"):
        train(world, replace(QUICK, tables="epochs:5"), encoder)
    with pytest.raises(DataError, match="need times"):
        train(replace(world, timed=False), replace(QUICK, tables="streamed"), encoder)


def test_it_beats_popularity_on_what_it_has_not_seen(world: DataSet, trained: Trained, encoder: TextEncoder) -> None:
    figures = judged(world, trained, encoder)["models"]
    assert figures["freshet"]["test"]["HR@10"] > 1.5 * figures["popularity"]["test"]["HR@10"]
    low, high = figures["freshet"]["intervals"]["HR@10 - popularity"]
    assert 0 < low < high
    assert trained.curve[-1].loss < trained.curve[0].loss


def test_popularity_counts_the_training_part_only(world: DataSet, trained: Trained) -> None:
    counted = split_last(world).train.filter((pl.col("behaviour") != 2) | pl.col("value").is_not_nan())
    assert trained.run.popularity.sum() == len(counted)
    assert trained.run.popularity[0] == 0


def test_the_same_seed_gives_the_same_weights(world: DataSet, encoder: TextEncoder) -> None:
    one = train(world, QUICK, encoder)
    assert equal(one, train(world, QUICK, encoder))
    assert not equal(one, train(world, replace(QUICK, seed=1), encoder))


def test_nothing_held_out_changes_a_weight(world: DataSet, encoder: TextEncoder) -> None:
    """Other items, values, texts and scenes behind the cut; only how many choices lie there stays."""
    split = split_last(world)
    draw = np.random.default_rng(0)
    ids = [item.item for item in world.items]
    spoilt = split.held.with_columns(
        item=pl.Series(draw.choice(ids, len(split.held))),
        value=pl.when(pl.col("value").is_not_nan()).then(0.5).otherwise(pl.col("value")),
        text=pl.when(pl.col("text") != "").then(pl.lit("spoilt")).otherwise(pl.col("text")),
        scene=pl.lit("home"),
        time=pl.col("time") + 7_200_000,
    )
    other = replace(world, events=in_order(pl.concat([split.train, spoilt])))
    one, two = train(world, QUICK, encoder), train(other, QUICK, encoder)
    assert equal(one, two)
    assert one.run.data == two.run.data
    assert (one.run.popularity == two.run.popularity).all()
    assert one.curve[-1].ndcg10 == two.curve[-1].ndcg10


def test_a_run_comes_back_as_it_was_saved(
    world: DataSet, trained: Trained, encoder: TextEncoder, tmp_path: Path
) -> None:
    save_run(trained.run, tmp_path)
    write_curve(trained.curve, 0.1, tmp_path)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    again = load_run(tmp_path)
    assert (again.item_ids, again.spec, again.data) == (trained.run.item_ids, trained.run.spec, trained.run.data)
    one, two = (judged(world, replace(trained, run=run), encoder) for run in (again, trained.run))
    assert [of["models"]["freshet"]["test"] for of in (one, two)] == [two["models"]["freshet"]["test"]] * 2
    np.save(tmp_path / "text.npy", again.text[:-1])
    with pytest.raises(DataError, match="differ in the number of items"):
        load_run(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(DataError, match="not a finished training run"):
        load_run(tmp_path)


def test_a_run_is_not_judged_on_events_it_may_have_learned(
    world: DataSet, trained: Trained, encoder: TextEncoder
) -> None:
    with pytest.raises(DataError, match="was trained on"):
        run_task(world, trained.run, encoder, holdout=9)


def test_an_item_that_nobody_took_is_known_by_its_text_alone(world: DataSet, encoder: TextEncoder) -> None:
    more = replace(world, items=(*world.items, Item("new", "Orbit of the Starship", categories=("Space",))))
    network = train(more, QUICK, encoder).run.network
    with torch.no_grad():
        assert not network.ids.weight[-1].any()
        torch.testing.assert_close(network.item_matrix()[-1:], network.item_vector(network.text[-1:]))


def test_time_runs_out(world: DataSet, encoder: TextEncoder) -> None:
    short = train(world, replace(QUICK, epochs=50, max_minutes=1e-6), encoder)
    assert len(short.curve) == 1
    assert short.reason == "the time limit of 1 s is reached"


@pytest.mark.parametrize(
    ("minutes", "reason"), [(0.69123, "41 s"), (1.5, "90 s"), (2.7, "2.7 minutes"), (53.98765, "54 minutes")]
)
def test_a_time_limit_is_rounded_for_people(minutes: float, reason: str) -> None:
    curve = [Epoch(0, 1.0, 0.0, 0.0, 60 * minutes)]
    assert ended(curve, FitSettings(epochs=9, max_minutes=minutes), 0) == f"the time limit of {reason} is reached"


def test_a_training_that_is_cut_off_before_its_first_checkpoint_has_none(
    world: DataSet, encoder: TextEncoder, tmp_path: Path
) -> None:
    def cut_off(stage: str, done: int, total: int, text: str) -> None:
        if stage.startswith("epoch 1/"):
            raise KeyboardInterrupt

    with pytest.raises(CutOff) as error:
        train(world, QUICK, encoder, cut_off, checkpoints=tmp_path)
    assert error.value.epochs == 0


def test_a_training_that_was_cut_off_goes_on(world: DataSet, encoder: TextEncoder, tmp_path: Path) -> None:
    def cut_off(stage: str, done: int, total: int, text: str) -> None:
        if text.startswith("epoch 3:"):
            raise KeyboardInterrupt

    notes: list[str] = []
    settings = replace(QUICK, epochs=4)
    with pytest.raises(CutOff) as error:
        train(world, settings, encoder, cut_off, checkpoints=tmp_path)
    assert error.value.epochs == 2
    again = train(
        world, replace(settings, max_minutes=9.0), encoder, lambda *step: notes.append(step[3]), checkpoints=tmp_path
    )
    assert next(line for line in notes if line.startswith("epoch")).startswith("epoch 2 is the last that was kept")
    assert len(again.curve) == 4
    assert equal(again, train(world, settings, encoder))
    assert not list(tmp_path.iterdir())
