"""Folding and ranking, against a small model whose right answer is known: h counts events, scores prefer low rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from stream import interest
from stream.events import CLICK, COMMENT, NAN, RATING, SourceEvent
from stream.inputs import InputRows, InputSpec
from stream.recommend import advance, rank, take_in

TOPICS = ("clicks", "ratings", "comments")
MODEL = b"m" * 16
WIDTH = 4
SPEC = InputSpec(rating_scale=(0.5, 5.0), scenes=("home",), text_dim=3)


@dataclass
class CountingModels:
    """h counts steps, c sums the item vectors' first number; item row r scores -r."""

    calls: list[int] = field(default_factory=list)

    def step(self, rows: InputRows, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls.append(len(rows.item))
        return (h + np.float16(1)), (c + rows.item[:, :1].astype(np.float16))

    def score(
        self, h: np.ndarray, items: np.ndarray, bias: np.ndarray, hidden: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        scores = np.tile(-np.arange(len(items), dtype=np.float32), (len(h), 1)) + bias
        scores[hidden[:, 0], hidden[:, 1]] = -np.inf
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, rows, axis=1), rows


@dataclass
class FixedCatalogue:
    offset: int = 7
    names: tuple[str, ...] = ("", "a", "b", "c", "d")
    items: np.ndarray = field(default_factory=lambda: np.repeat(np.arange(5, dtype=np.float32)[:, None], 2, axis=1))
    bias: np.ndarray = field(default_factory=lambda: np.array([-np.inf, 0, 0, 0, 0], np.float32))

    def row(self, item: str) -> int:
        return self.names.index(item) if item in self.names else 0

    def item(self, row: int) -> str:
        return self.names[row]

    def hidden_rows(self, hashes: np.ndarray) -> np.ndarray:
        rows = [row for row, name in enumerate(self.names) if name and interest.item_hash(name) in set(hashes.tolist())]
        return np.array(rows, np.int64)


def event(
    offset: int, item: str = "a", behaviour: int = CLICK, time: int = 1000, identity: str = "", append: int = 2000
) -> SourceEvent:
    payload = json.dumps({"item": item, "offset": offset}).encode()
    return SourceEvent(behaviour, 0, offset, append, b"u", item, time, NAN, "home", "", identity, payload)


def turn(events: list[SourceEvent], record: bytes | None = None, model: bytes = MODEL):
    return take_in(b"u", 0, record, events, TOPICS, model, WIDTH)


def folded(events: list[SourceEvent], record: bytes | None = None) -> tuple[bytes, CountingModels]:
    models = CountingModels()
    one = turn(events, record)
    advance([one], models, FixedCatalogue(), SPEC)
    return interest.encode(one.state), models


def test_batch_and_single_path_give_the_same_record() -> None:
    events = [event(0, "a"), event(1, "b"), event(0, "c", RATING), event(2, "a")]
    at_once, _ = folded(events)
    record: bytes | None = None
    for one in events:
        record, _ = folded([one], record)
    assert record is not None
    batch, single = interest.decode(at_once), interest.decode(record)
    batch.folded = single.folded = []
    assert interest.encode(batch) == interest.encode(single)


def test_waves_make_one_call_each_over_all_users() -> None:
    models = CountingModels()
    turns = [take_in(b"u%d" % n, 0, None, [event(o) for o in range(n)], TOPICS, MODEL, WIDTH) for n in (1, 3, 2)]
    advance(turns, models, FixedCatalogue(), SPEC)
    assert models.calls == [3, 2, 1]
    assert [one.state.h[0] for one in turns] == [1, 3, 2]


def test_a_replayed_event_changes_nothing() -> None:
    record, _ = folded([event(0), event(1)])
    again = turn([event(0), event(1)], record)
    assert (again.replayed, again.changed, again.state.seq) == (2, False, 2)


def test_a_duplicate_id_moves_the_fence_only() -> None:
    record, _ = folded([event(0, identity="x")])
    again = turn([event(5, identity="x")], record)
    assert (again.duplicates, again.changed, again.state.seq, again.state.fence) == (1, True, 1, [5, -1, -1])
    assert again.state.chain == interest.decode(record).chain


def test_unknown_items_are_folded_and_counted() -> None:
    models = CountingModels()
    one = turn([event(0, "never heard of"), event(1, "b")])
    assert advance([one], models, FixedCatalogue(), SPEC) == 1
    assert one.state.seq == 2


def test_late_events_are_counted_and_do_not_turn_the_clock_back() -> None:
    one = turn([event(0, time=10_000), event(1, time=4_000), event(2, time=11_000)])
    assert one.late == 1
    assert [x.gap_ms for x in one.inputs] == [interest.NO_TIME, 0, 1_000]


def test_seen_items_are_not_recommended_unless_told() -> None:
    one = turn([event(0, "a"), event(1, "c")])
    models = CountingModels()
    advance([one], models, FixedCatalogue(), SPEC)
    assert [s.item for s in rank([one], models, FixedCatalogue(), 4, filter_seen=True)[0]] == ["b", "d"]
    assert [s.item for s in rank([one], models, FixedCatalogue(), 2, filter_seen=False)[0]] == ["a", "b"]


def test_the_latest_items_stay_hidden_when_the_seen_set_is_full() -> None:
    state = interest.new(MODEL, WIDTH)
    state.seen = np.arange(interest.MAX_SEEN, dtype=np.uint32).tobytes()
    one = turn([event(0, "b")], interest.encode(state))
    assert len(one.state.seen_hashes()) == interest.MAX_SEEN
    models = CountingModels()
    advance([one], models, FixedCatalogue(), SPEC)
    assert "b" not in [s.item for s in rank([one], models, FixedCatalogue(), 4, filter_seen=True)[0]]


def test_a_state_of_another_model_is_folded_again() -> None:
    record, _ = folded([event(0, "a"), event(1, "b"), event(2, "c")])
    other = turn([event(3, "d")], record, model=b"n" * 16)
    models = CountingModels()
    advance([other], models, FixedCatalogue(), SPEC)
    assert other.refolded
    assert (other.state.model, other.state.seq, float(other.state.h[0])) == (b"n" * 16, 4, 4.0)


@pytest.mark.parametrize("behaviour", [CLICK, RATING, COMMENT])
def test_each_topic_has_its_own_fence(behaviour: int) -> None:
    one = turn([event(9, behaviour=behaviour)])
    assert [offset for offset in one.state.fence if offset >= 0] == [9]
    assert one.state.fence[behaviour] == 9
