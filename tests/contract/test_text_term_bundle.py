"""A bundle with a text term: what does not fit together is refused by name, and items after training bring their texts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.training.run import load_run, save_run
from stream.catalogue.catalogue import Catalogue
from stream.core.errors import BundleError, DataError
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import open_models
from stream.inference.text_encoder import Encoder, open_encoder
from tests.bundles import TEXT_BLEND, TEXT_WIDTH, tiny_run
from tests.contract.test_bundle import npy, opened, resealed
from tests.earlier import earlier

SCHEMA = b'"schema": 5'


@pytest.fixture
def copy(text_bundle: Path, tmp_path: Path) -> Path:
    target = tmp_path / text_bundle.name
    shutil.copytree(text_bundle, target, copy_function=os.link)
    return target


@pytest.fixture(scope="module")
def bundle(text_bundle: Path) -> Bundle:
    return load(text_bundle)


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> Encoder:
    return open_encoder(bundle, "cpu")


def test_it_holds_the_projected_texts_of_the_run(bundle: Bundle) -> None:
    run = tiny_run(blend=TEXT_BLEND)
    assert bundle.texts is not None
    assert np.linalg.norm(bundle.texts[[1, 9, 10, 50]], axis=1) == pytest.approx([1, 1, 2.5, 2.5], abs=1e-5)
    assert np.array_equal(bundle.texts, run.scaled_texts)
    assert np.array_equal(bundle.score_items, np.concatenate((bundle.items, bundle.texts), axis=1))
    assert not bundle.score_items.flags.writeable
    assert (bundle.text_width, bundle.item_dim) == (TEXT_WIDTH, bundle.items.shape[1])
    term = bundle.text_term
    assert term is not None
    assert (term.weight, term.new, term.fade, term.width) == (4.0, 10.0, 0.7, TEXT_WIDTH)
    assert "| Texts in the score | 4, 10 for new items, 16 components, " in (bundle.folder / "card.md").read_text()


def test_an_earlier_version_refuses_it_by_its_schema_and_states_stay(
    text_bundle: Path, bundles: Path, tmp_path: Path
) -> None:
    """The step graph and the items are those of the bundle without the term, so that no state is folded again."""
    assert SCHEMA in (text_bundle / "manifest.json").read_bytes()
    assert b'"schema": 4' in (earlier(text_bundle, tmp_path) / "manifest.json").read_bytes()
    plain = (current(bundles) / "manifest.json").read_bytes()
    assert SCHEMA in plain
    assert b'"schema": 2' in (earlier(current(bundles), tmp_path) / "manifest.json").read_bytes()
    assert b"text_term" not in plain
    assert load(text_bundle).state_model == load(current(bundles)).state_model


def without_term(manifest: dict[str, Any]) -> None:
    del manifest["text_term"]
    manifest["schema"] = 4


def as_plain(manifest: dict[str, Any]) -> None:
    del manifest["text_term"]


def as_if_plain(manifest: dict[str, Any]) -> None:
    as_plain(manifest)
    del manifest["files"]["texts.npy"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            without_term,
            "text_term: none under schema 4, expected one under schema 4, none under 2 and 3: export the run again",
        ),
        (
            lambda manifest: manifest.update(schema=2),
            "text_term: one under schema 2, expected one under schema 4, none",
        ),
        (
            lambda manifest: manifest.update(schema=3),
            "text_term: one under schema 3, expected one under schema 4, none",
        ),
        (lambda manifest: manifest["files"].pop("texts.npy"), "missing .*texts.npy"),
        (as_plain, "extra .*texts.npy"),
        (lambda manifest: manifest["text_term"].update(width=0), "text_term"),
    ],
)
def test_manifests_that_do_not_fit(copy: Path, change: Callable[[dict[str, Any]], Any], reason: str) -> None:
    with pytest.raises(BundleError, match=f"manifest.json: .*{reason}"):
        load(resealed(copy, change))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((51, TEXT_WIDTH + 1), np.float32), r"expected float32 \(51, 16\)"),
        (np.zeros((50, TEXT_WIDTH), np.float32), r"expected float32 \(51, 16\)"),
        (np.zeros((51, TEXT_WIDTH)), "float64"),
        (np.full((51, TEXT_WIDTH), np.nan, np.float32), "not finite"),
    ],
)
def test_texts_that_do_not_fit(copy: Path, array: Any, reason: str) -> None:
    with pytest.raises(BundleError, match=rf"^texts.npy: .*{reason}"):
        load(resealed(copy, texts_npy=npy(array)))


def test_other_texts_do_not_answer_as_at_export(copy: Path) -> None:
    texts = load(copy).texts
    assert texts is not None
    with pytest.raises(BundleError, match=r"^score.onnx: inf of a score away from its golden vectors"):
        opened(resealed(copy, texts_npy=npy(np.roll(texts, 1, axis=0))))


def test_graphs_that_read_texts_are_refused_where_the_manifest_has_no_term(copy: Path) -> None:
    with pytest.raises(BundleError, match=r"^score.onnx: .*items"):
        opened(resealed(copy, as_if_plain))


def test_graphs_without_texts_are_refused_where_the_manifest_has_a_term(copy: Path, bundles: Path) -> None:
    plain = current(bundles)
    for name in ("score", "item"):
        content = (plain / f"{name}.onnx").read_bytes()
        folder = copy.parent / name / copy.name
        shutil.copytree(copy, folder, copy_function=os.link)
        with pytest.raises(BundleError, match=rf"^{name}.onnx: "):
            opened(resealed(folder, **{f"{name}_onnx": content}))


def record(item: str, title: str) -> bytes:
    return json.dumps({"item": item, "title": title}).encode()


def test_an_item_after_training_has_the_projection_of_its_text(bundle: Bundle, encoder: Encoder) -> None:
    catalogue = Catalogue(bundle, encoder.item_vectors)
    named = {"new-1": "A quiet film about an old boat", "new-2": "Space opera", "item-1": "known"}
    catalogue.apply([(at, item.encode(), record(item, title)) for at, (item, title) in enumerate(named.items())])
    snapshot, projection = catalogue.snapshot, tiny_run(blend=TEXT_BLEND).projection
    assert np.array_equal(snapshot.items, snapshot.score_items[:, : bundle.item_dim])
    assert np.array_equal(snapshot.score_items[:51], bundle.score_items)
    for item in ("new-1", "new-2"):
        text = encoder.encode(named[item])
        row = snapshot.score_items[snapshot.row(item)]
        assert row[bundle.item_dim :] == pytest.approx(2.5 * projection.apply(text[None])[0], abs=1e-5)
        assert np.array_equal(row[: bundle.item_dim], snapshot.items[snapshot.row(item)])
    assert encoder.item_vectors([]).shape == (0, bundle.item_dim + TEXT_WIDTH)
    assert not encoder.item_vectors([""])[0, bundle.item_dim :].any(), "no text is like no other"


def test_a_new_item_like_the_last_choice_is_preferred(bundle: Bundle, encoder: Encoder) -> None:
    """Nobody has chosen any of them. Of two new items with the same vector, the one with the like text comes first."""
    models = open_models(bundle, "cpu")
    new = encoder.item_vectors(["Two friends restore an old boat", "Old boats and two friends", "Stock prices fell"])
    new[:, : bundle.item_dim] = new[0, : bundle.item_dim]
    items = np.concatenate((bundle.score_items, new))
    bias = np.full(len(items), -np.inf, np.float32)
    bias[-2:] = 0
    recent = np.array([(0, len(items) - 3, 0)])
    h, none = np.zeros((1, bundle.hidden), np.float16), np.empty((0, 2), np.int64)
    scores, rows = models.score(h, items, bias, none, recent, np.ones(1, np.int64), 2)
    assert rows[0].tolist() == [len(items) - 2, len(items) - 1]
    assert scores[0, 0] > scores[0, 1] + 0.1
    scores, _ = models.score(h, items, bias, none, recent[:0], np.zeros(1, np.int64), 2)
    assert scores[0, 0] == pytest.approx(scores[0, 1], abs=1e-6), "no choice, no text"


def test_a_run_with_a_text_term_comes_back(tmp_path: Path) -> None:
    run = tiny_run(9, blend=TEXT_BLEND)
    save_run(run, tmp_path)
    again = load_run(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["schema"] == 3, "earlier versions would leave the texts out"
    assert again.blend == run.blend
    assert np.array_equal(again.projection.mean, run.projection.mean)
    assert np.array_equal(again.projection.matrix, run.projection.matrix)
    assert np.array_equal(again.new, run.new)
    assert np.array_equal(again.scaled_texts, run.scaled_texts)


def test_a_run_without_one_is_as_it_was(tmp_path: Path) -> None:
    save_run(tiny_run(9), tmp_path)
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["schema"] == 2
    assert set(about["blend"]) == {"last", "fade", "neighbour", "prior", "evidence"}
    assert not (tmp_path / "projection.npz").exists()
    again = load_run(tmp_path)
    assert again.text_width == 0
    assert again.scaled_texts.shape == (10, 0)


@pytest.mark.parametrize(
    ("mean", "matrix", "reason"),
    [
        (np.zeros(3, np.float32), np.zeros((384, 2), np.float32), r"mean \(3,\)"),
        (np.zeros(384, np.float32), np.zeros((384, 0), np.float32), "P above 0"),
        (np.zeros(384), np.zeros((384, 2), np.float32), "float64"),
        (np.zeros(384, np.float32), np.full((384, 2), np.inf, np.float32), "finite"),
    ],
)
def test_a_projection_that_does_not_fit(tmp_path: Path, mean: Any, matrix: Any, reason: str) -> None:
    save_run(tiny_run(9, blend=TEXT_BLEND), tmp_path)
    np.savez(tmp_path / "projection.npz", mean=mean, matrix=matrix, new=np.zeros(10, np.bool_))
    with pytest.raises(DataError, match=f"projection: .*{reason}"):
        load_run(tmp_path)


@pytest.mark.parametrize("change", [{"text": float("nan")}, {"text_fade": 0.0}, {"text_fade": 1.5}, {"text_new": 1.0}])
def test_numbers_that_cannot_be_served(tmp_path: Path, change: dict[str, float]) -> None:
    save_run(tiny_run(9, blend=TEXT_BLEND), tmp_path)
    about = json.loads((tmp_path / "run.json").read_text())
    about["blend"] |= change
    (tmp_path / "run.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="expected finite numbers, text_fade in"):
        load_run(tmp_path)
