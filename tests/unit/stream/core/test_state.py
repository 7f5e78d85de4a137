"""The state record: what is folded into it, its bytes, and what happens to damaged ones."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.core import state as state_module
from stream.core.errors import StateError
from stream.core.messages import SourceEvent
from stream.core.state import MAX_RECENT, MAX_SEEN, NO_TIME, ZERO_CHAIN, Interest
from tests.conftest import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "state-format-1.hex"
TOPICS = ("clicks", "ratings", "comments")
MODEL = bytes(range(16))
HIDDEN = 16


def event(
    behaviour: int = 0, offset: int = 0, *, item: str = "i1", time: int = 1000, value: float = math.nan, scene: str = "",
    id: str = "", payload: bytes = b"{}", action: str = "",  # noqa: A002
) -> SourceEvent:  # fmt: skip
    return SourceEvent(behaviour, 3, offset, 0, b"alice", item, time, value, scene, "", id, payload, action=action)


def fold(state: Interest, one: SourceEvent) -> int:
    return state_module.fold(state, one, TOPICS[one.behaviour])


def folded(*events: SourceEvent) -> Interest:
    state = state_module.new(MODEL, HIDDEN)
    for one in events:
        fold(state, one)
    return state


def fields(state: Interest) -> tuple[object, ...]:
    return (
        state.model, state.seq, tuple(state.applied), state.catalogue, state.last_time, state.chain, tuple(state.folded),
        state.h.tobytes(), state.c.tobytes(), state.recent, state.recent_count, state.seen,
    )  # fmt: skip


# folding


def test_a_new_user_has_nothing() -> None:
    state = state_module.new(MODEL, HIDDEN)
    assert (state.seq, state.applied, state.last_time, state.chain) == (0, [-1, -1, -1], NO_TIME, ZERO_CHAIN)
    assert not state.h.any()
    assert list(state.recents()) == []


def test_seq_fence_and_folded_list() -> None:
    state = folded(event(0, 5), event(1, 2), event(0, 9))
    assert state.seq == 3
    assert state.applied == [9, 2, -1]
    assert state.folded == [(0, 5), (1, 2), (0, 9)]


def test_the_time_gap_never_goes_back() -> None:
    state = state_module.new(MODEL, HIDDEN)
    gaps = [fold(state, event(offset=offset, time=time)) for offset, time in enumerate((1000, 4000, 2500, 4500, 0))]
    assert gaps == [NO_TIME, 3000, 0, 500, 0]
    assert state.last_time == 4500


def test_the_chain_by_hand() -> None:
    state = folded(event(0, 7, payload=b"first"), event(2, 1, id="e-2", payload=b"second"))
    first = blake2b(bytes(16) + b"clicks/3/7" + blake2b(b"first", digest_size=16).digest(), digest_size=16).digest()
    second = blake2b(first + b"e-2" + blake2b(b"second", digest_size=16).digest(), digest_size=16).digest()
    assert state.chain == second


def test_the_chain_tells_order_identity_and_payload_apart() -> None:
    a, b = event(0, 1, payload=b"a"), event(0, 2, payload=b"b")
    chains = {
        folded(a, b).chain,
        folded(b, a).chain,
        folded(a).chain,
        folded(a, event(0, 2, payload=b"c")).chain,
        folded(a, event(0, 3, payload=b"b")).chain,
        folded(a, event(1, 2, payload=b"b")).chain,
    }
    assert len(chains) == 6


def test_replays_and_the_fence() -> None:
    state = folded(event(0, 5))
    assert [state_module.is_redelivered(state, event(0, offset)) for offset in (4, 5, 6)] == [True, True, False]
    assert not state_module.is_redelivered(state, event(1, 0))


def test_a_duplicate_moves_the_fence_only() -> None:
    state = folded(event(0, 5, id="e1"))
    again = event(1, 8, id="e1")
    assert state_module.is_duplicate(state, again)
    chain = state.chain
    state_module.pass_over(state, again)
    assert (state.seq, state.chain, state.applied, state.folded) == (1, chain, [5, 8, -1], [(0, 5)])
    assert state_module.is_redelivered(state, again)


def test_what_is_no_duplicate() -> None:
    state = folded(event(0, 5, item="e1", scene="e2"), event(0, 6, id="e11"))
    assert not state_module.is_duplicate(state, event(0, 7))
    assert not state_module.is_duplicate(state, event(0, 7, id="e1"))
    assert not state_module.is_duplicate(state, event(0, 7, id="e2"))
    assert not state_module.is_duplicate(state, event(0, 7, id="1"))
    assert not state_module.is_duplicate(state, event(0, 7, id="clicks/3/5"))


def test_the_ring_keeps_the_last_64() -> None:
    state = folded(*(event(0, offset, id=f"e{offset}", time=offset) for offset in range(MAX_RECENT + 10)))
    recent = list(state.recents())
    assert [one.id for one in recent] == [f"e{offset}" for offset in range(10, MAX_RECENT + 10)]
    assert state.recent_count == MAX_RECENT
    assert not state_module.is_duplicate(state, event(0, 99, id="e9"))
    assert state_module.is_duplicate(state, event(0, 99, id="e10"))


def test_what_the_ring_remembers() -> None:
    state = folded(event(1, 2, item="Ünï\u2028", time=77, value=3.5, scene="home", id="\U0001f600"), event(0, 1))
    rated, clicked = state.recents()
    assert rated == (1, 3.5, 77, "Ünï\u2028", "home", "\U0001f600", "")
    assert math.isnan(clicked.value)


def test_newest_is_the_end_of_the_ring_backwards() -> None:
    state = folded(
        *(event(offset % 3, offset, item="Ü" * (offset * 7 % 400), value=(math.nan, 2.5)[offset % 2], scene="s" * offset,
                id="x" * (offset % 5))
          for offset in range(MAX_RECENT + 9))
    )  # fmt: skip
    expected = [(one.item, one.behaviour, not math.isnan(one.value)) for one in state.recents()]
    assert list(state.newest()) == expected[::-1]
    assert list(state_module.new(MODEL, HIDDEN).newest()) == []


def test_seen_items_are_sorted_and_once() -> None:
    items = [f"i{number % 50}" for number in range(200)]
    state = folded(*(event(0, offset, item=item) for offset, item in enumerate(items)))
    hashes = state.seen_hashes()
    assert hashes.tolist() == sorted({crc32(item.encode()) for item in items})


def test_a_full_set_of_seen_items_stays_as_it_is() -> None:
    state = state_module.new(MODEL, HIDDEN)
    state.seen = np.arange(0, 2 * MAX_SEEN, 2, dtype=np.uint32).tobytes()
    before = state.seen
    fold(state, event(item="new"))
    assert state.seen == before
    assert [recent.item for recent in state.recents()] == ["new"]


# the record

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
events = st.lists(
    st.builds(
        event,
        st.integers(0, 2),
        st.integers(0, 2**40),
        item=texts,
        time=st.integers(0, 253_402_300_799_999),
        value=st.one_of(st.just(math.nan), st.floats(0.5, 5.0, width=32)),
        scene=texts,
        id=texts,
        payload=st.binary(max_size=30),
        action=texts,
    ),
    max_size=80,
)


@settings(max_examples=60, deadline=None)
@given(events, st.integers(0, 2**40), st.integers(-1, 2**40))
def test_round_trip(several: list[SourceEvent], seed: int, catalogue: int) -> None:
    state = folded(*several)
    chance = np.random.default_rng(seed)
    state.h = chance.uniform(-60000, 60000, HIDDEN).astype(np.float16)
    state.c = chance.standard_normal(HIDDEN).astype(np.float16)
    state.catalogue = catalogue
    record = state_module.encode(state)
    again = state_module.decode(record)
    assert fields(again) == fields(state)
    assert state_module.encode(again) == record
    assert len(list(again.recents())) == min(len(several), MAX_RECENT)


@settings(max_examples=30, deadline=None)
@given(events)
def test_folding_through_the_record_is_folding_in_memory(several: list[SourceEvent]) -> None:
    """Encoded and decoded after each event or never: the same state, but for the list of what was folded since."""
    through = state_module.new(MODEL, HIDDEN)
    for one in several:
        through = state_module.decode(state_module.encode(through))
        through.folded = []
        fold(through, one)
    at_once = folded(*several)
    at_once.folded = at_once.folded[-1:]
    assert fields(through) == fields(at_once)


def example() -> Interest:
    """The state that the fixture of format 1 holds."""
    state = state_module.new(MODEL, HIDDEN)
    fold(state, event(0, 11, item="m1", time=1_000_000, payload=b'{"user":"alice"}'))
    fold(state, event(1, 4, item="m2", time=1_060_000, value=4.5, scene="home", id="r-1", payload=b"rated"))
    state.folded = []
    fold(state, event(2, 0, item="m3", time=1_050_000, value=0.5, id="c-ü", payload=b"said"))
    fold(state, event(0, 12, item="m1", time=2_000_000, payload=b"again"))
    state.catalogue = 9741
    state.h = (np.arange(HIDDEN) / 8 - 1).astype(np.float16)
    state.c = np.linspace(-60000, 60000, HIDDEN).astype(np.float16)
    return state


def test_format_1_stays_readable() -> None:
    record = bytes.fromhex(FIXTURE.read_text())
    assert fields(state_module.decode(record)) == fields(example())


def test_format_1_is_written_as_it_always_was() -> None:
    assert state_module.encode(example()) == bytes.fromhex(FIXTURE.read_text())


def damaged(record: bytes) -> Iterator[bytes]:
    chance = random.Random(0)
    yield b""
    yield record[:1]
    yield record[:-1]
    yield record + b"\0"
    yield record[::-1]
    yield bytes(len(record))
    for _ in range(20):
        yield record[: chance.randrange(len(record))]
    for _ in range(200):
        at = chance.randrange(len(record))
        yield record[:at] + bytes([record[at] ^ 1 << chance.randrange(8)]) + record[at + 1 :]


def test_an_action_is_remembered_behind_the_id_and_its_absence_costs_nothing() -> None:
    plain, acted = event(0, 1, item="a", scene="home", id="e"), event(0, 2, item="b", id="x", action="né")
    state = state_module.decode(state_module.encode(folded(plain, acted, event(0, 3, item="c"))))
    assert [(recent.item, recent.action) for recent in state.recents()] == [("a", ""), ("b", "né"), ("c", "")]
    assert len(state.recent) == sum(2 + 13 + 3 * 2 + size for size in (1 + 4 + 1, 1 + 1 + 2 + 3, 1))


def test_events_of_a_refused_action_are_passed_over() -> None:
    """Also where an id ends as if it were the action, and where the refused one is the newest or the oldest."""
    disguised = event(0, 9, item="d", id="x\x04\x00skip")
    actions = ("skip", "", "view", "skip", "né", "skip")
    first, *others = [event(0, number, item=f"i{number}", action=action) for number, action in enumerate(actions)]
    state = folded(first, disguised, *others)
    assert [item for item, _, _ in state.newest(frozenset(["skip"]))] == ["i4", "i2", "i1", "d"]
    assert [item for item, _, _ in state.newest(frozenset(["né", "view"]))] == ["i5", "i3", "i1", "d", "i0"]
    assert [item for item, _, _ in state.newest()] == ["i5", "i4", "i3", "i2", "i1", "d", "i0"]
    assert list(folded(disguised).newest(frozenset(["skip"]))) == [("d", 0, False)]


def test_a_damaged_record_is_a_state_error() -> None:
    for record in damaged(state_module.encode(example())):
        with pytest.raises(StateError):
            state_module.decode(record)


def test_another_format_is_named() -> None:
    record = state_module.encode(example())
    with pytest.raises(StateError, match="format 2"):
        state_module.decode(b"\x02" + record[1:])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_written(bad: float) -> None:
    for name in ("h", "c"):
        state = example()
        vector = getattr(state, name).copy()
        vector[3] = bad
        setattr(state, name, vector)
        with pytest.raises(StateError, match="finite"):
            state_module.encode(state)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", [3, HIDDEN + 3])
def test_what_is_not_finite_is_never_read(bad: float, index: int) -> None:
    """Of a record with a right checksum, which no worker has written."""
    body = bytearray(state_module.encode(state_module.new(MODEL, HIDDEN))[:-4])
    at = 89 + 2 * index
    body[at : at + 2] = np.float16(bad).tobytes()
    with pytest.raises(StateError, match="not finite"):
        state_module.decode(bytes(body) + crc32(body).to_bytes(4, "little"))


def test_the_size_of_a_record() -> None:
    """What the documentation says of it: a fixed part, 4 bytes a hidden unit, the rest by events and items."""
    empty = len(state_module.encode(state_module.new(MODEL, HIDDEN)))
    assert empty == 89 + 4 * HIDDEN + 4
    sizes = [len(state_module.encode(folded(*(event(0, n, item="i") for n in range(count))))) for count in (1, 2, 3)]
    assert {later - earlier for earlier, later in pairwise(sizes)} == {9 + 2 + 13 + 3 * 2 + 1}
