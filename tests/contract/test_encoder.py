"""Text vectors of the serving side against torch, and against themselves in other company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.network.text import TextEncoder
from stream.inference.bundle import Bundle
from stream.inference.text_encoder import Encoder
from tests.bundles import tiny_run

TEXTS = (
    "Toy Story (1995). Adventure, Animation, Children, Comedy, Fantasy",
    "x",
    "",
    "Ein Satz, der länger ist: er hat Kommas, Umlaute (äöü) und am Ende noch ein paar Wörter mehr als nötig.",
    "word " * 500,
    "日本語のテキスト 🎬🍿",
    " \t\n",
    "\x00\x01 control \u200b characters",
)


def test_vectors_are_those_that_training_saw(encoder: Encoder) -> None:
    trained = TextEncoder(cache=None).encode(TEXTS)
    served = encoder.encode_many(TEXTS)
    assert served.shape == trained.shape
    assert np.abs(served - trained).max() < 1e-5


def test_a_vector_depends_on_its_text_only(encoder: Encoder) -> None:
    alone = [encoder.encode(text) for text in TEXTS]
    many = encoder.encode_many(TEXTS[::-1])[::-1]
    assert np.array_equal(np.stack(alone), many)


def test_no_text_has_no_vector(encoder: Encoder) -> None:
    assert not encoder.encode("").any()
    assert np.linalg.norm(encoder.encode("a")) == pytest.approx(1, abs=1e-5)


def test_half_a_surrogate_pair_is_no_reason_to_fail(encoder: Encoder) -> None:
    assert np.isfinite(encoder.encode("half \ud83d a pair")).all()


def test_item_vectors_are_those_of_the_text_tower(bundle: Bundle, encoder: Encoder) -> None:
    network = tiny_run(50).network
    with torch.inference_mode():
        expected = network.item_vector(torch.from_numpy(TextEncoder(cache=None).encode(TEXTS))).numpy()
    found = encoder.item_vectors(TEXTS)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-4
    assert encoder.item_vectors([]).shape == (0, bundle.item_dim)
    assert np.array_equal(encoder.item_vectors(TEXTS[:1]), found[:1])
