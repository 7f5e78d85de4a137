"""CUDA against the CPU: states within 2 float16 steps, the same ten best, the catalogue on the device follows its snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream import provider
from stream.bundle import Bundle, current, load
from stream.encoder import open_encoder
from stream.errors import ProviderError
from stream.inputs import NUMBERS, InputRows
from stream.session import Models, open_models, slates_apart, ulps

NONE_HIDDEN = np.empty((0, 2), np.int64)


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return load(current(bundles))


@pytest.fixture(scope="module")
def cuda(bundle: Bundle) -> Models:
    try:
        provider.resolve("cuda")
    except ProviderError as error:
        pytest.skip(str(error))
    return open_models(bundle, "cuda")


@pytest.fixture(scope="module")
def cpu(bundle: Bundle) -> Models:
    return open_models(bundle, "cpu")


def some_rows(bundle: Bundle, count: int) -> tuple[InputRows, Any, Any]:
    random = np.random.default_rng(3)
    rows = InputRows(
        item=bundle.items[random.integers(0, len(bundle.items), count)],
        behaviour=random.integers(0, 3, count),
        scene=random.integers(0, 3, count),
        numbers=random.uniform(-1, 1, (count, NUMBERS)).astype(np.float32),
        comment=np.zeros((count, bundle.text_dim), np.float32),
    )
    h = np.tanh(random.normal(size=(count, bundle.hidden))).astype(np.float16)
    return rows, h, (h * 2).astype(np.float16)


@pytest.mark.parametrize("count", [1, 2, 7, 256, 4096])
def test_states_agree_within_two_float16_steps(bundle: Bundle, cuda: Models, cpu: Models, count: int) -> None:
    assert cuda.provider == "cuda"
    rows, h, c = some_rows(bundle, count)
    for found, expected in zip(cuda.step(rows, h, c), cpu.step(rows, h, c), strict=True):
        assert ulps(found, expected) <= 2


def test_the_same_ten_best_and_a_new_snapshot_is_seen(bundle: Bundle, cuda: Models, cpu: Models) -> None:
    _, h, _ = some_rows(bundle, 64)
    bias = np.zeros(len(bundle.items), np.float32)
    hidden = np.stack((np.arange(64), np.arange(64) % 50), 1)
    recent = np.array([(user, (7 * user + age) % 51, age) for user in range(64) for age in range(user % 6)], np.int64)
    count = np.arange(64)
    for _ in range(3):
        for pairs in (NONE_HIDDEN, hidden):
            rest = bundle.items, bias, pairs, recent, count, 10
            found = cuda.score(h, *rest)
            assert slates_apart(*found, *cpu.score(h, *rest)) < 1e-3
        bias = bias.copy()
        bias[found[1][:, 0]] = -np.inf


def test_texts_agree(bundle: Bundle, cuda: Models) -> None:
    texts = ["a", "some words about boats", "long " * 80, ""]
    found, expected = (open_encoder(bundle, policy).encode_many(texts) for policy in ("cuda", "cpu"))
    assert np.abs(found - expected).max() < 1e-3
