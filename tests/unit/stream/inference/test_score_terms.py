"""The terms of a score outside the graph are those inside, on a real exported bundle; and taking graphs apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.network.blend import log_popularity
from stream.core.errors import BundleError
from stream.inference import onnx_parts
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import Models, open_models
from stream.inference.score_terms import ScoreTerms
from tests.bundles import BLEND, TEXT_BLEND, tiny_run
from tests.earlier import earlier


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return load(current(bundles))


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> Models:
    return open_models(bundle, "cpu")


def test_the_terms_are_those_of_the_run(bundle: Bundle) -> None:
    terms, run = ScoreTerms(bundle), tiny_run()
    rows = np.arange(1, 54)  # three came after training
    share = BLEND.evidence / (BLEND.evidence + 3)
    popular = terms.popularity(rows, 3)
    assert np.allclose(popular[:50], share * BLEND.prior * log_popularity(run.popularity)[1:], atol=1e-6)
    assert not popular[50:].any()
    near = terms.neighbours(rows, np.array([(7, 0), (7, 4), (52, 1), (0, 2)]))
    for at, age in ((0, 0), (1, 4)):
        expected = np.zeros(53, np.float32)
        expected[[7, 8, 9, 10]] = BLEND.neighbour * BLEND.fade**age / np.arange(1, 5)
        assert np.allclose(near[at], expected, atol=1e-6)
    assert not near[2:].any()  # newer than the training, and unknown


def test_the_interest_is_the_score_without_the_other_terms(bundle: Bundle, models: Models) -> None:
    terms = ScoreTerms(bundle)
    rng = np.random.default_rng(3)
    h = np.tanh(rng.normal(size=(5, bundle.hidden))).astype(np.float16)
    bias = np.zeros(len(bundle.items), np.float32)
    none = np.empty((0, 2), np.int64), np.empty((0, 3), np.int64)
    scores, rows = models.score(h, bundle.items, bias, *none, np.full(5, 10**15), len(bundle.items))
    interest = terms.interest(h, bundle.items)
    assert np.allclose(np.take_along_axis(interest, rows, 1), scores, atol=1e-5)
    assert np.allclose(terms.interest(h[:1], bundle.items), interest[:1], atol=1e-6)
    assert terms.interest(h[:0], bundle.items).shape == (0, 51)


def test_the_text_term_is_that_of_the_run(text_bundle: Path) -> None:
    bundle, run = load(text_bundle), tiny_run(blend=TEXT_BLEND)
    terms, texts = ScoreTerms(bundle), run.texts.vectors
    weight = np.where(run.new, TEXT_BLEND.text_new, TEXT_BLEND.text)
    recent = np.array([(7, 0), (7, 1), (10, 2)])  # item 10 is new
    found = terms.texts(bundle.score_items, bundle.score_items[recent[:, 0]], recent[:, 1])
    share = 0.7 ** np.arange(3)
    assert np.allclose(found, (share / share.sum())[:, None] * (texts[[7, 7, 10]] @ texts.T) * weight, atol=1e-5)
    assert terms.texts(bundle.score_items, bundle.score_items[:0], recent[:0, 1]).shape == (0, 51)


def refused_without(absent: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its terms are not read from a graph without the array `absent`."""
    arrays = onnx_parts.arrays

    def other(model: bytes, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        return {name: array for name, array in arrays(model, names).items() if name != absent}

    monkeypatch.setattr(onnx_parts, "arrays", other)
    with pytest.raises(BundleError, match=r"score\.onnx: its scores cannot be explained: "):
        ScoreTerms(bundle)


@pytest.mark.parametrize("absent", ["tail_text", "tail_text_decay"])
def test_a_text_term_that_is_not_in_the_graph_is_refused(
    text_bundle: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    refused_without(absent, load(text_bundle), monkeypatch)


@pytest.mark.parametrize("absent", ["tail_decay", "tail_prior"])
def test_a_graph_whose_terms_are_not_its_scores_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    refused_without(absent, bundle, monkeypatch)


@pytest.mark.parametrize("absent", ["tail_weight", "tail_decay", "tail_popularity"])
def test_so_is_one_of_an_earlier_version(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    refused_without(absent, load(earlier(bundle.folder, tmp_path)), monkeypatch)


def test_a_graph_without_a_query_is_refused(bundle: Bundle) -> None:
    class Other(Bundle):
        def read(self, name: str) -> bytes:
            return super().read("step.onnx")

    other = Other(**{name: getattr(bundle, name) for name in bundle.__dataclass_fields__})
    with pytest.raises(BundleError, match=r"score\.onnx: its scores cannot be explained: has no value 'query'"):
        ScoreTerms(other)


def test_arrays_of_other_types_are_refused(bundle: Bundle) -> None:
    model = bundle.read("score.onnx")
    assert onnx_parts.arrays(model, ("tail_evidence", "nothing"))["tail_evidence"].shape == ()
    broken = model.replace(b"\x42\x0dtail_evidence", b"\x42\x0dtail_eviwence")
    assert onnx_parts.arrays(broken, ("tail_evidence",)) == {}
    with pytest.raises(BundleError, match="no graph"):
        onnx_parts.arrays(b"", ("tail_evidence",))


def test_bundles_with_fewer_terms(bundle: Bundle, tmp_path: Path) -> None:
    from export.publish import build, publish
    from tests.bundles import text_onnx

    blend = replace(BLEND, prior=0.0, neighbour=0.0)
    plain = load(publish(build(tiny_run(blend=blend), text=text_onnx()), tmp_path))
    terms = ScoreTerms(plain)
    rows = np.arange(1, 5)
    assert not terms.popularity(rows, 0).any()
    assert not terms.neighbours(rows, np.array([(1, 0)])).any()
