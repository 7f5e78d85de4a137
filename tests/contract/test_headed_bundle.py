"""A bundle of a head update: states stay valid, scores change, and what does not fit together is refused by name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploy.verify.recompute.items import Items
from export.publish import build, frozen_alike, publish
from models.network.blend import Blend
from models.training.run import Run
from models.training.warm import network_of
from stream.catalogue.catalogue import Catalogue
from stream.core.errors import BundleError
from stream.inference.bundle import HEADED, Bundle, load
from stream.inference.models import Models, open_models
from stream.inference.score_terms import ScoreTerms
from stream.inference.text_encoder import Encoder, open_encoder
from tests.bundles import BLEND, TEXT_BLEND, text_onnx, tiny_run
from tests.contract.test_bundle import npy, resealed
from tests.unit.synthetic import Row

NONE_HIDDEN, NONE_RECENT = np.empty((0, 2), np.int64), np.empty((0, 3), np.int64)


def headed(run: Run) -> Run:
    """The run after a head update that changed everything behind the state."""
    network = network_of(run, run.item_ids, run.text, untied=True)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith(("query_item.", "out_")):
                weight.add_(0.2 * torch.randn_like(weight))
    return replace(run, network=network)


@pytest.fixture(scope="module", params=["plain", "texts"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """A bundle and its head update."""
    blend: Blend = BLEND if request.param == "plain" else TEXT_BLEND
    folder = tmp_path_factory.mktemp("bundles")
    run = tiny_run(blend=blend)
    before = load(publish(build(run, text=text_onnx()), folder))
    after = load(publish(build(headed(run), text=text_onnx(), base=before), folder))
    return before, after


@pytest.fixture(scope="module")
def models(pair: tuple[Bundle, Bundle]) -> Models:
    return open_models(pair[1], "cpu")


@pytest.fixture(scope="module")
def encoder(pair: tuple[Bundle, Bundle]) -> Encoder:
    return open_encoder(pair[1], "cpu")


def test_the_stamp_of_states_stays_and_scores_change(pair: tuple[Bundle, Bundle], models: Models) -> None:
    before, after = pair
    assert after.state_model == before.state_model
    assert np.array_equal(after.items, before.items)
    assert not np.allclose(after.score_items, before.score_items)
    assert after.outputs is not None
    assert np.array_equal(after.score_items[:, : after.item_dim], after.outputs)
    h = np.random.default_rng(0).normal(size=(3, before.hidden)).astype(np.float16)
    bias = np.zeros(51, np.float32)
    count = np.ones(3, np.int64)
    was, _ = open_models(before, "cpu").score(h, before.score_items, bias, NONE_HIDDEN, NONE_RECENT, count, 10)
    now, _ = models.score(h, after.score_items, bias, NONE_HIDDEN, NONE_RECENT, count, 10)
    assert not np.allclose(was, now)
    step = before.golden("step")
    for name in ("h_next", "c_next"):
        assert np.array_equal(step[name], after.golden("step")[name])


def test_its_files_come_from_the_bundle_with_the_same_step(pair: tuple[Bundle, Bundle]) -> None:
    before, after = pair
    run = headed(tiny_run(blend=TEXT_BLEND if before.text_width else BLEND))
    assert frozen_alike(run, before)
    assert frozen_alike(run, after)
    other = headed(tiny_run(seed=8))
    assert not frozen_alike(other, before)
    assert not frozen_alike(replace(run, item_ids=run.item_ids[::-1]), before)
    again = build(run, text=text_onnx())  # on this machine, without the base, the bytes are the same
    assert again["step.onnx"] == before.read("step.onnx")
    assert again["items.npy"] == before.read("items.npy")


def test_the_scores_can_be_explained(pair: tuple[Bundle, Bundle]) -> None:
    ScoreTerms(pair[1])  # raises if the terms do not add up to the golden scores


def test_an_item_that_came_later_is_read_and_scored_by_its_text(pair: tuple[Bundle, Bundle], encoder: Encoder) -> None:
    _, after = pair
    catalogue = Catalogue(after, encoder.item_vectors)
    catalogue.apply([(number, f"new-{number}".encode(), body(f"new-{number}")) for number in range(200)])
    snapshot = catalogue.snapshot
    assert snapshot.items.shape == (251, after.item_dim)
    assert snapshot.score_items.shape == (251, after.item_dim + after.text_width)
    assert snapshot.score_items.flags.c_contiguous
    assert np.array_equal(snapshot.items[:51], after.items)
    assert np.array_equal(snapshot.score_items[:51], after.score_items)
    vectors = encoder.item_vectors(["new-7"])
    assert vectors.shape == (1, after.row_width)
    row = snapshot.row("new-7")
    assert snapshot.items[row] == pytest.approx(vectors[0, : after.item_dim], abs=1e-5)
    assert snapshot.score_items[row] == pytest.approx(vectors[0, after.item_dim :], abs=1e-5)
    run = headed(tiny_run(blend=TEXT_BLEND if after.text_width else BLEND))
    text = torch.from_numpy(encoder.encode("new-7"))[None]
    with torch.no_grad():
        assert snapshot.items[row] == pytest.approx(run.network.item_vector(text)[0].numpy(), abs=1e-4)
        output = run.network.output_vector(text)[0].numpy()
    assert snapshot.score_items[row, : after.item_dim] == pytest.approx(output, abs=1e-4)
    assert encoder.item_vectors([]).shape == (0, after.row_width)


def test_verify_makes_the_same_rows(pair: tuple[Bundle, Bundle], encoder: Encoder) -> None:
    _, after = pair
    catalogue, items = Catalogue(after, encoder.item_vectors), Items(after, encoder)
    for number in range(3):
        key, value = f"new-{number}".encode(), body(f"new-{number}")
        catalogue.apply([(number, key, value)])
        items.take(Row(0, number, 0, key, value))
    live, snapshot = items.freeze(True), catalogue.snapshot
    assert np.array_equal(live.matrix, snapshot.items)
    assert np.array_equal(live.score_items, snapshot.score_items)


def body(item: str) -> bytes:
    return f'{{"item": "{item}", "title": "{item}"}}'.encode()


def test_earlier_versions_refuse_it_by_its_schema(pair: tuple[Bundle, Bundle]) -> None:
    import msgspec

    manifest = msgspec.json.decode((pair[1].folder / "manifest.json").read_bytes())
    assert manifest["schema"] == HEADED == 6
    before = msgspec.json.decode((pair[0].folder / "manifest.json").read_bytes())
    assert before["schema"] == 5
    assert set(manifest["files"]) - set(before["files"]) == {"outputs.npy"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda folder: resealed(folder, outputs_npy=npy(np.zeros((50, 16), np.float32))),
            r"outputs.npy: .*\(50, 16\)",
        ),
        (lambda folder: resealed(folder, outputs_npy=npy(np.full((51, 16), np.nan, np.float32))), "not finite"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(
    pair: tuple[Bundle, Bundle], tmp_path: Path, change: Any, reason: str
) -> None:
    target = tmp_path / pair[1].folder.name
    shutil.copytree(pair[1].folder, target)
    with pytest.raises(BundleError, match=reason):
        load(change(target))


def test_a_headed_bundle_with_the_schema_before_is_refused(pair: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    from hashlib import sha256

    target = tmp_path / pair[1].folder.name
    shutil.copytree(pair[1].folder, target)
    raw = (target / "manifest.json").read_bytes().replace(b'"schema": 6', b'"schema": 5')
    (target / "manifest.json").write_bytes(raw)
    with pytest.raises(BundleError, match=r"the list of files is wrong: .*outputs.npy"):
        load(target.rename(tmp_path / sha256(raw).hexdigest()))
