"""The order in which one user's events of a micro-batch are folded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.core.messages import NAN, SourceEvent
from stream.pipeline.pipeline import in_append_order


def event(behaviour: int, offset: int, append: int) -> SourceEvent:
    return SourceEvent(behaviour, 0, offset, append, b"u", "i", 0, NAN, "", "", "", b"")


def test_append_time_decides_and_ties_go_clicks_ratings_comments() -> None:
    events = [event(0, 5, 20), event(0, 6, 30), event(1, 1, 10), event(1, 2, 20), event(2, 9, 20)]
    order = [(e.behaviour, e.offset) for e in in_append_order(events)]
    assert order == [(1, 1), (0, 5), (1, 2), (2, 9), (0, 6)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), min_size=1, max_size=40))
def test_offsets_of_one_topic_never_swap(records: list[tuple[int, int]]) -> None:
    events = [
        event(behaviour, offset, append)
        for offset, (behaviour, append) in enumerate(sorted(records, key=lambda p: p[0]))
    ]
    merged = in_append_order(events)
    assert sorted(e.offset for e in merged) == [e.offset for e in events]
    for behaviour in range(3):
        offsets = [e.offset for e in merged if e.behaviour == behaviour]
        assert offsets == sorted(offsets)
