"""Folding and ranking, against a small model whose right answer is known: h counts events, scores prefer low rows."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.data.dataset import SCHEMA, Event
from models.data.histories import histories
from models.network import blend
from stream.core import state as state_module
from stream.core.diversity import Diversity
from stream.core.errors import StateError
from stream.core.features import CHOICES, InputRows, InputSpec
from stream.core.filters import Columns, Filter
from stream.core.fold import UserBatch, advance, apply_events, rank, rounded
from stream.core.messages import CLICK, COMMENT, NAN, RATING, Scored, SourceEvent
from stream.core.rules import RuleBook
from stream.core.ruling import Ruling, Selections
from stream.core.score_tables import ScoreTables
from stream.core.state import MAX_SEEN, item_hash

TOPICS = ("clicks", "ratings", "comments")
MODEL = b"m" * 16
WIDTH = 4
SPEC = InputSpec(rating_scale=(0.5, 5.0), scenes=("home",), text_dim=3)


@dataclass
class CountingModels:
    """h counts steps, c sums the item vectors' first number; item row r scores -r."""

    calls: list[int] = field(default_factory=list)
    ended: int = 0
    last: int = 3
    choices: frozenset[int] = frozenset((CLICK, RATING, COMMENT))
    refused: frozenset[str] = SPEC.refused()
    acted: list[list[int]] = field(default_factory=list)  # the actions of each step
    asked: list[tuple[list[list[int]], list[int]]] = field(default_factory=list)  # recent and count of each score

    def step(self, rows: InputRows, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls.append(len(rows.item))
        self.acted.append(rows.action.tolist())
        return (h + np.float16(1)), (c + rows.item[:, :1].astype(np.float16))

    def score(
        self, h: np.ndarray, items: np.ndarray, bias: np.ndarray, hidden: np.ndarray, recent: np.ndarray,
        count: np.ndarray, k: int, tables: ScoreTables | None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        self.asked.append((recent.tolist(), count.tolist()))
        scores = np.tile(-np.arange(len(items), dtype=np.float32), (len(h), 1)) + bias
        scores[hidden[:, 0], hidden[:, 1]] = -np.inf
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, rows, axis=1), rows


@dataclass
class FixedCatalogue:
    offset: int = 7
    tables: ScoreTables | None = None
    names: tuple[str, ...] = ("", "a", "b", "c", "d")
    items: np.ndarray = field(default_factory=lambda: np.repeat(np.arange(5, dtype=np.float32)[:, None], 2, axis=1))
    bias: np.ndarray = field(default_factory=lambda: np.array([-np.inf, 0, 0, 0, 0], np.float32))
    columns: Columns = field(
        default_factory=lambda: Columns([None] * 5, np.array([False] + [True] * 4), lambda item: 0)
    )

    @property
    def score_items(self) -> np.ndarray:
        return self.items

    @property
    def categories(self) -> np.ndarray:
        return np.arange(len(self.names), dtype=np.int32)[:, None]

    def category(self, name: str) -> int:
        return self.row(name)

    def where(self, filtered: Filter) -> FixedCatalogue:
        return replace(self, bias=np.where(self.columns.mask(filtered), self.bias, -np.inf))

    def row(self, item: str) -> int:
        return self.names.index(item) if item in self.names else 0

    def item(self, row: int) -> str:
        return self.names[row]

    def rows_of(self, items: Sequence[str]) -> list[int]:
        return [self.row(item) for item in items]

    def items_of(self, rows: np.ndarray) -> list[str]:
        return [self.names[row] for row in rows]

    def hidden_rows(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [
            (place, row)
            for place, one in enumerate(hashes.tolist())
            for row, name in enumerate(self.names)
            if name and state_module.item_hash(name) == one
        ]
        places, rows = np.array(found, np.int64).reshape(-1, 2).T
        return places, rows


def event(
    offset: int, item: str = "a", behaviour: int = CLICK, time: int = 1000, identity: str = "", append: int = 2000,
    value: float = NAN, action: str = "",
) -> SourceEvent:  # fmt: skip
    payload = json.dumps({"item": item, "offset": offset}).encode()
    return SourceEvent(
        behaviour, 0, offset, append, b"u", item, time, value, "home", "", identity, payload, action=action
    )


def batch(events: list[SourceEvent], record: bytes | None = None, model: bytes = MODEL) -> UserBatch:
    return apply_events(b"u", 0, record, events, TOPICS, model, WIDTH)


def folded(events: list[SourceEvent], record: bytes | None = None) -> tuple[bytes, CountingModels]:
    models = CountingModels()
    one = batch(events, record)
    advance([one], models, FixedCatalogue(), SPEC)
    return state_module.encode(one.state), models


def test_batch_and_single_path_give_the_same_record() -> None:
    events = [event(0, "a"), event(1, "b"), event(0, "c", RATING), event(2, "a")]
    at_once, _ = folded(events)
    record: bytes | None = None
    for one in events:
        record, _ = folded([one], record)
    assert record is not None
    batch, single = state_module.decode(at_once), state_module.decode(record)
    batch.folded = single.folded = []
    assert state_module.encode(batch) == state_module.encode(single)


def test_waves_make_one_call_each_over_all_users() -> None:
    models = CountingModels()
    batches = [apply_events(b"u%d" % n, 0, None, [event(o) for o in range(n)], TOPICS, MODEL, WIDTH) for n in (1, 3, 2)]
    advance(batches, models, FixedCatalogue(), SPEC)
    assert models.calls == [3, 2, 1]
    assert [one.state.h[0] for one in batches] == [1, 3, 2]


def test_a_damaged_record_names_its_user() -> None:
    record, _ = folded([event(0)])
    with pytest.raises(StateError, match=r"user 'u', partition 0: .*checksum"):
        batch([event(1)], record[:-1] + bytes([record[-1] ^ 1]))


def test_recent_events_that_nobody_can_read_name_their_user() -> None:
    """Of a record with a right checksum, which no worker has written: whatever looks at them says whose they are."""
    chance = random.Random(3)
    record, models = folded([event(offset, item, identity=f"id-{offset}") for offset, item in enumerate("abcd")])
    good = state_module.decode(record)
    found = []
    for _ in range(300):
        state = state_module.decode(record)
        at = chance.randrange(len(state.recent))
        state.recent = good.recent[:at] + bytes([chance.randrange(256)]) + good.recent[at + 1 :]
        forged = state_module.encode(state)
        try:
            taken = batch([event(9, "a", identity="id-3")], forged)
            rank([taken], models, FixedCatalogue(), 3, filter_seen=True)
            apply_events(b"u", 0, forged, [], TOPICS, b"n" * 16, WIDTH)
        except StateError as error:
            found.append(str(error))
    message = re.compile(r"user 'u', partition 0: the recent events of a state cannot be decoded: .+")
    assert all(map(message.fullmatch, found)), found
    assert 50 < len(found) < 300  # the others' bytes are another text, number or time, which verify sees


def test_a_user_who_has_had_everything_gets_an_empty_slate() -> None:
    record, models = folded([event(offset, item) for offset, item in enumerate("abcd")])
    assert rank([batch([], record)], models, FixedCatalogue(), 3, filter_seen=True) == [[]]


def test_a_replayed_event_changes_nothing() -> None:
    record, _ = folded([event(0), event(1)])
    again = batch([event(0), event(1)], record)
    assert (again.redelivered, again.changed, again.state.seq) == (2, False, 2)


def test_a_duplicate_id_moves_the_fence_only() -> None:
    record, _ = folded([event(0, identity="x")])
    again = batch([event(5, identity="x")], record)
    assert (again.duplicates, again.changed, again.state.seq, again.state.applied) == (1, True, 1, [5, -1, -1])
    assert again.state.chain == state_module.decode(record).chain


def test_unknown_items_are_folded_and_counted() -> None:
    models = CountingModels()
    one = batch([event(0, "never heard of"), event(1, "b")])
    assert advance([one], models, FixedCatalogue(), SPEC) == 1
    assert one.state.seq == 2


def test_late_events_are_counted_and_do_not_turn_the_clock_back() -> None:
    one = batch([event(0, time=10_000), event(1, time=4_000), event(2, time=11_000)])
    assert one.late == 1
    assert [x.gap_ms for x in one.inputs] == [state_module.NO_TIME, 0, 1_000]


def test_seen_items_are_not_recommended_unless_told() -> None:
    one = batch([event(0, "a"), event(1, "c")])
    models = CountingModels()
    advance([one], models, FixedCatalogue(), SPEC)
    assert [s.item for s in rank([one], models, FixedCatalogue(), 4, filter_seen=True)[0]] == ["b", "d"]
    assert [s.item for s in rank([one], models, FixedCatalogue(), 2, filter_seen=False)[0]] == ["a", "b"]


def test_the_latest_items_stay_hidden_when_the_seen_set_is_full() -> None:
    state = state_module.new(MODEL, WIDTH)
    state.seen = np.arange(state_module.MAX_SEEN, dtype=np.uint32).tobytes()
    one = batch([event(0, "b")], state_module.encode(state))
    assert len(one.state.seen_hashes()) == state_module.MAX_SEEN
    models = CountingModels()
    advance([one], models, FixedCatalogue(), SPEC)
    assert "b" not in [s.item for s in rank([one], models, FixedCatalogue(), 4, filter_seen=True)[0]]


def test_a_state_of_another_model_is_folded_again() -> None:
    record, _ = folded([event(0, "a"), event(1, "b"), event(2, "c")])
    other = batch([event(3, "d")], record, model=b"n" * 16)
    models = CountingModels()
    advance([other], models, FixedCatalogue(), SPEC)
    assert other.refolded
    assert (other.state.model, other.state.seq, float(other.state.h[0])) == (b"n" * 16, 4, 4.0)


def test_the_step_model_reads_the_action_of_each_event() -> None:
    spec = replace(SPEC, actions=("purchase", "skip"))
    acts = ("skip", "", "share", "purchase")
    one = batch([event(offset, action=action) for offset, action in enumerate(acts)])
    models = CountingModels()
    advance([one, batch([event(0, action="purchase")])], models, FixedCatalogue(), spec)
    assert models.acted == [[2, 1], [0], [0], [1]]
    again = batch([event(4, behaviour=RATING, value=4.0)], state_module.encode(one.state), model=b"n" * 16)
    advance([again], models := CountingModels(), FixedCatalogue(), spec)
    assert models.acted == [[2], [0], [0], [1], [0]]
    advance([batch([event(0, action="purchase")])], models := CountingModels(), FixedCatalogue(), SPEC)
    assert models.acted == [[0]]


@pytest.mark.parametrize("behaviour", [CLICK, RATING, COMMENT])
def test_each_topic_has_its_own_fence(behaviour: int) -> None:
    one = batch([event(9, behaviour=behaviour)])
    assert [offset for offset in one.state.applied if offset >= 0] == [9]
    assert one.state.applied[behaviour] == 9


# what the score looks at beside the state


def asked(
    *batches: UserBatch, last: int = 3, choices: tuple[int, ...] = (CLICK, RATING, COMMENT)
) -> tuple[list[list[int]], list[int]]:
    models = CountingModels(last=last, choices=frozenset(choices))
    rank(batches, models, FixedCatalogue(), 2, filter_seen=True)
    return models.asked[0]


def test_the_newest_choices_of_every_user_come_first() -> None:
    some = batch([event(0, "a"), event(1, "b"), event(2, "c"), event(3, "a")])
    assert asked(some, batch([]), batch([event(0, "d")])) == (
        [[0, 1, 0], [0, 3, 1], [0, 2, 2], [2, 4, 0]],
        [4, 0, 1],
    )


def test_without_neighbours_nothing_is_looked_up() -> None:
    assert asked(batch([event(0, "a")]), last=0) == ([], [1])


def test_a_comment_without_a_value_and_an_unknown_item_are_no_choices() -> None:
    events = [
        event(0, "a"), event(0, "b", RATING, value=3.0), event(0, "c", COMMENT), event(1, "d", COMMENT, value=4.0),
        event(1, "never heard of"),
    ]  # fmt: skip
    recent, count = asked(batch(events))
    assert recent == [[0, 4, 0], [0, 2, 1], [0, 1, 2]]
    assert count == [5], "all events are evidence"


@pytest.mark.parametrize(
    "counted", [CHOICES, ("clicks",), ("ratings",), ("comments",), ("clicks", "comments"), ("ratings", "comments")]
)
def test_the_rule_for_choices_is_that_of_training(counted: tuple[str, ...]) -> None:
    draw = random.Random(4)
    kinds = ((CLICK, False), (RATING, True), (COMMENT, False), (COMMENT, True))
    rows, events = [], []
    for time in range(60):
        behaviour, valued = draw.choice(kinds)
        item, value = draw.choice("abcdx"), 4.0 if valued else NAN
        action = "" if behaviour else draw.choice(("", "view", "dislike", "skip", "né"))
        events.append(event(time, item, behaviour, value=value, action=action))
        rows.append(Event("u", item, behaviour, time, value, action=action))
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    spec = InputSpec((0.5, 5.0), (), 3, counted)
    trained = histories(table, None, "abcd", spec, lambda texts: np.zeros((len(texts), 3), np.float32))
    expected = blend.recent_choices(trained, trained.starts[:-1], trained.starts[1:], 7)
    assert asked(batch(events), last=7, choices=tuple(spec.chosen()))[0] == expected.tolist()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
@example([1 / 64, 3 / 64, -1 / 64, -1e-6, 0.0, -0.0, 3e38, 1e-45])  # ties, signed zeros and the ends of the range
def test_rounding_gives_the_bits_that_python_gives(scores: list[float]) -> None:
    found = np.array(scores, np.float32)
    expected = np.array([round(score, 5) for score in found.tolist()], np.float64)
    assert rounded(found).tobytes() == expected.tobytes()


def test_slates_keep_their_places_where_some_have_none() -> None:
    full, short, none = (batch([event(at, item) for at, item in enumerate(items)]) for items in ("a", "abc", "abcd"))
    slates = rank([full, none, short, none], CountingModels(), FixedCatalogue(), 3, filter_seen=True)
    assert slates == [[Scored("b", -2.0), Scored("c", -3.0), Scored("d", -4.0)], [], [Scored("d", -4.0)], []]


def plain(scores: np.ndarray, rows: np.ndarray, catalogue: FixedCatalogue) -> list[list[Scored]]:
    """Slates made item by item."""
    return [
        [Scored(catalogue.item(row), round(score, 5)) for score, row in zip(*one, strict=True) if np.isfinite(score)]
        for one in zip(scores.tolist(), rows.tolist(), strict=True)
    ]


@given(
    st.lists(
        st.lists(
            st.one_of(st.just(-math.inf), st.floats(-20, 20, width=32)), min_size=3, max_size=3
        ).map(lambda scores: sorted(scores, reverse=True)),
        min_size=1, max_size=5,
    ),
    st.booleans(),
)  # fmt: skip
def test_slates_are_to_the_byte_what_they_are_item_by_item(scores: list[list[float]], blocked: bool) -> None:
    """Also under a rule that only leaves items out, of which nothing is left to arrange."""
    rows = np.array([[(user + place) % 4 + 1 for place in range(3)] for user in range(len(scores))])
    wanted = np.array(scores, np.float32)

    class Given(CountingModels):
        def score(self, *_: object) -> tuple[np.ndarray, np.ndarray]:
            return wanted, rows

    catalogue = FixedCatalogue()
    rules = RuleBook("utf8")
    if blocked:
        rules.apply([(0, b"r", json.dumps({"rule": "r", "kind": "block", "filter": {"item": "z"}}).encode())])
    ruling = Ruling(rules.current, None, 0, Selections())
    users = [batch([event(1, "a")]) for _ in scores]
    found = rank(users, Given(), catalogue, 3, filter_seen=True, ruling=ruling)
    assert msgspec.json.encode(found) == msgspec.json.encode(plain(wanted, rows, catalogue))


def test_seen_items_of_many_users_are_those_of_each_alone() -> None:
    catalogue = FixedCatalogue()
    users = [batch([event(at, item) for at, item in enumerate(items)]) for items in ("ab", "", "dca", "xyz", "c")]
    full = batch([event(at, item) for at, item in enumerate("ab")])
    others = (number for number in range(10**6) if number not in {item_hash(item) for item in "abcd"})
    full.state.seen = np.sort(np.fromiter(islice(others, MAX_SEEN), np.uint32)).tobytes()
    users.insert(2, full)  # only its last events know `a` and `b`
    models = Hiding()
    rank(users, models, catalogue, 2, filter_seen=True)
    for user, one in enumerate(users):
        alone = Hiding()
        rank([one], alone, catalogue, 2, filter_seen=True)
        assert models.hidden[models.hidden[:, 0] == user, 1].tolist() == alone.hidden[:, 1].tolist()
    assert sorted(models.hidden[models.hidden[:, 0] == 2, 1].tolist()) == [1, 2]


class Hiding(CountingModels):
    """Remembers which pairs must not appear."""

    hidden = np.empty((0, 2), np.int64)

    def score(self, h, items, bias, hidden, recent, count, k, tables):  # type: ignore[no-untyped-def]
        self.hidden = hidden
        return super().score(h, items, bias, hidden, recent, count, k, tables)


class Spy:
    """Models that score by a fixed list, and remember how many items were asked for."""

    ended, last, choices, refused = 0, 2, frozenset({CLICK}), frozenset[str]()

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores, self.asked = np.array(scores, np.float32), 0
        self.recent = np.empty((0, 3), np.int64)

    def step(self, rows: InputRows, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return h, c

    def score(self, h, items, bias, hidden, recent, count, k, tables):  # type: ignore[no-untyped-def]
        self.asked, self.recent = k, recent
        order = np.argsort(-self.scores, kind="stable")[:k]
        return np.tile(self.scores[order], (len(h), 1)), np.tile(order, (len(h), 1))


def test_diversity_re_ranks_the_candidates_and_keeps_their_scores() -> None:
    catalogue = FixedCatalogue(items=np.array([[0, 0], [1, 0], [1, 0], [0, 1], [0, 1]], np.float32))
    models = Spy([-np.inf, 4.0, 3.9, 3.8, -np.inf])
    one = batch([event(1, "d"), event(2, "d"), event(3, "d")])
    plain = rank([one], models, catalogue, 2, filter_seen=False)
    assert (models.asked, len(models.recent)) == (2, 2)
    assert plain == [[Scored("a", 4.0), Scored("b", 3.9)]]
    assert rank([one], models, catalogue, 2, filter_seen=False, diversity=Diversity(0.0, 50)) == plain
    diverse = rank([one], models, catalogue, 2, filter_seen=False, diversity=Diversity(0.9, 50))
    assert models.asked == 50
    assert len(models.recent) == 2  # the score's own choices; calibration reads all of them
    assert diverse == [[Scored("a", 4.0), Scored("c", 3.8)]]
    every = rank([one], models, catalogue, 4, filter_seen=False, diversity=Diversity(0.9, 4))
    assert [scored.item for scored in every[0]] == ["a", "c", "b"]  # d cannot be recommended
