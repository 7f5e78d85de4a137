"""What the recurrent network reads of a click's action, on made-up data where what follows depends on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.data import DataSet
from models.data.actions import often
from models.data.dataset import Event, dataset
from models.data.histories import histories
from models.evaluation.ablation import Changed
from models.interfaces import TrainingData
from models.network.network import FEATURES, InterestNetwork, NetworkSize
from models.network.scorer import input_rows, interest_scorer
from models.training.batching import hold_validation
from models.training.run import DataInfo, Run, load_run, save_run
from models.training.sequential.freshet import Freshet
from models.training.sequential.network_model import NetworkModel
from models.training.train import run_of
from stream.core.errors import DataError
from stream.core.features import InputSpec
from stream.core.messages import CLICK, RATING
from tests.bundles import tiny_run

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 12
STARTS = 6
"""Items that are bought or skipped; start-N has two that may follow, bought-N and skipped-N."""
QUICK = {"epochs": 8, "length": 24, "states": 128, "rate": 1e-2, "patience": 8}
SMALL = {"item": 16, "width": 16, "dropout": 0.0, "item_dropout": 0.0}


def fake_vectors(texts: Sequence[str]) -> Any:
    return np.array([[float(len(text) % (at + 2)) for at in range(WIDTH)] for text in texts], np.float32)


def followed(users: int = 60, rounds: int = 8, seed: int = 0) -> DataSet:
    """Who buys start-N clicks bought-N next, who skips it clicks skipped-N next."""
    draw = np.random.default_rng(seed)
    events = []
    for user in range(users):
        for at in range(rounds):
            number, bought = int(draw.integers(STARTS)), bool(draw.integers(2))
            time = 1_000_000 + 200_000 * at
            events.append(Event(f"u{user}", f"start-{number}", CLICK, time, action="purchase" if bought else "skip"))
            events.append(Event(f"u{user}", f"{'bought' if bought else 'skipped'}-{number}", CLICK, time + 60_000))
    return dataset("followed", events, [], (1.0, 5.0))


def training_of(data: DataSet, actions: tuple[str, ...]) -> TrainingData:
    spec = InputSpec(data.rating_scale, data.scenes, WIDTH, data.choices, data.weights, actions)
    rows = histories(data.events, None, [item.item for item in data.items], spec, fake_vectors)
    use, watched = hold_validation(rows, 2)
    return TrainingData(data.items, spec, np.zeros((len(data.items) + 1, WIDTH), np.float32), rows, use, watched)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return followed()


@pytest.fixture(scope="module")
def training(data: DataSet) -> TrainingData:
    return training_of(data, often(data.events))


def fitted(training: TrainingData, features: tuple[str, ...] = FEATURES) -> InterestNetwork:
    return NetworkModel("x", "dense", SMALL | {"features": features}, QUICK).fit(training, 0).network


@pytest.fixture(scope="module")
def network(training: TrainingData) -> InterestNetwork:
    return fitted(training)


def first_places(network: InterestNetwork, data: DataSet, training: TrainingData) -> float:
    """Of the clicks that follow a start of users that were not trained on: the share that the network puts first."""
    fresh = followed(users=40, seed=1)
    known = [item.item for item in data.items]
    rows = histories(fresh.events, None, known, training.spec, fake_vectors)
    positions = np.arange(1, len(rows.item), 2)
    scores = interest_scorer(network, rows)(positions)
    scores[:, 0] = -torch.inf
    return float((scores.argmax(1).numpy() == rows.item[positions]).mean())


def test_what_follows_a_purchase_and_a_skip_is_told_apart(
    data: DataSet, training: TrainingData, network: InterestNetwork
) -> None:
    without = fitted(training, tuple(name for name in FEATURES if name != "action"))
    read, blind = (first_places(one, data, training) for one in (network, without))
    assert read > 0.95, (read, blind)
    assert blind < 0.6, (read, blind)


@torch.no_grad()
def test_a_dislike_and_a_purchase_of_one_item_lead_to_different_states(
    training: TrainingData, network: InterestNetwork
) -> None:
    spec, item = training.spec, network.item_matrix()[3:4]
    zero, numbers = torch.zeros(1, dtype=torch.int64), torch.tensor([spec.numbers(float("nan"), -1)])
    empty = torch.zeros(1, network.size.hidden)

    def after(action: str) -> torch.Tensor:
        read = network.inputs(item, zero, zero, numbers, None, torch.tensor([spec.action(action)]))
        return network.step(read, empty, empty)[0]

    purchase, skip, none, unknown = (after(name) for name in ("purchase", "skip", "", "share"))
    assert (purchase - skip).abs().max() > 0.1
    assert (purchase - none).abs().max() > 0.1
    assert torch.equal(none, unknown)
    assert torch.equal(none, network.step(network.inputs(item, zero, zero, numbers, None), empty, empty)[0])


def test_the_row_of_no_action_stays_empty(network: InterestNetwork) -> None:
    assert network.action is not None
    assert not network.action.weight[0].any()
    assert network.action.weight[1:].any(1).all()


def test_an_action_that_training_did_not_see_is_read_as_none(data: DataSet) -> None:
    """Its name may be known, from events that are held back."""
    network = fitted(training_of(data, ("purchase", "share", "skip")))
    assert network.action is not None
    assert network.action.weight.any(1).tolist() == [False, True, False, True]


@torch.no_grad()
def test_before_training_nothing_differs() -> None:
    def made(**other: Any) -> InterestNetwork:
        torch.manual_seed(3)
        size = NetworkSize(items=9, scenes=1, item=16, width=16, text=WIDTH, comment=4, **other)
        return InterestNetwork(size, torch.zeros(10, WIDTH)).eval()

    plain, acting = made(), made(actions=2)
    assert plain.action is None
    assert made(actions=2, features=("gap",)).action is None
    weights = acting.state_dict()
    assert set(weights) - set(plain.state_dict()) == {"action.weight", "action_gate.weight", "action_shift.weight"}
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    row = (
        torch.randn(2, 16),
        torch.zeros(2, dtype=torch.int64),
        torch.ones(2, dtype=torch.int64),
        torch.randn(2, 4),
        None,
    )
    assert torch.equal(plain.inputs(*row), acting.inputs(*row, torch.tensor([1, 2])))


def test_without_actions_a_network_starts_from_the_weights_that_it_always_had() -> None:
    """The numbers are of the version before there was an action to read; the query's weights are drawn last."""
    network = tiny_run().network
    assert network.ids.weight[1, :4].tolist() == pytest.approx([0.0431092, 0.2927752, -0.2193675, -0.3296520], abs=1e-6)
    found = network.query_item.weight[1, :4].tolist()
    assert found == pytest.approx([0.0039433, 1.0072529, -0.0024424, 0.0014966], abs=1e-6)


def test_without_actions_a_fit_is_that_of_a_network_that_has_no_such_feature(data: DataSet) -> None:
    bare = replace(data, events=data.events.with_columns(action=data.events["action"].str.slice(0, 0)))
    assert often(bare.events) == ()
    training = training_of(bare, ())
    assert training.rows.action is None
    quick = QUICK | {"epochs": 2}
    one, two = (
        NetworkModel("x", "dense", SMALL | {"features": features}, quick).fit(training, 0)
        for features in (FEATURES, tuple(name for name in FEATURES if name != "action"))
    )
    assert [asdict(epoch) | {"seconds": 0} for epoch in one.curve] == [
        asdict(epoch) | {"seconds": 0} for epoch in two.curve
    ]
    weights = two.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in one.network.state_dict().items())


def test_the_names_that_are_read_are_those_seen_often_enough() -> None:
    def seen(**counts: int) -> tuple[str, ...]:
        rows = [(name.strip("_"), at) for name, count in counts.items() for at in range(count)]
        events = [Event(f"u{at}", f"i-{name}", CLICK, at, action=name) for name, at in rows]
        return often(dataset("x", events, [], (0.5, 5.0)).events)

    assert often(followed(3).events) == ("purchase", "skip")
    assert seen(_=50) == ()
    assert seen(_=991, skip=10, share=9) == ()
    assert seen(_=981, skip=10, share=9) == ("skip",)
    assert seen(_=19_900, skip=100, share=99) == ("skip",)


def test_the_rows_hold_the_action_of_every_event(data: DataSet, training: TrainingData) -> None:
    assert training.spec.actions == ("purchase", "skip")
    assert training.rows.action is not None
    names = {"purchase": 1, "skip": 2, "": 0}
    sorted_events = data.events.with_columns(owner=data.events["user"].rank("dense")).sort("owner", maintain_order=True)
    assert training.rows.action.tolist() == [names[name] for name in sorted_events["action"].to_list()]
    rated = dataset("x", [Event("u", "a", RATING, 1, 4.0), Event("u", "b", CLICK, 2, action="skip")], [], (0.5, 5.0))
    rows = histories(rated.events, None, ["a", "b"], training.spec, fake_vectors)
    assert rows.action is not None
    assert rows.action.tolist() == [0, 2]


@torch.no_grad()
def test_unrolled_and_stepped_read_the_same_actions(training: TrainingData, network: InterestNetwork) -> None:
    items, rows = network.item_matrix(), training.rows
    positions = np.arange(rows.starts[0], rows.starts[1])
    empty = torch.zeros(1, network.size.hidden)
    _, h_last, c_last = network.unroll(input_rows(network, items, rows, positions[None]), empty, empty)
    assert rows.action is not None
    h = c = empty
    for at in positions.tolist():
        one = slice(at, at + 1)
        read = network.inputs(
            items[rows.item[one]], torch.from_numpy(rows.behaviour[one]), torch.from_numpy(rows.scene[one]),
            torch.from_numpy(rows.numbers[one]), None, torch.from_numpy(rows.action[one]),
        )  # fmt: skip
        h, c = network.step(read, h, c)
    torch.testing.assert_close(h_last, h, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(c_last, c, rtol=1e-5, atol=1e-5)


def test_the_action_is_an_ablation_of_its_own(data: DataSet, training: TrainingData) -> None:
    changed = Changed("action", "dense", QUICK)
    assert changed.name == "without-action"
    size, _ = changed.size_and_fit(training)
    assert (size.reads_actions, "action" in size.features) == (False, False)
    size, _ = Freshet("dense").size_and_fit(training)
    assert (size.reads_actions, "action" in size.features) == (True, True)
    with pytest.raises(DataError, match="the data has no action to read"):
        changed.fit(training_of(data, ()), 0)


def kept(training: TrainingData, features: tuple[str, ...]) -> Run:
    model = Freshet("dense", SMALL | {"features": features}, QUICK | {"epochs": 1}, collaborative=False)
    info = DataInfo("x", "0" * 64, 1)
    return run_of(followed(2), training, model.fit(training, 0), info, {})


def test_a_run_keeps_the_actions_that_its_network_reads(training: TrainingData, tmp_path: Path) -> None:
    save_run(kept(training, FEATURES), tmp_path)
    assert load_run(tmp_path).spec.actions == ("purchase", "skip")
    about = json.loads((tmp_path / "run.json").read_text())
    about["inputs"]["actions"] = ["skip"]
    (tmp_path / "run.json").write_text(json.dumps(about))
    with pytest.raises(
        DataError, match=r"inputs.actions: 1 names \(skip\), but the network reads 2; expected the same number"
    ):
        load_run(tmp_path)
    assert kept(training, ("gap",)).spec.actions == (), "a network that reads none has none to be fed"


def test_a_run_from_before_there_were_actions_is_read(tmp_path: Path) -> None:
    save_run(tiny_run(9), tmp_path)
    about = json.loads((tmp_path / "run.json").read_text())
    del about["inputs"]["actions"], about["size"]["actions"]
    about["size"]["features"] = ["behaviour", "scene", "value", "gap", "comment"]
    (tmp_path / "run.json").write_text(json.dumps(about))
    run = load_run(tmp_path)
    assert run.spec.actions == ()
    assert run.network.action is None
