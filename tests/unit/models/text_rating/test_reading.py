"""Reading ratings out of comments: users are split, nothing of the test part is learned, figures are right, folders come back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from models.data import DataSet, generate, read
from models.data.histories import histories
from models.metrics.errors import error_figures
from models.text_rating.augment import drop_words, shuffle_sentences
from models.text_rating.corpus import Corpus, corpus, split_users
from models.text_rating.head import HeadSettings, class_weights, fit_head, read_values
from models.text_rating.histories import read_in
from models.text_rating.learn import Material, learn
from models.text_rating.protocol import NAME, reading_protocol
from models.text_rating.reading import load_reading, save_reading
from models.text_rating.tuned import TuneSettings, batches
from stream.core.errors import DataError
from stream.core.features import InputSpec
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")

SHARED = ROOT.parent / "shared" / "data" / "amazon-2023-sample"
QUICK = TuneSettings(frozen=5, epochs=1)


def small() -> DataSet:
    return generate(users=24, items=60, events=24, seed=2)


def bag(texts: Any) -> np.ndarray:
    """Vectors f32 [n, 384] without BERT: counts of letters."""
    out = np.zeros((len(texts), 384), np.float32)
    for row, text in enumerate(texts):
        for letter in text:
            out[row, ord(letter) % 384] += 0.1
    return out


def test_no_user_is_in_two_parts() -> None:
    found = corpus(small())
    for seed in range(5):
        parts = split_users(found, seed)
        users = [set(found.user[rows].tolist()) for rows in parts]
        assert not users[0] & users[1]
        assert not users[0] & users[2]
        assert not users[1] & users[2]
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(found.texts)))
    assert all(map(np.array_equal, split_users(found, 3), split_users(found, 3)))
    assert not np.array_equal(split_users(found, 3).test, split_users(found, 4).test)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the review sample is not there")
def test_no_user_of_the_review_sample_is_in_two_parts() -> None:
    data = read(SHARED)
    found = corpus(data)
    names = np.array(data.events["user"].to_list())
    train, validation, test = ({*names[rows]} for rows in split_users(found))
    assert not (train & validation) | (train & test) | (validation & test)
    assert [len(train), len(validation), len(test)] == [195, 71, 88]


def test_too_few_comments_are_refused() -> None:
    with pytest.raises(DataError, match="comments with text and value of 2 users"):
        corpus(generate(users=2, items=60, events=30))


def test_a_head_learns_what_is_separable_and_says_its_expectation() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    values = np.repeat([1.0, 3.0, 5.0], 10)
    for output in ("expectation", "regression"):
        head = fit_head(vectors, values, (1.0, 5.0), HeadSettings(output, penalty=1e-6))
        assert read_values(head, np.eye(3, dtype=np.float32)) == pytest.approx([1, 3, 5], abs=0.05)
    unsure = fit_head(np.zeros((4, 2), np.float32), np.array([1.0, 1.0, 1.0, 5.0]), (1.0, 5.0), HeadSettings())
    assert read_values(unsure, np.zeros((1, 2), np.float32)) == pytest.approx([2.0], abs=1e-3)
    even = HeadSettings(balanced=True)
    balanced = fit_head(np.zeros((4, 2), np.float32), np.array([1.0, 1.0, 1.0, 5.0]), (1.0, 5.0), even)
    assert read_values(balanced, np.zeros((1, 2), np.float32)) == pytest.approx([3.0], abs=1e-3)


def test_class_weights_give_every_class_the_same_total() -> None:
    values = np.array([5.0, 5, 5, 1])
    weight = class_weights(values, balanced=True)
    assert weight[:3].sum() == pytest.approx(weight[3])
    assert weight.mean() == pytest.approx(1)


def test_augmentation_keeps_words_and_titles() -> None:
    draw = np.random.default_rng(0)
    text = "Title here. One two. Three four! Five?"
    shuffled = {shuffle_sentences(text, draw) for _ in range(30)}
    assert len(shuffled) == 6
    assert all(one.startswith("Title here.") and sorted(one.split()) == sorted(text.split()) for one in shuffled)
    assert drop_words(text, 0.0, draw) == text
    assert drop_words("alone", 1.0, draw) == "alone"
    assert set(drop_words(text, 0.5, draw).split()) < set(text.split())


def test_every_text_is_in_one_batch() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 301).tolist()
    rows = [some for _, some in batches(lengths, 16, np.random.default_rng(1))]
    assert sorted(np.concatenate(rows).tolist()) == list(range(301))


def test_figures_by_hand() -> None:
    errors = {"a": np.array([[3.0, -4.0, 0.0, 0.0]]), "b": np.array([[1.0, 1.0, 1.0, 1.0]])}
    found = error_figures(errors, np.array([0, 0, 1, 1]), "b", draws=400)
    assert found["a"]["RMSE"] == pytest.approx(2.5)
    assert found["a"]["MAE"] == pytest.approx(1.75)
    assert found["a"]["intervals"]["RMSE"] == pytest.approx([0.0, math.sqrt(12.5)])
    assert found["b"]["intervals"]["MAE"] == pytest.approx([1, 1])
    assert found["a"]["intervals"]["RMSE - b"] == pytest.approx([-1.0, math.sqrt(12.5) - 1])


def test_the_test_part_changes_no_weight(tmp_path: Path) -> None:
    found = corpus(small())
    parts = split_users(found)
    draw = np.random.default_rng(0)
    values, texts = found.value.copy(), list(found.texts)
    values[parts.test] = draw.permutation(values[parts.test])
    for row in parts.test.tolist():
        texts[row] = "something else"
    other = replace(found, value=values, texts=tuple(texts))
    made = [learn(Material(one, parts, bag(one.texts)), QUICK, 0, cache=None) for one in (found, other)]
    first, second = (one.reader.state_dict() for one in made)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert made[0].curve == made[1].curve


def test_a_reading_comes_back_from_its_folder_and_damage_is_named(tmp_path: Path) -> None:
    found = corpus(small())
    reading = learn(Material(found, split_users(found), bag(found.texts)), QUICK, 0, cache=tmp_path / "cache")
    save_reading(reading, tmp_path / "r")
    again = load_reading(tmp_path / "r")
    texts = ["loved it", "", "a waste of time"]
    assert np.array_equal(reading.values(texts), again.values(texts), equal_nan=True)
    assert np.isnan(again.values(texts)[1])
    assert again.settings == reading.settings
    wide = again.values(texts, (0.0, 100.0))
    low, high = reading.scale
    assert wide[0] == pytest.approx((again.values(texts)[0] - low) / (high - low) * 100)
    assert list((tmp_path / "cache").iterdir()), "learned once, kept"
    (tmp_path / "r" / "reading.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(DataError, match="is not a finished text rating"):
        load_reading(tmp_path / "r")
    with pytest.raises(DataError, match="nowhere"):
        load_reading(tmp_path / "nowhere")


def test_the_protocol_compares_all_and_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.chdir(tmp_path)  # its cache is relative
    found = reading_protocol(small(), (0,), bag, settings=QUICK)
    assert set(found["models"]) == {"mean", "median", "tfidf-ridge", "frozen-head", NAME}
    for name, row in found["models"].items():
        assert set(row["test"]) == {"RMSE", "MAE"}
        assert row["intervals"]["RMSE"][0] <= row["test"]["RMSE"] + 1e-3
        assert (f"RMSE - {NAME}" in row["intervals"]) == (name != NAME)
    assert sum(found["users"].values()) == corpus(small()).users
    again = reading_protocol(small(), (0,), bag, settings=QUICK)
    assert [row["test"] for row in again["models"].values()] == [row["test"] for row in found["models"].values()]
    with pytest.raises(DataError, match="one seed"):
        reading_protocol(small(), (), bag)


def test_read_values_enter_the_inputs_and_make_no_choice() -> None:
    data = small()
    spec = InputSpec((0.5, 5.0), data.scenes, 384)
    ids = [item.item for item in data.items]
    bare = data.events.with_columns(value=pl.when(pl.col("text") != "").then(float("nan")).otherwise(pl.col("value")))
    rows = histories(bare, None, ids, spec, bag)
    values = np.full(len(rows.vectors), np.nan)
    values[1:] = 5.0
    filled = read_in(rows, spec, values)
    comments = rows.comment > 0
    assert comments.any()
    assert not rows.numbers[comments, 1].any()
    assert (filled.numbers[comments, :2] == 1).all()
    assert np.array_equal(filled.numbers[:, 2:], rows.numbers[:, 2:])
    assert np.array_equal(filled.numbers[~comments], rows.numbers[~comments])
    assert not filled.choice[comments].any()
    given = histories(data.events, None, ids, spec, bag)
    assert np.array_equal(read_in(given, spec, values).numbers, given.numbers), "a value that was given stays"


def test_the_corpus_knows_what_it_is() -> None:
    found = corpus(small())
    assert isinstance(found, Corpus)
    assert found.fingerprint() != replace(found, value=found.value + 1).fingerprint()
