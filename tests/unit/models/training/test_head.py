"""A head update: the step and what it reads stay to the bit, the scores change, and what came later is served by its text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.data import DataSet, generate
from models.network.network import InterestNetwork
from models.network.text import TextEncoder
from models.training.run import HEADED, Run, load_run, save_run
from models.training.train import TrainSettings, train
from models.training.trainer import HEAD
from models.training.warm import network_of
from stream.core.errors import DataError
from tests.bundles import TEXT_BLEND, tiny_run

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = TrainSettings(epochs=4, preset="dense", holdout=0)


@pytest.fixture(scope="module")
def world() -> DataSet:
    return generate(users=80, items=120, events=30)


@pytest.fixture(scope="module")
def first(world: DataSet, encoder: TextEncoder) -> Run:
    """Of nine tenths of the events, without some of the items."""
    part = replace(
        world,
        events=world.events.head(int(0.9 * len(world.events))),
        items=tuple(item for number, item in enumerate(world.items) if number % 20),
    )
    return train(part, QUICK, encoder).run


@pytest.fixture(scope="module")
def head(world: DataSet, first: Run, encoder: TextEncoder) -> Run:
    return train(world, replace(QUICK, epochs=2, head=True), encoder, start=first).run


def frozen(network: InterestNetwork) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if not name.startswith(HEAD)}


def test_only_what_is_behind_the_state_has_changed(first: Run, head: Run) -> None:
    assert head.network.size == replace(first.network.size, untied=True)
    assert (head.item_ids, head.spec) == (first.item_ids, first.spec)
    before, after = frozen(first.network), frozen(head.network)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with torch.no_grad():
        assert torch.equal(first.network.item_matrix(), head.network.item_matrix())
        assert not torch.equal(head.network.item_matrix(), head.network.output_matrix())
    assert not torch.equal(first.network.query_item.weight, head.network.query_item.weight)
    assert np.array_equal(head.text, first.text)
    assert len(head.popularity) == len(head.neighbours.index) == len(head.new) == len(first.item_ids) + 1
    assert head.neighbours.index.max() <= len(first.item_ids)


def test_it_is_no_worse_than_what_it_started_from(head: Run, first: Run) -> None:
    assert head.metrics["validation NDCG@10"] > 0.8 * first.metrics["validation NDCG@10"]


def test_a_head_on_a_head_goes_on_and_a_full_update_ties_again(
    world: DataSet, first: Run, head: Run, encoder: TextEncoder
) -> None:
    again = train(world, replace(QUICK, epochs=1, head=True), encoder, start=head).run
    assert all(torch.equal(value, frozen(again.network)[name]) for name, value in frozen(first.network).items())
    full = train(world, replace(QUICK, epochs=1), encoder, start=head).run
    assert not full.network.size.untied
    assert len(full.item_ids) == len(world.items)


def test_the_head_begins_with_the_vectors_that_are_read() -> None:
    run = tiny_run(9)
    network = network_of(run, run.item_ids, run.text, untied=True)
    with torch.no_grad():
        assert torch.equal(network.output_matrix(), run.network.item_matrix())
        text = torch.randn(3, 384)
        assert torch.equal(network.output_vector(text), run.network.item_vector(text))
    back = network_of(replace(run, network=network), run.item_ids, run.text, untied=False)
    assert back.state_dict().keys() == run.network.state_dict().keys()


def test_the_run_comes_back_and_its_schema_keeps_earlier_versions_away(head: Run, tmp_path: Path) -> None:
    import json

    save_run(head, tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["schema"] == HEADED
    again = load_run(tmp_path)
    assert again.network.size == head.network.size
    with torch.no_grad():
        assert torch.equal(again.network.output_matrix(), head.network.output_matrix())
    save_run(tiny_run(9, blend=TEXT_BLEND), tmp_path / "plain")
    about = json.loads((tmp_path / "plain" / "run.json").read_text())
    assert about["schema"] == 3
    assert "untied" not in about["size"], "an earlier version reads it"
    about["schema"] = 5
    (tmp_path / "plain" / "run.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="schema 5; this version reads 2, 3 and 4"):
        load_run(tmp_path / "plain")
