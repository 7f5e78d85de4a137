"""Readers, order and split: every folder form becomes the same table, and nothing depends on how files are sorted."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise, permutations
from pathlib import Path

import polars as pl
import pytest
from aiokafka.partitioner import murmur2 as kafka_hash

from models.data import event_messages, generate, item_messages, read, split_last
from models.data.choices import choices
from models.data.dataset import SCHEMA, Event, dataset, fingerprint
from stream.core.decoder import EventDecoder
from stream.core.errors import DataError
from stream.core.json_body import JsonDecoder
from stream.core.messages import CLICK, COMMENT, RATING, Item
from tests.conftest import data_folder

RATINGS = "userId,movieId,rating,timestamp\n1,10,4.0,100\n1,20,3.5,100\n2,10,0.5,50\n"
MOVIES = 'movieId,title,genres\n10,"Heat, The (1995)",Action|Crime\n20,Mute (1990),(no genres listed)\n'
TAGS = "userId,movieId,tag,timestamp\n1,20,slow burn,101\n"


def movielens_folder(folder: Path, ratings: str = RATINGS, movies: str = MOVIES, tags: str = TAGS) -> Path:
    (folder / "ratings.csv").write_text(ratings)
    (folder / "movies.csv").write_text(movies)
    (folder / "tags.csv").write_text(tags)
    return folder


def test_movielens_ratings_tags_and_genres(tmp_path: Path) -> None:
    data = read(movielens_folder(tmp_path))
    assert data.events["time"].to_list() == [50_000, 100_000, 100_000, 101_000]
    assert data.events["behaviour"].to_list() == [RATING, RATING, RATING, COMMENT]
    assert data.events["text"][3] == "slow burn"
    assert math.isnan(data.events["value"][3])
    assert data.items == (
        Item("10", "Heat, The (1995)", categories=("Action", "Crime")),
        Item("20", "Mute (1990)", categories=()),
    )
    assert choices(data.events).to_list() == [True, True, True, False]


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({"ratings": RATINGS + "3,10,9.0,5\n"}, "ratings.csv, line 5"),
        ({"ratings": RATINGS + "3,10,nan,5\n"}, "ratings.csv, line 5"),
        ({"ratings": RATINGS + "3,10\n"}, "ratings.csv, line 5"),
        ({"ratings": RATINGS + ",10,3.0,5\n"}, "ratings.csv, line 5"),
        ({"ratings": RATINGS + "3,10,3.0,soon\n"}, "ratings.csv, line 5"),
        ({"ratings": "user,item\n1,2\n"}, "ratings.csv, line 1"),
        ({"movies": MOVIES + "30,one,two,three\n"}, "movies.csv, line 4"),
        ({"tags": TAGS + "1,20,x,y\n"}, "tags.csv, line 3"),
    ],
)
def test_malformed_rows_name_file_and_line(tmp_path: Path, files: dict[str, str], place: str) -> None:
    with pytest.raises(DataError, match=place):
        read(movielens_folder(tmp_path, **files))


def test_reviews_are_comments_with_a_value_in_a_scene(tmp_path: Path) -> None:
    review = {
        "user_id": "U", "item_id": "I", "rating": 2.0, "timestamp_ms": 7, "category": "Books", "title": "A Book",
        "main_category": None, "review_title": "Meh", "review_text": "Not mine.",
    }  # fmt: skip
    (tmp_path / "reviews.jsonl").write_text(json.dumps(review) + "\n\n")
    data = read(tmp_path)
    assert data.events.rows() == [("U", "I", COMMENT, 7, 2.0, "Meh. Not mine.", "Books", "", "")]
    assert data.items == (Item("I", "A Book", categories=("Books",)),)
    assert data.scenes == ("Books",)
    assert choices(data.events).to_list() == [True]
    del review["item_id"]
    (tmp_path / "reviews.jsonl").write_text("\n" + json.dumps(review))
    with pytest.raises(DataError, match=r"reviews.jsonl, line 2: missing field 'item_id'"):
        read(tmp_path)


def test_sequences_keep_the_order_within_a_user(tmp_path: Path) -> None:
    (tmp_path / "Toys.txt").write_text("7 30 10 20\n8 10 30\n")
    data = read(tmp_path)
    assert data.events.filter(pl.col("user") == "7")["item"].to_list() == ["30", "10", "20"]
    assert set(data.events["behaviour"].to_list()) == {CLICK}
    assert [item.item for item in data.items] == ["10", "20", "30"]
    (tmp_path / "Toys.txt").write_text("7 30\n8\n")
    with pytest.raises(DataError, match=r"Toys.txt, line 2"):
        read(tmp_path)


PAIRS = "7 30\n7 10\n\n7 20\n8 10\n8 30\n"


@pytest.mark.parametrize("as_file", [False, True])
def test_pairs_are_told_from_sequences_and_give_the_same_events(tmp_path: Path, as_file: bool) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, text in ((one, "7 30 10 20\n8 10 30\n"), (two, PAIRS)):
        folder.mkdir()
        (folder / "Toys.txt").write_text(text)
    sequences, pairs = (read(folder / "Toys.txt" if as_file else folder) for folder in (one, two))
    assert dict(pairs.events.schema) == SCHEMA
    assert fingerprint(pairs.events) == fingerprint(sequences.events)
    assert (pairs.items, pairs.timed, sequences.timed) == (sequences.items, False, False)
    assert pairs.name == ("Toys" if as_file else "two")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "empty"),
        ("7 30\n7\n", "line 2: expected a user"),
        ("7 30\n7 10 20\n", "line 2: not two names, yet user 7"),
        (f"7 30\n8 {'x' * 257}\n", r"line 2: found '(x+)', expected a whole number"),
    ],
)
def test_text_of_neither_form_names_the_line(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "log.txt").write_text(text)
    with pytest.raises(DataError, match=rf"log.txt.*{place}"):
        read(tmp_path / "log.txt")


def test_a_file_is_read_by_its_suffix(tmp_path: Path) -> None:
    movielens_folder(tmp_path)
    ratings = read(tmp_path / "ratings.csv")
    assert (ratings.name, ratings.timed) == ("ratings", True)
    assert ratings.events["behaviour"].to_list() == [RATING] * 3
    assert [item.item for item in ratings.items] == ["10", "20"]
    review = {"user_id": "U", "item_id": "I", "rating": 2.0, "timestamp_ms": 7, "category": "Books"}
    (tmp_path / "some.jsonl").write_text(json.dumps(review) + "\n")
    assert read(tmp_path / "some.jsonl").events.rows() == [("U", "I", COMMENT, 7, 2.0, "", "Books", "", "")]
    (tmp_path / "clicks.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"clicks.parquet cannot be read as Parquet"):
        read(tmp_path / "clicks.parquet")


@pytest.mark.parametrize("parquet", [False, True])
def test_a_log_of_own_messages_comes_back_as_it_was(tmp_path: Path, parquet: bool) -> None:
    data = generate(users=6, items=20, events=12)
    bodies: dict[str, list[str]] = {}
    for message in (*event_messages(data.events), *item_messages(data.items)):
        bodies.setdefault(message.topic, []).append(message.value.decode())
    for topic, lines in bodies.items():
        path = tmp_path / f"{topic}.jsonl"
        path.write_text("\n".join(lines) + "\n")
        if parquet:
            pl.read_ndjson(path, infer_schema_length=None).write_parquet(path.with_suffix(".parquet"))
            path.unlink()
    again = read(tmp_path)
    assert fingerprint(again.events) == fingerprint(data.events)
    assert again.items == data.items


def test_messages_are_accepted_by_the_worker() -> None:
    data = generate(users=5, items=20, events=12)
    decoder = EventDecoder(kafka_hash, 4, data.rating_scale)
    topics = ("clicks", "ratings", "comments")
    count = 0
    for message, row in zip(event_messages(data.events), data.events.iter_rows(named=True), strict=True):
        assert topics[row["behaviour"]] == message.topic
        partition = decoder.partition(message.key)
        event = decoder.decode(row["behaviour"], partition, count, row["time"], message.key, message.value)
        assert (event.user.decode(), event.item, event.time, event.text, event.scene) == (
            row["user"], row["item"], row["time"], row["text"], row["scene"],
        )  # fmt: skip
        assert event.value == row["value"] or (math.isnan(event.value) and math.isnan(row["value"]))
        count += 1
    assert count == len(data.events)
    items = [JsonDecoder(Item).decode(message.value) for message in item_messages(data.items)]
    assert tuple(items) == data.items


def test_unknown_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"clicks\.csv \(user,item,time\).*docs/data\.md"):
        read(tmp_path)
    with pytest.raises(DataError, match="is neither a folder nor a file"):
        read(tmp_path / "nowhere")


def test_equal_times_are_ordered_by_a_fixed_hash_whatever_the_file_order() -> None:
    events = [Event("u", str(item), RATING, 1000, 3.0) for item in range(200)]
    shuffled = events.copy()
    random.Random(1).shuffle(shuffled)
    one = dataset("a", events, [], (0.5, 5.0)).events
    two = dataset("b", shuffled, [], (0.5, 5.0)).events
    assert one.equals(two)
    numbers = [int(item) for item in one["item"].to_list()]
    rises = sum(after > before for before, after in pairwise(numbers))
    assert 70 < rises < 130  # near half: the order says nothing about the item
    assert numbers[:3] == [104, 98, 187]  # fixed across machines and versions


def test_the_last_choices_are_held_back_with_everything_after_the_first_of_them() -> None:
    rows = [Event("long", str(at), RATING, at, 3.0) for at in range(0, 40, 2)]
    rows += [Event("long", "30", COMMENT, 31, text="late"), Event("long", "2", COMMENT, 3, text="early")]
    rows += [Event("short", str(at), RATING, at, 3.0) for at in range(11)]
    data = dataset("x", rows, [], (0.5, 5.0))
    split = split_last(data, last=8, least=4)
    assert split.held["user"].unique().to_list() == ["long"]
    assert split.held.filter(pl.col("behaviour") == RATING)["time"].to_list() == list(range(24, 40, 2))
    assert split.held.filter(pl.col("behaviour") == COMMENT)["text"].to_list() == ["late"]
    assert len(split.train) + len(split.held) == len(data.events)
    assert split.train.filter(pl.col("user") == "long")["time"].max() == 22
    assert len(split_last(data, last=0).held) == 0


def test_a_generated_world_repeats_with_its_seed() -> None:
    assert fingerprint(generate(20, 40, 10, seed=3).events) == fingerprint(generate(20, 40, 10, seed=3).events)
    assert fingerprint(generate(20, 40, 10, seed=3).events) != fingerprint(generate(20, 40, 10, seed=4).events)


def test_ml_latest_small() -> None:
    data = read(data_folder("ml-latest-small"))
    assert (data.events["behaviour"] == RATING).sum() >= 100_836
    assert (data.events["behaviour"] == COMMENT).sum() == 3_683
    assert len(data.items) == 9_742
    split = split_last(data)
    assert (split.held["behaviour"] == RATING).sum() == 610 * 8
    assert data.items[0].title == "Toy Story (1995)"


def test_amazon_2023_sample() -> None:
    data = read(data_folder("amazon-2023-sample"))
    assert (len(data.events), data.events["user"].n_unique(), len(data.items), len(data.scenes)) == (
        2764,
        354,
        2610,
        24,
    )
    assert data.rating_scale == (1.0, 5.0)


def test_amazon_beauty_2014() -> None:
    data = read(data_folder("amazon-beauty-2014"))
    assert (data.events["user"].n_unique(), len(data.items), len(data.events)) == (22_363, 12_101, 198_502)
    assert data.events.filter(pl.col("user") == "2")["item"].to_list() == ["6", "7", "8", "9", "10", "4", "11"]


def test_actions_are_read_from_messages_and_sent_again(tmp_path: Path) -> None:
    actions = [
        {"user": "u", "item": "a", "time": 1, "action": "purchase"},
        {"user": "u", "item": "b", "time": 2},
        {"user": "u", "item": "c", "time": 3, "action": "skip", "scene": "home"},
    ]
    (tmp_path / "clicks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in actions))
    data = read(tmp_path)
    assert data.events["action"].to_list() == ["purchase", "", "skip"]
    assert [json.loads(message.value) for message in event_messages(data.events)] == actions


def test_clicks_of_one_moment_stand_in_an_order_of_their_own_whatever_the_file_says() -> None:
    rows = [Event("u", "a", CLICK, 1, action=action) for action in ("view", "cart", "", "purchase")]
    for order in permutations(rows):
        assert dataset("d", order, (), (0.5, 5.0)).events["action"].to_list() == ["", "cart", "purchase", "view"]


def test_events_without_actions_have_the_fingerprint_that_they_had_before_there_were_actions() -> None:
    """Runs keep it: another one would refuse every run that was trained before."""
    data = generate(12, 30, 12)
    assert fingerprint(data.events) == "78e0383280ce11143f77af0c08949a5c9d5b3d590195d0bca8618ad5ca0a0ab5"
    bare = dataset("bare", data.events.drop("action"), data.items, data.rating_scale)
    assert bare.events.equals(data.events)
    acted = data.events.with_columns(action=pl.lit("view"))
    assert fingerprint(acted) != fingerprint(data.events)
