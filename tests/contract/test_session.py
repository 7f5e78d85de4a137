"""The step and score sessions: the same bits in any batch, the ten best that plain numpy finds, and no bad day on odd input."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.publish import build, publish
from models.network.blend import Blend, Neighbours, log_popularity
from models.training.run import Run
from stream.core.errors import DataError, ProviderError, SettingsError
from stream.core.features import NUMBERS, InputRows
from stream.inference import runtime
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import Models, open_models, slates_apart
from tests.bundles import BLEND, TEXT_BLEND, ring, text_onnx, tiny_run

NONE_HIDDEN = np.empty((0, 2), np.int64)
NONE_RECENT = np.empty((0, 3), np.int64)


def wide_run() -> Run:
    return tiny_run(300, item=64, hidden=128, near=30, actions=("cart", "purchase", "skip"))


@pytest.fixture(scope="module", params=["tiny", "full width", "texts"])
def bundle(
    request: pytest.FixtureRequest, bundles: Path, text_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    if request.param != "full width":
        return load(text_bundle if request.param == "texts" else current(bundles))
    return load(publish(build(wide_run(), text=text_onnx()), tmp_path_factory.mktemp("wide")))


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> Models:
    return open_models(bundle, "cpu")


def some_rows(bundle: Bundle, count: int, seed: int = 0) -> tuple[InputRows, Any, Any]:
    random = np.random.default_rng(seed)
    rows = InputRows(
        item=bundle.items[random.integers(0, len(bundle.items), count)],
        behaviour=random.integers(0, 3, count),
        scene=random.integers(0, 3, count),
        action=random.integers(0, len(bundle.spec.actions) + 1, count),
        numbers=random.uniform(-1, 1, (count, NUMBERS)).astype(np.float32),
        comment=(random.normal(size=(count, bundle.text_dim)) / 20).astype(np.float32)
        * (random.random((count, 1)) < 0.3).astype(np.float32),
    )
    h = np.tanh(random.normal(size=(count, bundle.hidden))).astype(np.float16)
    c = (random.normal(size=(count, bundle.hidden)) * random.choice([0, 1, 20], (count, 1))).astype(np.float16)
    return rows, h, c


def test_a_row_gives_the_same_bits_in_any_batch_and_place(bundle: Bundle, models: Models) -> None:
    total = 300
    rows, h, c = some_rows(bundle, total)
    alone = [
        models.step(InputRows._make(part[i : i + 1] for part in rows), h[i : i + 1], c[i : i + 1]) for i in range(total)
    ]
    h_alone = np.concatenate([pair[0] for pair in alone]).view(np.uint16)
    c_alone = np.concatenate([pair[1] for pair in alone]).view(np.uint16)
    random = np.random.default_rng(1)
    for size in range(1, total + 1):
        chosen = random.permutation(total)[:size]
        h_next, c_next = models.step(InputRows._make(part[chosen] for part in rows), h[chosen], c[chosen])
        assert np.array_equal(h_next.view(np.uint16), h_alone[chosen]), size
        assert np.array_equal(c_next.view(np.uint16), c_alone[chosen]), size


def test_long_histories_stay_equal_in_batches_and_alone(bundle: Bundle, models: Models) -> None:
    users, events = 7, 60
    h, c = (np.zeros((users, bundle.hidden), np.float16) for _ in range(2))
    singles = [(h[:1], c[:1])] * users
    for event in range(events):
        rows, _, _ = some_rows(bundle, users, seed=event)
        h, c = models.step(rows, h, c)
        for user in range(users):
            singles[user] = models.step(InputRows._make(part[user : user + 1] for part in rows), *singles[user])
    assert np.array_equal(h, np.concatenate([single[0] for single in singles]))
    assert np.array_equal(c, np.concatenate([single[1] for single in singles]))
    assert np.abs(h).max() > 0.01


def test_steps_of_nobody(bundle: Bundle, models: Models) -> None:
    rows, h, c = some_rows(bundle, 0)
    h_next, c_next = models.step(rows, h, c)
    assert h_next.shape == c_next.shape == (0, bundle.hidden)


def test_states_are_clamped_to_finite_numbers(bundle: Bundle, models: Models) -> None:
    rows, h, c = some_rows(bundle, 4)
    h_next, c_next = models.step(rows, h, np.full_like(c, 65_504))
    assert np.isfinite(h_next).all()
    assert np.abs(c_next).max() <= 60_000


def recents(random: np.random.Generator, users: int, rows: int, last: int) -> Any:
    """int64 [R, 3]: up to `last` choices of each user."""
    have = random.integers(0, last + 1, users)
    lines = [(user, random.integers(0, rows), age) for user in range(users) for age in range(have[user])]
    return np.array(lines, np.int64).reshape(-1, 3)


def oracle(bundle: Bundle, h: Any, items: Any, bias: Any, hidden: Any, recent: Any, count: Any) -> Any:
    """The sum of models/network/blend.py, term by term in float64."""
    run = tiny_run(50, blend=TEXT_BLEND if bundle.text_width else BLEND) if len(bundle.item_ids) == 50 else wide_run()
    blend, near = run.blend, run.neighbours
    texts, items = items[:, bundle.item_dim :].astype(np.float64), items[:, : bundle.item_dim]
    with torch.inference_mode():
        query = run.network.query(torch.from_numpy(h).float()).numpy()
    scores = query.astype(np.float64) @ items.T.astype(np.float64) + bias
    popular = np.zeros(len(items))
    popular[: len(run.popularity)] = log_popularity(run.popularity)
    for user, row, age in recent.tolist():
        if row < len(near.index):
            for other, weight in zip(near.index[row], near.weight[row], strict=True):
                scores[user, other] += blend.neighbour * blend.fade**age * weight
    for user in range(len(h)):
        own = recent[recent[:, 0] == user]
        if bundle.text_width and len(own):
            share = blend.text_fade ** own[:, 2]
            chosen = texts[own[:, 1]] / np.maximum(np.linalg.norm(texts[own[:, 1]], axis=1, keepdims=True), 1)
            scores[user] += blend.text * (share @ chosen) / share.sum() @ texts.T
    scores += (blend.prior * blend.evidence / (blend.evidence + count))[:, None] * popular
    scores[hidden[:, 0], hidden[:, 1]] = -np.inf
    return scores


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 150), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_best_are_those_that_numpy_finds(bundle: Bundle, models: Models, users: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    _, h, _ = some_rows(bundle, users, seed)
    later = random.normal(size=(random.integers(0, 4), bundle.score_items.shape[1])).astype(np.float32)
    items = np.concatenate((bundle.score_items, later))
    bias = np.where(random.random(len(items)) < 0.2, -np.inf, 0).astype(np.float32)
    bias[0] = -np.inf  # as in every catalogue
    pairs = random.integers(0, 200)
    hidden = np.stack((random.integers(0, users, pairs), random.integers(0, len(items), pairs)), 1)
    recent, count = recents(random, users, len(items), models.last), random.integers(0, 60, users)
    scores, rows = models.score(h, items, bias, hidden, recent, count, k)
    full = oracle(bundle, h, items, bias, hidden, recent, count)
    k = min(k, len(items))
    assert scores.shape == rows.shape == (users, k)
    best = -np.sort(-full, axis=1)[:, :k]
    open_ = ~np.isneginf(best)
    assert np.array_equal(np.isneginf(scores), ~open_)
    assert np.allclose(scores[open_], best[open_], atol=1e-4)
    assert np.allclose(np.take_along_axis(full, rows, 1)[open_], best[open_], atol=1e-4), "the rows have those scores"
    assert all(len(set(row[mask])) == mask.sum() for row, mask in zip(rows, open_, strict=True)), "no item twice"


def test_a_score_does_not_depend_on_the_batch(bundle: Bundle, models: Models) -> None:
    """Places equal but for near ties, scores to 1e-5: also of users behind the first part that is scored at a time."""
    users, random = 150, np.random.default_rng(5)
    _, h, _ = some_rows(bundle, users)
    bias = np.zeros(len(bundle.items), np.float32)
    recent, count = recents(random, users, len(bundle.items), models.last), np.arange(users)
    hidden = np.stack((np.arange(users), random.integers(0, len(bundle.items), users)), 1)
    together = models.score(h, bundle.score_items, bias, hidden, recent, count, 10)
    for user in range(users):
        mine = recent[recent[:, 0] == user] * (0, 1, 1)
        pairs = hidden[user : user + 1] * (0, 1)
        alone = models.score(h[user : user + 1], bundle.score_items, bias, pairs, mine, count[user : user + 1], 10)
        scores, rows = together
        assert slates_apart(*alone, scores[user : user + 1], rows[user : user + 1]) < 1e-5


def test_odd_requests_never_raise(bundle: Bundle, models: Models) -> None:
    _, h, _ = some_rows(bundle, 3)
    items, bias, count = bundle.score_items, np.zeros(len(bundle.items), np.float32), np.zeros(3, np.int64)
    nothing = NONE_HIDDEN, NONE_RECENT
    assert models.score(h, items, bias, *nothing, count, len(items) + 50)[0].shape == (3, len(items))
    assert models.score(h[:0], items, bias, *nothing, count[:0], 5)[1].shape == (0, 5)
    assert models.score(h, items[:0], bias[:0], *nothing, count, 5)[1].shape == (3, 0)
    assert models.score(h, items, bias, *nothing, count, 0)[1].shape == (3, 0)
    assert np.isneginf(models.score(h, items, bias - np.inf, *nothing, count, 5)[0]).all()


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_has_no_slate_and_spoils_no_other(
    bundle: Bundle, models: Models, broken: float
) -> None:
    _, h, _ = some_rows(bundle, 3)
    bias = np.zeros(len(bundle.items), np.float32)
    rest = bundle.score_items, bias, NONE_HIDDEN, NONE_RECENT, np.ones(3, np.int64), 5
    good = models.score(h, *rest)
    h[1, -2] = broken
    scores, rows = models.score(h, *rest)
    assert np.isneginf(scores[1]).all()
    assert np.array_equal(scores[[0, 2]], good[0][[0, 2]])
    assert np.array_equal(rows[[0, 2]], good[1][[0, 2]])


@pytest.mark.parametrize(
    ("run", "last"),
    [
        (tiny_run(near=0), 0),
        (tiny_run(blend=Blend(neighbour=0.0, prior=0.3)), 0),
        (tiny_run(blend=Blend(last=3, neighbour=0.5, prior=0.0)), 3),
        (tiny_run(blend=Blend(last=3, text=2.0, text_new=2.0)), 3),
    ],
)
def test_parts_of_no_weight_are_left_out(run: Run, last: int, tmp_path: Path) -> None:
    models = open_models(
        load(publish(build(run, text=text_onnx()), tmp_path)), "cpu"
    )  # its golden vectors are replayed
    assert models.last == last


@pytest.mark.parametrize(
    ("blend", "near", "reason"),
    [
        (Blend(last=65), ring(50, 4), "last in 0 .. 64"),
        (Blend(fade=0.0), ring(50, 4), "fade in"),
        (Blend(prior=math.nan), ring(50, 4), "finite"),
        (Blend(evidence=0.0), ring(50, 4), "evidence above 0"),
        (Blend(), ring(49, 4), r"expected \(51, K\)"),
        (Blend(), Neighbours(ring(50, 4).index + 1, ring(50, 4).weight), "outside 0 .. 50, or row 0"),
    ],
)
def test_a_sum_that_cannot_be_served_is_not_exported(blend: Blend, near: Neighbours, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        build(replace(tiny_run(), blend=blend, neighbours=near), text=b"")


def test_the_same_run_exports_to_the_same_graphs(bundles: Path) -> None:
    again = build(tiny_run(50), text=text_onnx())
    folder = current(bundles)
    for name, content in again.items():
        if name == "golden.npz":  # what torch computed: its threads may split a sum otherwise, in the last bits
            one, other = np.load(io.BytesIO(content)), np.load(folder / name)
            assert one.files == other.files
            for array in one.files:
                if one[array].dtype.kind == "f":
                    np.testing.assert_allclose(one[array], other[array], rtol=0, atol=1e-5, err_msg=array)
                else:
                    np.testing.assert_array_equal(one[array], other[array], array)
        elif name != "manifest.json":
            assert content == (folder / name).read_bytes(), name


def test_no_source_paths_or_traces_in_the_graphs(bundles: Path) -> None:
    for path in current(bundles).glob("*.onnx"):
        model = onnx.load_from_string(path.read_bytes())
        for tensor in model.graph.initializer:  # any word may occur among 90 MB of weights
            tensor.ClearField("raw_data")
        text = str(model)
        assert not [word for word in (".py", "site-packages", "stack_trace", "doc_string") if word in text], path.name


def test_two_onnx_runtimes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "runtimes", lambda: ["onnxruntime", "onnxruntime-gpu"])
    with pytest.raises(SettingsError, match=r"onnxruntime, onnxruntime-gpu"):
        runtime.resolve("cpu")


def test_exactly_one_onnx_runtime_is_installed_here() -> None:
    assert len(runtime.runtimes()) == 1


def test_cuda_fails_loudly_and_auto_falls_back_where_there_is_none(bundles: Path) -> None:
    if runtime.resolve("auto") == "cuda":
        pytest.skip("CUDA works here")
    bundle = load(current(bundles))
    with pytest.raises(ProviderError, match="provider cuda"):
        open_models(bundle, "cuda")
    assert open_models(bundle, "auto").provider == "cpu"
