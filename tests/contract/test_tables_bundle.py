"""The tables of a bundle are inputs of its score graph: what does not fit is refused by name, and other tables change slates."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.network.blend import log_popularity
from stream.core.errors import BundleError
from stream.core.score_tables import ScoreTables
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import Models, open_models
from stream.inference.score_terms import ScoreTerms
from tests.bundles import BLEND, TEXT_BLEND, tiny_bundle, tiny_run
from tests.contract.test_bundle import npy, opened, resealed
from tests.earlier import earlier

NONE_HIDDEN = np.empty((0, 2), np.int64)


@pytest.fixture
def copy(bundles: Path, tmp_path: Path) -> Path:
    target = tmp_path / current(bundles).name
    shutil.copytree(current(bundles), target, copy_function=os.link)
    return target


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> Models:
    return open_models(bundle, "cpu")


def test_the_tables_are_those_of_the_run(bundle: Bundle) -> None:
    run, tables = tiny_run(), bundle.tables
    assert tables is not None
    assert b'"schema": 5' in (bundle.folder / "manifest.json").read_bytes()
    assert tables.epoch == 0
    assert np.array_equal(tables.near, run.neighbours.index)
    assert np.array_equal(tables.weight, run.neighbours.weight)
    assert np.array_equal(tables.popularity, log_popularity(run.popularity))
    assert not any(one.flags.writeable for one in (tables.near, tables.weight, tables.popularity))


@pytest.mark.parametrize(
    ("file", "array", "reason"),
    [
        ("near_npy", np.zeros((51, 5), np.int32), r"near.npy: int32 \(51, 5\), expected int32 \(51, 4\)"),
        ("near_npy", np.zeros((51, 4), np.int64), r"near.npy: int64"),
        ("near_npy", np.full((51, 4), 51, np.int32), r"near.npy: holds rows outside 0 .. 50"),
        ("near_npy", np.full((51, 4), -1, np.int32), r"near.npy: holds rows outside 0 .. 50"),
        ("near_weights_npy", np.zeros((50, 4), np.float32), r"near_weights.npy: float32 \(50, 4\)"),
        ("near_weights_npy", np.full((51, 4), np.nan, np.float32), r"near_weights.npy: .*not finite"),
        ("log_popularity_npy", np.zeros(51), r"log_popularity.npy: float64"),
        ("log_popularity_npy", np.full(51, np.inf, np.float32), r"log_popularity.npy: .*not finite"),
    ],
)
def test_tables_that_do_not_fit(copy: Path, file: str, array: Any, reason: str) -> None:
    with pytest.raises(BundleError, match=f"^{reason}"):
        load(resealed(copy, **{file: npy(array)}))


@pytest.mark.parametrize("file", ["near.npy", "near_weights.npy", "log_popularity.npy"])
def test_a_table_that_is_missing(copy: Path, file: str) -> None:
    with pytest.raises(BundleError, match=f"^manifest.json: .*missing .*{file}"):
        load(resealed(copy, lambda manifest: manifest["files"].pop(file)))


def rolled(tables: ScoreTables, name: str) -> bytes:
    return npy(np.roll(getattr(tables, name), 1, axis=0))


@pytest.mark.parametrize("name", ["weight", "near", "popularity"])
def test_other_tables_do_not_answer_as_at_export(copy: Path, bundle: Bundle, name: str) -> None:
    file = {"weight": "near_weights_npy", "near": "near_npy", "popularity": "log_popularity_npy"}[name]
    assert bundle.tables is not None
    with pytest.raises(BundleError, match=r"^score.onnx: inf of a score away from its golden vectors"):
        opened(resealed(copy, **{file: rolled(bundle.tables, name)}))


def test_a_graph_that_has_them_inside_is_refused_where_the_files_say_otherwise(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "earlier").mkdir()
    inside = earlier(copy, tmp_path / "earlier")
    with pytest.raises(BundleError, match=r"^score.onnx: inputs .*'k'\], expected .*'near', 'weight', 'popularity'\]"):
        opened(resealed(copy, score_onnx=(inside / "score.onnx").read_bytes()))


def test_a_graph_that_takes_them_is_refused_under_an_earlier_schema(copy: Path) -> None:
    def changed(manifest: dict[str, Any]) -> None:
        manifest["schema"] = 2
        for name in ("near.npy", "near_weights.npy", "log_popularity.npy"):
            del manifest["files"][name]

    with pytest.raises(BundleError, match=r"^score.onnx: inputs .*'popularity'\], expected .*'k'\]"):
        opened(resealed(copy, changed))


def same(slates: tuple[Any, Any], others: tuple[Any, Any]) -> bool:
    return np.array_equal(slates[0], others[0]) and np.array_equal(slates[1], others[1])


def asked(bundle: Bundle, users: int = 70) -> tuple[Any, ...]:
    """What score is asked, for users with choices of items that came after training, too."""
    random = np.random.default_rng(3)
    h = np.tanh(random.normal(size=(users, bundle.hidden))).astype(np.float16)
    later = random.normal(size=(3, bundle.score_items.shape[1])).astype(np.float32)
    items = np.concatenate((bundle.score_items, later))
    bias = np.where(np.arange(len(items)) > 0, 0, -np.inf).astype(np.float32)
    owner, age = np.divmod(np.arange(users * BLEND.last), BLEND.last)
    recent = np.stack((owner, random.integers(0, len(items), len(owner)), age), axis=1)
    return h, items, bias, recent[::5, :2].copy(), recent, np.arange(users), 10


@pytest.mark.parametrize("kind", ["plain", "actions", "texts"])
def test_bundles_of_earlier_versions_answer_the_same_bits(
    kind: str, bundles: Path, text_bundle: Path, tmp_path: Path
) -> None:
    if kind == "actions":
        folder = tiny_bundle(tmp_path / "acting", actions=("cart", "skip"))
    else:
        folder = text_bundle if kind == "texts" else current(bundles)
    before = earlier(folder, tmp_path)
    schema = {"plain": b"2", "actions": b"3", "texts": b"4"}[kind]
    assert b'"schema": ' + schema in (before / "manifest.json").read_bytes()
    old, new = opened(before), load(folder)
    assert old.tables is None
    assert old.state_model == new.state_model
    ask = asked(new)
    assert same(open_models(old, "cpu").score(*ask), open_models(new, "cpu").score(*ask))
    terms, recent = ScoreTerms(old), np.array([(7, 0), (9, 4), (52, 1)])
    rows = np.arange(54)
    assert np.array_equal(terms.neighbours(rows, recent), ScoreTerms(new).neighbours(rows, recent))
    assert np.allclose(terms.popularity(rows, 3), ScoreTerms(new).popularity(rows, 3), atol=1e-6)


def other_tables(rows: int, width: int, seed: int = 4) -> ScoreTables:
    random = np.random.default_rng(seed)
    near = random.integers(0, rows, (rows, width)).astype(np.int32)
    weight = random.random((rows, width)).astype(np.float32)
    near[0] = weight[0] = 0
    return ScoreTables(3, near, weight * (near > 0), random.normal(size=rows).astype(np.float32))


@pytest.mark.parametrize("rows", [1, 30, 51, 53, 54])
@pytest.mark.parametrize("width", [1, 9])
def test_tables_of_any_size_take_the_place_of_the_bundles(
    text_bundle: Path, bundle: Bundle, rows: int, width: int
) -> None:
    """Rows behind the tables have no neighbours and no popularity; items that came after training may have both."""
    for made, blend in ((bundle, BLEND), (load(text_bundle), TEXT_BLEND)):
        models, terms, tables = open_models(made, "cpu"), ScoreTerms(made), other_tables(rows, width)
        h, items, bias, _, recent, count, _ = asked(made, 5)
        ask = h, items, bias, NONE_HIDDEN, recent, count, len(items) - 1
        own = models.score(*ask)
        scores, places = models.score(*ask, tables)
        assert not np.array_equal(scores, own[0])
        for user in range(5):
            at = places[user]
            mine = recent[recent[:, 0] == user][:, 1:]
            sums = terms.interest(h[user : user + 1], items[at][:, : made.item_dim])[0]
            sums += terms.texts(items[at], items[mine[:, 0]], mine[:, 1]).sum(0)
            for row, age in mine.tolist():
                if row < rows:
                    for other, weight in zip(tables.near[row], tables.weight[row], strict=True):
                        sums[at == other] += blend.neighbour * blend.fade**age * weight
            share = blend.evidence / (blend.evidence + count[user])
            sums += np.where(at < rows, blend.prior * share * tables.popularity[np.minimum(at, rows - 1)], 0)
            assert scores[user] == pytest.approx(sums, abs=1e-4)
            near = terms.neighbours(at, mine, tables).sum(0)
            assert near + terms.popularity(at, int(count[user]), tables) == pytest.approx(
                sums
                - terms.interest(h[user : user + 1], items[at][:, : made.item_dim])[0]
                - terms.texts(items[at], items[mine[:, 0]], mine[:, 1]).sum(0),
                abs=1e-4,
            )
        assert same(own, models.score(*ask)), "and back"
