"""A training that starts from a run: what it keeps, what begins from nothing, what is refused, and that it pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.data import DataSet, generate
from models.evaluation.run_task import run_task
from models.network.text import TextEncoder
from models.training.batching import cut
from models.training.run import Run, load_run, save_run
from models.training.start import Start
from models.training.train import Trained, TrainSettings, train, training_part
from models.training.trainer import Fitting
from models.training.warm import grown_spec, learned_rows, network_of, over_items, require_alike
from stream.core.errors import DataError
from stream.core.features import InputSpec
from tests.bundles import TEXT_BLEND, tiny_run

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = TrainSettings(epochs=2, preset="dense", holdout=0)


@pytest.fixture(scope="module")
def world() -> DataSet:
    return generate(users=120, items=160, events=40)


@pytest.fixture(scope="module")
def older(world: DataSet) -> DataSet:
    """The first nine tenths of the events, and only the items that they name."""
    events = world.events.head(int(0.9 * len(world.events)))
    known = set(events["item"].unique())
    kept = [item for number, item in enumerate(world.items) if item.item in known and number % 20]
    return replace(world, events=events, items=tuple(kept))


@pytest.fixture(scope="module")
def first(older: DataSet, encoder: TextEncoder) -> Trained:
    return train(older, replace(QUICK, epochs=12), encoder)


def test_it_needs_fewer_epochs_than_from_nothing(world: DataSet, first: Trained, encoder: TextEncoder) -> None:
    short = replace(QUICK, epochs=3)
    warm, cold = train(world, short, encoder, start=first.run), train(world, replace(QUICK, epochs=12), encoder)
    name = "validation recurrent NDCG@10"
    assert warm.run.metrics[name] >= 0.85 * cold.run.metrics[name]  # 360 choices: the standard error is 8 % of it
    assert warm.run.metrics[name] > 1.5 * train(world, short, encoder).run.metrics[name]
    assert warm.run.settings["from"] == {
        "name": first.run.data.name, "sha256": first.run.data.sha256, "events": first.run.data.events,
    }  # fmt: skip


def test_items_of_the_run_come_first_and_new_ones_begin_as_their_text(
    world: DataSet, first: Trained, encoder: TextEncoder
) -> None:
    training, _ = training_part(world, QUICK, encoder, start=first.run)
    old = len(first.run.item_ids)
    assert training.item_ids[:old] == first.run.item_ids
    assert sorted(training.item_ids) == sorted(item.item for item in world.items)
    network = network_of(first.run, training.item_ids, training.text)
    with torch.no_grad():
        assert torch.equal(network.item_matrix()[: old + 1], first.run.network.item_matrix())
        new = torch.from_numpy(training.text[old + 1 :])
        torch.testing.assert_close(network.item_matrix()[old + 1 :], network.item_vector(new))
    assert training.learned is not None
    assert not training.learned[old + 1 :].any()
    assert training.known[training.rows.item[training.use & training.rows.choice]].all()


def test_a_run_that_started_from_another_is_evaluated_on_its_own_data(
    world: DataSet, first: Trained, encoder: TextEncoder, tmp_path: Path
) -> None:
    run = train(world, replace(QUICK, holdout=4, epochs=1), encoder, start=first.run).run
    save_run(run, tmp_path)
    again = load_run(tmp_path)
    assert again.settings["from"] == run.settings["from"]
    assert run_task(world, again, encoder).training.item_ids == run.item_ids


def test_an_item_that_left_the_catalogue_keeps_its_row_and_its_text(
    world: DataSet, first: Trained, encoder: TextEncoder
) -> None:
    gone = first.run.item_ids[3]
    less = replace(world, items=tuple(item for item in world.items if item.item != gone))
    training, _ = training_part(less, QUICK, encoder, start=first.run)
    assert training.item_ids[3] == gone
    assert np.array_equal(training.text[4], first.run.text[4])


def test_what_does_not_fit_is_named(world: DataSet, first: Trained) -> None:
    for change, reason in (
        ({"choices": ("ratings",)}, "^choices ratings: .* clicks, ratings, comments"),
        ({"weights": (("buy", 3.0),)}, "--action: .* buy"),
        ({"rating_scale": (1.0, 7.0)}, "rating_scale 1 to 7: .* 0.5 to 5"),
    ):
        with pytest.raises(DataError, match=reason):
            require_alike(first.run, replace(world, **change))


def test_another_preset_is_named(world: DataSet, first: Trained, encoder: TextEncoder) -> None:
    with pytest.raises(DataError, match=r"--preset sparse: .* another item, "):
        train(world, replace(QUICK, preset="sparse"), encoder, start=first.run)


@pytest.mark.parametrize("actions", [(), ("buy", "view")])
def test_new_scenes_and_actions_change_nothing_before_they_are_learned(actions: tuple[str, ...]) -> None:
    run = tiny_run(9, actions=actions)
    spec = grown_spec(run, InputSpec((0.5, 5.0), ("app", "home"), 384, actions=("buy", "zap")))
    assert spec.scenes == ("home", "search", "app")
    assert spec.actions == ((*actions, "zap") if actions else ("buy", "zap"))
    network = network_of(run, run.item_ids, run.text, spec)
    draw = torch.Generator().manual_seed(0)
    item, numbers = torch.randn(4, 16, generator=draw), torch.randn(4, 4, generator=draw)
    behaviour, old = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 1, 2, 0])
    act = None if not actions else torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        before = run.network.inputs(item, behaviour, old, numbers, None, act)
        after = network.inputs(
            item,
            behaviour,
            torch.tensor([0, 1, 2, 3]),
            numbers,
            None,
            torch.tensor([0, 1, 2, 3]) if actions else torch.tensor([0, 1, 2, 2]),
        )
    torch.testing.assert_close(after, before)


def test_a_run_over_other_items_ranks_its_own_as_before() -> None:
    """In any order, with one item less and two that it does not know."""
    run = tiny_run(12, blend=TEXT_BLEND)
    ids = ("later-1", *run.item_ids[:4], "later-2", *reversed(run.item_ids[5:]))
    text = np.random.default_rng(0).normal(size=(len(ids) + 1, 384)).astype(np.float32)
    over = over_items(run, ids, text)
    place = [ids.index(item) + 1 if item in ids else 0 for item in run.item_ids]
    with torch.no_grad():
        was, now = run.network.item_matrix(), over.network.item_matrix()
        for row, at in enumerate(place, start=1):
            if at:
                torch.testing.assert_close(now[at], was[row])
                assert over.popularity[at] == run.popularity[row]
                assert over.new[at] == run.new[row]
                pairs = {ids[to - 1] for to in over.neighbours.index[at] if to}
                assert pairs == {run.item_ids[to - 1] for to in run.neighbours.index[row]} - {run.item_ids[4]}
        torch.testing.assert_close(now[1], over.network.item_vector(torch.from_numpy(text[1])))
    assert (over.popularity[1], over.new[1], over.neighbours.weight[1].any()) == (0, True, False)
    assert learned_rows(run, ids)[[0, 1, 2, 6]].tolist() == [False, False, True, False]


def test_all_that_is_new_and_a_share_of_the_rest_is_learned_from(world: DataSet, encoder: TextEncoder) -> None:
    training, _ = training_part(world, QUICK, encoder)
    rows = training.rows
    pieces = cut(rows, training.use, 8, 8)
    assert rows.time is not None
    since = int(np.quantile(rows.time, 0.8))
    start = Start(tiny_run(3).network, since, 0.25)
    new = rows.time[pieces.begin + pieces.count - 1] >= since
    drawn = [start.chosen(pieces, rows, np.random.default_rng(seed)) for seed in range(40)]
    for some in drawn:
        assert set(pieces.begin[new]) <= set(some.begin)
    old = np.mean([len(some.begin) for some in drawn]) - new.sum()
    assert old == pytest.approx(0.25 * (~new).sum(), rel=0.1)
    assert len({tuple(some.begin) for some in drawn}) > 1
    assert len(start.chosen(pieces, replace(rows, time=None), np.random.default_rng(0)).begin) == len(pieces.begin)


@pytest.mark.parametrize(("figures", "stays"), [((0.5, 0.4, 0.5), True), ((0.5, 0.4, 0.6), False)])
def test_only_an_epoch_that_beats_the_start_is_kept(
    world: DataSet,
    first: Trained,
    encoder: TextEncoder,
    monkeypatch: pytest.MonkeyPatch,
    figures: tuple[float, ...],
    stays: bool,
) -> None:
    left = list(figures)
    monkeypatch.setattr(Fitting, "validate", lambda _: (0.0, left.pop(0)))
    trained = train(world, QUICK, encoder, start=first.run)
    training, _ = training_part(world, QUICK, encoder, start=first.run)
    start = network_of(first.run, training.item_ids, training.text, training.spec).state_dict()
    same = [torch.equal(value, start[name]) for name, value in trained.run.network.state_dict().items()]
    assert all(same) == stays


def test_the_same_seed_gives_the_same_weights(world: DataSet, first: Trained, encoder: TextEncoder) -> None:
    def weights(run: Run) -> list[torch.Tensor]:
        return list(run.network.state_dict().values())

    one, two = (train(world, replace(QUICK, epochs=1), encoder, start=first.run).run for _ in range(2))
    assert all(map(torch.equal, weights(one), weights(two)))
