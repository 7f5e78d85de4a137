"""Whose ids are whose: the worker's decoder and fold, and the check's own reading of the same records, agree on every id."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.verify import Report, check
from deploy.verify.validator import Accepted
from stream.core.decoder import EventDecoder
from stream.core.messages import SourceEvent
from tests.unit.synthetic import PARTITIONS, Row, World, partition_of

ALICE = "alice"
HOME = partition_of(ALICE)


class Served(World):
    """The events are those that the worker's own decoder makes of the records."""

    def __init__(self) -> None:
        super().__init__()
        self._decoder = EventDecoder(kafka_hash, PARTITIONS, self.settings.rating_scale, self.settings.sources)

    def event(self, behaviour: int, row: Row, verdict: Accepted) -> SourceEvent:
        return self._decoder.decode(
            behaviour, row.partition, row.offset, row.timestamp, row.key, row.value, row.headers
        )  # fmt: skip


def verify(world: World) -> Report:
    return check(world.log, world.settings)


def position(offset: int, topic: str = "clicks") -> str:
    return f"{topic}/{HOME}/{offset}"


def test_an_id_that_is_the_place_of_an_earlier_event() -> None:
    """Any producer can give one: it is an event like any other, for both."""
    world = Served()
    world.send(0, ALICE)
    world.work()
    world.send(0, ALICE, id=position(0))
    world.work()
    report = verify(world)
    assert report.violations == []
    assert (report.applied, report.duplicates, report.exit_code) == (2, 0, 0)


def test_a_replay_header_that_names_the_place_of_an_event_that_was_applied() -> None:
    world = Served()
    world.send(0, ALICE)
    world.send(0, ALICE, headers=(("original-record", position(0).encode()),))
    world.work()
    report = verify(world)
    assert report.violations == []
    assert (report.applied, report.duplicates) == (2, 0)


@pytest.mark.parametrize("letter_first", [True, False])
def test_a_producers_id_does_not_stand_in_the_way_of_a_letter_that_is_sent_back(letter_first: bool) -> None:
    """The place of a record that failed belongs to the letter, whatever ids a producer gives."""
    world = Served()
    world.send_raw(0, ALICE.encode(), b"{", HOME)
    world.work()
    sends: list[Callable[[], object]] = [
        lambda: world.send(0, ALICE, headers=(("original-record", position(0).encode()),)),
        lambda: world.send(0, ALICE, id=position(0)),
    ]
    for send in sends if letter_first else reversed(sends):
        send()
        world.work()
    for send in sends:  # and each once more: two duplicates
        send()
    world.work()
    report = verify(world)
    assert report.violations == []
    assert (report.applied, report.duplicates, report.dead_letters) == (2, 2, 1)


IDS = st.one_of(
    st.sampled_from(["", "a", "id:", "id:a", "/", "//", "clicks", "clicks/0", "other/0/0", "id:other/0/0"]),
    st.builds(
        "{}{}/{}/{}".format,
        st.sampled_from(["", "id:", "id:id:", "place:"]), st.sampled_from(["clicks", "ratings", "items"]),
        st.sampled_from(["0", "1", "00"]), st.sampled_from(["0", "1", "2", "3", "04"]),
    ),
    st.text(max_size=4),
)  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), IDS), st.one_of(st.none(), IDS)), max_size=24), st.data()
)
@settings(max_examples=300, deadline=None)
def test_worker_and_check_agree_on_any_ids(
    sends: list[tuple[int, str | None, str | None]], data: st.DataObject
) -> None:
    """behaviour, the body's id, the header `original-record`: whatever they say, nothing is red and nothing is left over."""
    world = Served()
    for behaviour, identity, header in sends:
        fields = {} if identity is None else {"id": identity}
        headers = () if header is None else (("original-record", header.encode()),)
        world.send(behaviour, ALICE, headers=headers, **fields)
        if data.draw(st.booleans()):
            world.work()
    world.work()
    report = verify(world)
    assert report.violations == []
    assert report.conserved
    assert report.applied + report.duplicates == len(sends)


def test_an_id_in_the_form_of_a_place_counts_again_once_64_others_came() -> None:
    world = Served()
    world.send(0, ALICE, id=position(0))
    for number in range(64):
        world.work()
        world.send(number % 3, ALICE, id=position(number + 1, "ratings"))
    world.work()
    world.send(0, ALICE, id=position(0))
    world.work()
    report = verify(world)
    assert report.violations == []
    assert (report.applied, report.duplicates) == (66, 0)


class Confusing(Served):
    """A worker that takes a producer's id for the place that it spells."""

    def event(self, behaviour: int, row: Row, verdict: Accepted) -> SourceEvent:
        found = super().event(behaviour, row, verdict)
        found.mark = ""
        return found


def test_a_worker_that_drops_a_letter_sent_back_for_a_producers_id_is_red() -> None:
    world = Confusing()
    world.send_raw(0, ALICE.encode(), b"{", HOME)
    world.send(0, ALICE, id=position(0))
    world.work()
    world.send(0, ALICE, headers=(("original-record", position(0).encode()),))
    world.work()
    assert verify(world).kinds == {"lost": 1}


def test_states_that_remember_such_ids_as_they_are_stay_valid() -> None:
    """Those of earlier versions."""
    world = Confusing()
    for number in range(70):
        world.send(0, ALICE, id=position(number, "ratings"))
        world.work()
    report = verify(world)
    assert (report.violations, report.applied, report.exit_code) == ([], 70, 0)
