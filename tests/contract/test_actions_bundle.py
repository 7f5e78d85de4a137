"""A bundle whose network reads actions: what is exported is what is fed, and what does not fit together is refused by name."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.graphs import step_graph
from export.publish import build
from models.training.run import load_run, save_run
from stream.core.errors import BundleError, DataError
from stream.core.features import NUMBERS, InputRows
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import Models, open_models, ulps
from tests.bundles import tiny_bundle, tiny_run
from tests.contract.test_bundle import resealed
from tests.earlier import earlier

ACTIONS = ("cart", "purchase", "skip")
INPUTS = ["item", "behaviour", "scene", "numbers", "comment", "h", "c"]


@pytest.fixture(scope="module")
def acting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("acting"), actions=ACTIONS)


@pytest.fixture
def copy(acting: Path, tmp_path: Path) -> Path:
    target = tmp_path / acting.name
    shutil.copytree(acting, target, copy_function=os.link)
    return target


def opened(folder: Path) -> tuple[Bundle, Models]:
    bundle = load(folder)
    return bundle, open_models(bundle, "cpu")


def some_rows(bundle: Bundle, count: int) -> tuple[InputRows, Any, Any]:
    random = np.random.default_rng(4)
    rows = InputRows(
        item=bundle.items[random.integers(0, len(bundle.items), count)],
        behaviour=np.zeros(count, np.int64),
        scene=random.integers(0, 3, count),
        action=np.arange(count) % (len(ACTIONS) + 1),
        numbers=random.uniform(-1, 1, (count, NUMBERS)).astype(np.float32),
        comment=np.zeros((count, bundle.text_dim), np.float32),
    )
    h = np.tanh(random.normal(size=(count, bundle.hidden))).astype(np.float16)
    return rows, h, (2 * h).astype(np.float16)


def test_the_graph_reads_an_action_where_there_are_some() -> None:
    def inputs(actions: tuple[str, ...]) -> list[str]:
        return [value.name for value in step_graph(tiny_run(actions=actions).network).graph.input]

    assert inputs(()) == INPUTS
    assert inputs(ACTIONS) == [*INPUTS[:3], "action", *INPUTS[3:]]


def test_a_bundle_comes_back_with_its_actions(acting: Path) -> None:
    bundle, models = opened(acting)
    assert bundle.spec.actions == ACTIONS
    assert "| Actions read | cart, purchase, skip |" in (acting / "card.md").read_text()
    golden = bundle.golden("step")["action"]
    assert golden.dtype == np.int64
    assert (golden.min(), golden.max()) == (0, len(ACTIONS))
    assert bundle.parity["step"].max <= bundle.parity["step"].tolerance
    rows, h, c = some_rows(bundle, 12)
    found = models.step(rows, h, c)
    network = tiny_run(actions=ACTIONS).network
    with torch.inference_mode():
        numbers, behaviour, scene, action = (
            torch.from_numpy(part) for part in (rows.numbers, rows.behaviour, rows.scene, rows.action)
        )
        read = network.inputs(torch.from_numpy(rows.item), behaviour, scene, numbers, None, action)
        expected = network.step(read, torch.from_numpy(h).float(), torch.from_numpy(c).float())
    assert max(ulps(one, two.half().numpy()) for one, two in zip(found, expected, strict=True)) <= 2


def test_each_action_is_read_and_none_is_read_as_if_there_were_no_such_input(acting: Path, bundles: Path) -> None:
    """The other bundle has the same weights but for those of the actions."""
    bundle, models = opened(acting)
    plain_bundle, plain = opened(current(bundles))
    rows, h, c = some_rows(bundle, 12)
    same = [np.repeat(part[:1], 4, axis=0) for part in (*rows, h, c)]
    one = InputRows(*same[:-2])._replace(action=np.arange(4))
    found, _ = models.step(one, *same[-2:])
    assert len({row.tobytes() for row in found}) == 4
    none = rows._replace(action=np.zeros(12, np.int64))
    assert np.array_equal(bundle.items, plain_bundle.items)
    for mine, other in zip(models.step(none, h, c), plain.step(rows, h, c), strict=True):
        assert ulps(mine, other) <= 1


def test_a_manifest_from_before_there_were_actions_is_read(bundles: Path, tmp_path: Path) -> None:
    target = tmp_path / current(bundles).name
    shutil.copytree(current(bundles), target, copy_function=os.link)
    bundle, models = opened(resealed(target, lambda manifest: manifest["inputs"].pop("actions")))
    assert bundle.spec.actions == ()
    rows, h, c = some_rows(bundle, 3)
    assert np.isfinite(models.step(rows, h, c)[0]).all()


def test_an_earlier_version_refuses_it_by_its_schema(acting: Path, bundles: Path, tmp_path: Path) -> None:
    """Versions before read schema 2 only: they would feed no action. Since the tables are inputs, all have schema 5."""
    assert b'"schema": 3' in (earlier(acting, tmp_path) / "manifest.json").read_bytes()
    assert b'"schema": 2' in (earlier(current(bundles), tmp_path) / "manifest.json").read_bytes()
    for folder in (acting, current(bundles)):
        assert b'"schema": 5' in (folder / "manifest.json").read_bytes()


def without_actions(manifest: dict[str, Any]) -> None:
    del manifest["inputs"]["actions"]


def with_actions(manifest: dict[str, Any]) -> None:
    manifest["inputs"]["actions"] = list(ACTIONS)


def test_a_graph_that_reads_actions_is_refused_where_the_manifest_names_none(copy: Path) -> None:
    expected = r"^step.onnx: it has an input `action`, but manifest.json names no actions in inputs.actions: export the run again"
    with pytest.raises(BundleError, match=expected):
        opened(resealed(copy, without_actions))


def test_a_graph_that_reads_none_is_refused_where_the_manifest_names_some(bundles: Path, tmp_path: Path) -> None:
    target = tmp_path / current(bundles).name
    shutil.copytree(current(bundles), target, copy_function=os.link)
    expected = (
        r"^step.onnx: it has no input `action`, but manifest.json names 3 in inputs.actions \(cart, purchase, skip\)"
    )
    with pytest.raises(BundleError, match=expected):
        opened(resealed(target, with_actions))


@pytest.mark.parametrize("names", [["cart", "skip"], ["cart", "like", "purchase", "skip"]])
def test_another_number_of_actions_than_the_graph_was_proved_with(copy: Path, names: list[str]) -> None:
    with pytest.raises(
        BundleError, match=rf"golden.npz: step.action goes up to 3, .* names {len(names)} in inputs.actions"
    ):
        opened(resealed(copy, lambda manifest: manifest["inputs"].update(actions=names)))


def test_a_graph_that_passes_the_action_over_is_not_what_was_exported(copy: Path) -> None:
    """The input is there and is not looked at: every action is read as none."""
    model = onnx.load_from_string((copy / "step.onnx").read_bytes())
    zeros = onnx.helper.make_node("Sub", ["action", "action"], ["no_action"])
    for node in model.graph.node:
        node.input[:] = ["no_action" if name == "action" else name for name in node.input]
    model.graph.node.insert(0, zeros)
    with pytest.raises(BundleError, match=r"^step.onnx: .* away from its golden vectors"):
        opened(resealed(copy, step_onnx=model.SerializeToString()))


def test_golden_vectors_without_an_action_do_not_fit(copy: Path) -> None:
    with np.load(copy / "golden.npz") as golden:
        left = {name: golden[name] for name in golden.files if name != "step.action"}
    file = io.BytesIO()
    np.savez(file, **left)
    with pytest.raises(BundleError, match=r"golden.npz: does not fit the graphs \(KeyError: 'action'\)"):
        opened(resealed(copy, golden_npz=file.getvalue()))


def test_more_names_than_the_graph_has_rows_for(copy: Path) -> None:
    with np.load(copy / "golden.npz") as golden:
        arrays = {name: golden[name] for name in golden.files}
    arrays["step.action"] = arrays["step.action"] + (arrays["step.action"] == len(ACTIONS))
    file = io.BytesIO()
    np.savez(file, **arrays)
    names = [*ACTIONS, "view"]
    with pytest.raises(
        BundleError, match=r"golden.npz: does not fit the graphs \(.*indices element out of data bounds"
    ):
        opened(resealed(copy, lambda manifest: manifest["inputs"].update(actions=names), golden_npz=file.getvalue()))


def test_a_run_that_would_be_fed_other_actions_is_not_exported() -> None:
    run = tiny_run(actions=ACTIONS)
    with pytest.raises(
        DataError, match=r"the run: inputs.actions: 0 names \(none\), but the network reads 3; expected the same number"
    ):
        build(replace(run, spec=replace(run.spec, actions=())), text=b"")


def test_a_run_with_actions_comes_back(tmp_path: Path) -> None:
    run = tiny_run(9, actions=ACTIONS)
    save_run(run, tmp_path)
    again = load_run(tmp_path)
    assert again.spec == run.spec
    assert again.network.action is not None
    assert run.network.action is not None
    assert torch.equal(again.network.action.weight, run.network.action.weight)
