"""What counts as a choice is one thing in training, serving and evaluation; what is not judged is named with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from models.data import DataSet, generate, read, split_last
from models.data.choices import choices, parse_choices, parse_weights, unmet
from models.data.dataset import NAN, Event, dataset
from models.data.histories import Floats
from models.evaluation.evaluate import Question, evaluate
from models.evaluation.protocols import PROTOCOLS, make_tasks
from models.evaluation.run_task import run_task
from models.interfaces import EvalTask
from models.metrics.popularity import popularity
from models.metrics.ranks import Ranks, popularity_ranks
from models.network.network import InterestNetwork, NetworkSize
from models.network.text import TEXT_DIM
from models.training.neighbours import neighbours
from models.training.run import DataInfo, Run, load_run, save_run
from models.training.train import TrainSettings, training_part
from stream.core.errors import DataError
from stream.core.features import ACTIONS, CHOICES, InputSpec
from stream.core.messages import CLICK, COMMENT, RATING, SOURCE_TOPICS, Item
from tests.conftest import data_folder


class Encoder:
    """Stands for models.network.text.TextEncoder where texts do not matter."""

    def encode(self, texts: Sequence[str], progress: Any = None) -> Floats:
        return np.zeros((len(texts), TEXT_DIM), np.float32)


ENCODER: Any = Encoder()


def shop(users: int = 300, clicks: int = 14, raters: int = 11) -> DataSet:
    """Everybody clicks, a few rate; some write a remark without a value and take what is not for sale."""
    rows = []
    for user in range(users):
        items = np.random.default_rng(user).permutation(60)
        for at, item in enumerate(items[:clicks].tolist()):
            rows.append(Event(f"u{user}", f"i{item}", CLICK, 1000 * at + user))
        if user < raters:
            rated = items[clicks : clicks + 12].tolist()
            rows += [
                Event(f"u{user}", f"i{item}", RATING, 20_000 + 1000 * at + user, 1.0 + at % 5)
                for at, item in enumerate(rated)
            ]
        if user % 10 == 0:
            rows.append(Event(f"u{user}", f"i{items[0]}", COMMENT, 50_000 + user, text="where is my order?"))
            rows.append(Event(f"u{user}", "gone", CLICK, 51_000 + user))
    short = [Event(f"s{user}", f"i{item}", CLICK, item) for user in range(7) for item in range(5)]
    return dataset("shop", [*rows, *short], [Item(f"i{item}", "") for item in range(60)], (1.0, 5.0))


def test_the_names_are_those_of_the_source_topics() -> None:
    assert CHOICES == SOURCE_TOPICS


@pytest.mark.parametrize(
    ("text", "expected"),
    [("ratings,clicks", ("clicks", "ratings")), (" comments ", ("comments",)), ("clicks,ratings,comments", CHOICES)],
)
def test_choices_are_named_by_topic(text: str, expected: tuple[str, ...]) -> None:
    assert parse_choices(text) == expected


@pytest.mark.parametrize("text", ["", ",", "views", "clicks,rating"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="expected one or more of clicks, ratings, comments, separated by commas"):
        parse_choices(text)


def test_every_click_rating_and_valued_comment_counts() -> None:
    rows = [
        Event("u", "a", CLICK, 1), Event("u", "b", RATING, 2, 0.5), Event("u", "c", RATING, 3, 5.0),
        Event("u", "d", COMMENT, 4, 1.0, "no"), Event("u", "e", COMMENT, 5, NAN, "a remark"),
    ]  # fmt: skip
    events = dataset("x", rows, [], (0.5, 5.0)).events
    assert choices(events).to_list() == [True, True, True, True, False]
    assert choices(events, ("ratings",)).to_list() == [False, True, True, False, False]
    assert choices(events, ("clicks", "comments")).to_list() == [True, False, False, True, False]


ACTED = ("view", "click", "cart", "purchase", "like", "dislike", "skip", "share", "")


def test_dislike_and_skip_are_no_choices_and_every_other_action_is() -> None:
    events = dataset(
        "x", [Event("u", name or "-", CLICK, at, action=name) for at, name in enumerate(ACTED)], [], (0.5, 5.0)
    ).events
    assert dict(zip(ACTED, choices(events).to_list(), strict=True)) == {
        name: name not in ("dislike", "skip") for name in ACTED
    }
    weights = parse_weights(["view=-1", "skip=0.1", "a=b=0"])
    assert choices(events, weights=weights).to_list() == [name not in ("view", "dislike") for name in ACTED]
    assert not choices(events, ("ratings",)).any()


def test_weights_are_given_by_name() -> None:
    assert parse_weights([]) == ACTIONS
    found = dict(parse_weights(["né=1.5", "view=0", "a=b=2"]))
    assert found == dict(ACTIONS) | {"né": 1.5, "view": 0.0, "a=b": 2.0}
    assert parse_weights(["view=3"], (("view", 1.0), ("x", 9.0))) == (("view", 3.0), ("x", 9.0))


@pytest.mark.parametrize(
    "text", ["", "view", "view=", "=1", "view=much", "view=nan", "view=inf", "view=1e7", "view=1_0", "view=٣", "1"]
)
def test_weights_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"--action .*: expected NAME=WEIGHT.*--action view=0.5"):
        parse_weights([text])


def acted(*taken: tuple[str, str], users: int = 6) -> DataSet:
    """`users` users who all did the same: (item, action) each."""
    rows = [
        Event(f"u{user}", item, CLICK, 1000 * at, action=action)
        for user in range(users)
        for at, (item, action) in enumerate(taken)
    ]
    return dataset("acted", rows, [Item(name, "") for name in "abcd"], (0.5, 5.0))


WHOLE = TrainSettings(holdout=0, validation=0)


def test_popularity_and_neighbours_count_choices_by_their_weights() -> None:
    training, _ = training_part(acted(("a", "view"), ("b", "purchase"), ("c", "dislike"), ("d", "")), WHOLE, ENCODER)
    assert popularity(training.rows, 4).tolist() == [0.0, 3.0, 18.0, 0.0, 6.0]
    index, weight = neighbours(training)
    assert sorted(index[2][weight[2] > 0].tolist()) == [1, 4], "what was disliked is nobody's neighbour"
    assert not weight[3].any()
    near = dict(zip(index[1].tolist(), weight[1].tolist(), strict=True))
    often = {1: 3.0, 2: 18.0, 4: 6.0}
    expected = 6 * np.sqrt(0.5 * 3.0) / (np.sqrt(often[1] * often[2]) + 5.0)
    assert near[2] == pytest.approx(expected)
    assert near[4] == pytest.approx(6 * 0.8 * np.sqrt(0.5) / (np.sqrt(often[1] * often[4]) + 5.0))


def test_data_without_actions_trains_as_it_did_before_there_were_any() -> None:
    """Hashes of the arrays as they were; and an action that counts 1 changes none of them."""

    def digest(*arrays: Any) -> str:
        return sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()

    made = generate(12, 30, 12)
    clicked = pl.when(pl.col("behaviour") == CLICK).then(pl.lit("click")).otherwise(pl.lit("")).alias("action")
    for events in (made.events.drop("action"), made.events, made.events.with_columns(clicked)):
        data = dataset("made", events, made.items, made.rating_scale)
        training, _ = training_part(data, TrainSettings(holdout=0), ENCODER)
        rows, use = training.rows, training.use
        assert (
            digest(rows.item, rows.behaviour, rows.scene, rows.numbers, rows.comment, rows.choice, rows.judged)
            == "6d958245ca22774d1f7cc599a55f7ea93f26f5a7b5bf6bd3463f136e5de22d10"
        )
        assert digest(use, training.watched) == "28b5e47a4db2d9a851ff2eaee22cd228bd7d0f625cbebd782fd11bbfbaeb6380"
        assert digest(popularity(rows, 30, use)) == "5242b279aac40541fd314277c22f1d6c112166cd8dc145054a4e0b155ebf3eaf"
        assert digest(*neighbours(training)) == "61ab7dd431de5d9f8437c6709e4a671941d5ef3a2ca96cffbcd11a23189c441c"


def test_what_was_turned_down_is_neither_held_out_nor_judged_and_is_named() -> None:
    taken = [(name, "dislike" if number == 3 else "") for number, name in enumerate("abcdabcdabcdabcd")]
    (task,) = make_tasks("last-8", acted(*taken), ENCODER.encode)
    assert len(task.positions) == 8 * 6
    assert task.rows.item[task.positions].tolist() == [1, 2, 3, 4, 1, 2, 3, 4] * 6
    assert reasons(task)["events whose action is not a choice"] == (6, 6)
    with pytest.raises(DataError, match="actions that do not count: dislike, skip"):
        make_tasks("last-8", acted(("a", "skip"), ("b", "dislike")), ENCODER.encode)


def test_clicks_are_judged_where_there_are_ratings_too() -> None:
    """One rating had all clicks dropped without a word: 88 choices of 11 users out of 300 were left."""
    (task,) = make_tasks("last-8", shop(), ENCODER.encode)
    assert len(np.unique(task.rows.owner()[task.positions])) == 300
    # Of every user the last eight, less those of items that are not for sale.
    assert len(task.positions) == 8 * 300 - 30
    (ratings,) = make_tasks("last-8", replace(shop(), choices=("ratings",)), ENCODER.encode)
    assert len(ratings.positions) == 88


def reasons(task: EvalTask) -> dict[str, tuple[int, int]]:
    return {reason.why: (reason.users, reason.events) for reason in task.left_out}


def test_what_is_left_out_is_named_with_its_reason() -> None:
    (task,) = make_tasks("last-8", shop(), ENCODER.encode)
    assert reasons(task) == {
        "users with fewer than 12 choices: training only": (7, 35),
        "choices of items that are not in the catalogue": (30, 30),
        "comments without a value: not choices": (30, 30),
    }
    (task,) = make_tasks("last-8", replace(shop(), choices=("ratings", "comments")), ENCODER.encode)
    assert reasons(task)["clicks: not among --choices"] == (307, 300 * 14 + 30 + 35)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_choice_is_judged_learned_from_or_named(name: str) -> None:
    """Who has no judged choice is among those left out, in every protocol that judges all users."""
    data = generate(users=100, items=120, events=14)
    for task in make_tasks(name, data, ENCODER.encode):
        judged = (
            set(np.asarray(task.rows.users)[np.unique(task.rows.owner()[task.positions])])
            if task.owners is None
            else set()
        )
        left = sum(reason.users for reason in task.left_out)
        if name in ("last-8", "leave-one-out", "time-split", "cold-items"):
            assert len(judged) + left >= len(task.rows.users)
        elif name == "cold-users":
            assert len(judged) + left == 10


def test_the_document_lists_choices_and_what_is_left_out() -> None:
    found = evaluate(shop(), Question(models=("popularity",)), ENCODER)
    assert (found["judged"], found["users"], found["choices"]) == (2370, 300, list(CHOICES))
    assert {"why": "users with fewer than 12 choices: training only", "users": 7, "events": 35} in found["left out"]
    rated = evaluate(shop(), Question("rating", ("mean",)), ENCODER)
    assert rated["left out"] == [{"why": "events without a value", "users": 307, "events": 300 * 14 + 35 + 60}]
    with pytest.raises(DataError, match=r"rating.*leave --choices out"):
        evaluate(replace(shop(), choices=("ratings",)), Question("rating", ("mean",)), ENCODER)


def test_where_nothing_counts_is_refused() -> None:
    clicked = replace(shop(raters=0), choices=("ratings",))
    for name in ("last-8", "leave-one-out", "time-split", "cold-items", "cold-users"):
        with pytest.raises(
            DataError, match=r"shop: no event counts as a choice: found 4265 clicks, 0 ratings, 30 comments"
        ):
            make_tasks(name, clicked, ENCODER.encode)
    with pytest.raises(DataError, match="no event counts as a choice"):
        training_part(clicked, TrainSettings(), ENCODER)


def run_of(data: DataSet) -> Run:
    """Untrained, of the training part of `data`."""
    training, part = training_part(data, TrainSettings(), ENCODER)
    from models.data.dataset import fingerprint

    torch.manual_seed(0)
    size = NetworkSize(items=len(data.items), scenes=0, item=16, width=16)
    return Run(
        network=InterestNetwork(size, torch.from_numpy(training.text)).eval().requires_grad_(False),
        spec=training.spec,
        item_ids=training.item_ids,
        popularity=np.zeros(len(data.items) + 1, np.float32),
        text=training.text,
        data=DataInfo(data.name, fingerprint(part), len(part)),
        metrics={},
    )


def test_the_run_keeps_them_and_is_judged_by_them(tmp_path: Path) -> None:
    data = replace(shop(), choices=("clicks",))
    save_run(run_of(data), tmp_path)
    run = load_run(tmp_path)
    assert run.spec.choices == ("clicks",)
    task = run_task(data, run, ENCODER)
    (same,) = make_tasks("last-8", data, ENCODER.encode)
    assert (task.positions == same.positions).all()
    assert task.left_out == same.left_out
    with pytest.raises(DataError, match="choices clicks, ratings, comments: the run was trained with clicks"):
        run_task(shop(), run, ENCODER)


def test_the_run_keeps_the_weights_and_is_judged_by_them(tmp_path: Path) -> None:
    data = replace(shop(), weights=parse_weights(["view=-2", "share=4"]))
    save_run(run_of(data), tmp_path)
    run = load_run(tmp_path)
    assert run.spec.weights == data.weights
    assert run.spec.refused() == {"view", "dislike", "skip"}
    assert len(run_task(data, run, ENCODER).positions) == 8 * 300 - 30
    with pytest.raises(DataError, match="trained with other weights of share, view; leave --action out"):
        run_task(shop(), run, ENCODER)


def test_a_run_from_before_there_was_the_option_counts_all(tmp_path: Path) -> None:
    save_run(run_of(shop()), tmp_path)
    about = (tmp_path / "run.json").read_text()
    import json

    about_run = json.loads(about)
    del about_run["inputs"]["choices"], about_run["inputs"]["weights"]
    (tmp_path / "run.json").write_text(json.dumps(about_run))
    assert load_run(tmp_path).spec == InputSpec((1.0, 5.0), (), TEXT_DIM)
    assert asdict(load_run(tmp_path).spec)["choices"] == CHOICES


def popular(task: EvalTask) -> Ranks:
    rows = task.training.rows
    counts = np.bincount(rows.item[task.training.use & rows.choice], minlength=len(task.training.items) + 1)
    return popularity_ranks(counts.astype(np.float32), task.rows, task.positions)


@pytest.mark.parametrize(
    ("name", "protocol", "only"),
    [
        ("ml-latest-small", "last-8", "ratings"),
        ("ml-latest-small", "time-split", "ratings"),
        ("amazon-beauty-2014", "leave-one-out", "clicks"),
    ],
)
def test_figures_of_one_behaviour_stay_as_they_were(name: str, protocol: str, only: str) -> None:
    """As they were: ratings alone were judged where there are any, else what there is. Tags carry no value."""
    data = read(data_folder(name))
    before = replace(data, choices=(only,))
    assert split_last(data).held.equals(split_last(before).held)
    one, two = (make_tasks(protocol, some, ENCODER.encode)[0] for some in (data, before))
    assert np.array_equal(one.positions, two.positions)
    assert np.array_equal(one.training.use, two.training.use)
    assert np.array_equal(one.training.watched, two.training.watched)
    assert np.array_equal(popular(one), popular(two))
    kinds = pl.Series(one.rows.behaviour[one.positions]).unique().to_list()
    assert [SOURCE_TOPICS[kind] for kind in kinds] == [only]


def test_a_weight_for_an_action_that_no_event_has_is_told_with_the_nearest_name() -> None:
    events = [Event("u", f"i{at}", CLICK, at, action=name) for at, name in enumerate(("purchase", "cart", "", "view"))]
    data = dataset("shop", events, [], (1.0, 5.0)).events
    assert unmet(data, ["cart=2", "view=0.5"]) == ""
    assert unmet(data, []) == ""
    assert unmet(data, ["purchas=3", "cart=2", "gift=1"]) == (
        "--action gives a weight to actions that no event has: gift, purchas (is purchase meant?); "
        "actions found: cart, purchase, view"
    )
    assert unmet(data.filter(pl.col("action") == ""), ["cart=2"]).endswith(": cart; no event has an action")
