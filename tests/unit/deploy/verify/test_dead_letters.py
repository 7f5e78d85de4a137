"""Dead letters against what was received: key, value and headers, also of the ones that are cut and of those of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.core import state as state_module
from stream.core.errors import RecordError
from stream.pipeline.dead_letter import MAX_HEADERS, MAX_VALUE, DeadLetters
from tests.unit.deploy.verify.worlds import ALICE, BOB, named, poison, red, small, verify
from tests.unit.synthetic import NOW, Headers, Row, World, partition_of

USER = "carol"

HOME = partition_of(USER)


def lettered(key: bytes | None, value: bytes | None, headers: Headers = ()) -> World:
    """An unacceptable record, and the letter that the worker's own code makes of it."""
    world = World()
    world.send_raw(0, key, value, HOME, headers)
    row = world.log.topics["clicks"][HOME][0]
    letter = DeadLetters("", lambda: NOW).letter("clicks", HOME, row, RecordError("decode", "malformed_json", "", "x"))
    world.log.append("dead-letters", HOME, letter.key, letter.value, tuple(letter.headers))
    world.log.offsets["clicks", HOME] = 1
    return world


SENT: tuple[tuple[str, bytes], ...] = (("trace", b"1"), ("original-record", b"clicks/0/7"), ("trace", b"2"))

LARGE = b"{" + b"x" * MAX_VALUE

KINDS = [
    (USER.encode(), b"{", ()),
    (None, None, ()),
    (b"", b"", ()),
    (USER.encode(), b"{", SENT),
    (USER.encode(), LARGE, SENT),
    (b"k" * (MAX_VALUE + 1), b"{", SENT),
    (b"k" * 100, b"{" + b"y" * (MAX_VALUE - 101), ()),
    (USER.encode(), b"{", (("__rec.errors.stage", b"mine"), ("big", b"v" * (MAX_HEADERS + 1)), ("small", b"v"))),
    (USER.encode(), b"{", (("original-record", b"x" * 301), ("original-record", b"clicks/0/7"), ("empty", b""))),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "headers"), KINDS, ids=map(str, range(len(KINDS))))
def test_what_the_worker_keeps_is_what_the_check_expects(
    key: bytes | None, value: bytes | None, headers: Headers
) -> None:
    report = verify(lettered(key, value, headers))
    assert (report.violations, report.dead_letters, report.exit_code) == ([], 1, 0)


NAMES = st.sampled_from(["a", "b", "original-record", "__rec.errors.x", "n" * 200])

SIZES = st.sampled_from([0, 1, 299, 300, 301, 1000, MAX_HEADERS - 211, MAX_HEADERS - 11, MAX_HEADERS])


@given(st.lists(st.tuples(NAMES, st.one_of(st.none(), SIZES.map(lambda size: b"v" * size))), max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_headers_are_kept_as_the_check_expects(headers: list[tuple[str, bytes]]) -> None:
    assert verify(lettered(USER.encode(), b"{", tuple(headers))).violations == []


def change(world: World, **fields: Any) -> None:
    rows = world.log.topics["dead-letters"][HOME]
    rows[0] = rows[0]._replace(**fields)


def change_header(world: World, name: str, value: bytes) -> None:
    """One header of ours says something else."""
    row = world.log.topics["dead-letters"][HOME][0]
    change(world, headers=tuple((n, value if n == f"__rec.errors.{name}" else v) for n, v in row.headers))


def received(world: World, *headers: tuple[str, bytes]) -> None:
    """The headers that are not ours are others."""
    row = world.log.topics["dead-letters"][HOME][0]
    change(world, headers=(*(one for one in row.headers if one[0].startswith("__rec.errors.")), *headers))


BREAKS: list[tuple[int, Callable[[World], None], str]] = [
    (3, lambda world: received(world), "headers"),
    (3, lambda world: received(world, *SENT[:2]), "headers"),
    (3, lambda world: received(world, SENT[2], SENT[1], SENT[0]), "headers"),
    (3, lambda world: received(world, *SENT, ("more", b"")), "headers"),
    (0, lambda world: received(world, ("more", b"")), "headers"),
    (0, lambda world: change_header(world, "truncated", b"true"), "truncated"),
    (0, lambda world: change(world, value=b"["), "value"),
    (0, lambda world: change(world, value=None), "value"),
    (1, lambda world: change(world, value=b""), "value"),
    (0, lambda world: change(world, key=b"dave"), "key"),
    (2, lambda world: change(world, key=None), "key"),
    (0, lambda world: change_header(world, "payload.sha256", b"0" * 64), "hash"),
    (4, lambda world: change_header(world, "payload.sha256", b"0" * 64), "hash"),
    (4, lambda world: change_header(world, "truncated", b"false"), "truncated"),
    (4, lambda world: change(world, value=b"?" * (MAX_VALUE - 5)), "value"),
    (4, lambda world: change(world, value=b"{"), "value"),
    (5, lambda world: change(world, key=b"k"), "key"),
]


@pytest.mark.parametrize(("kind", "mutate", "says"), BREAKS, ids=map(str, range(len(BREAKS))))
def test_a_letter_that_does_not_hold_what_was_received(kind: int, mutate: Callable[[World], None], says: str) -> None:
    world = lettered(*KINDS[kind])
    mutate(world)
    report = verify(world)
    assert report.kinds == {"dead-letter": 1}, report.violations
    assert says in report.violations[0].message


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"value": b"{}"}, "value"), ({"value": None}, "value"), ({"key": b"dave"}, "key"), ({"key": None}, "key")],
)
def test_a_letter_of_an_event_that_the_model_fails_on_holds_it(changed: dict[str, bytes | None], says: str) -> None:
    world = small()
    poison(world)
    rows = world.log.topics["dead-letters"][partition_of("bob")]
    rows[-1] = rows[-1]._replace(**changed)  # type: ignore[arg-type]
    report = verify(world)
    assert report.kinds == {"dead-letter": 1}, report.violations
    assert says in report.violations[0].message
    assert report.inference == 1


def good_event_set_aside(world: World) -> None:
    _, partition, offset = world.send(0, BOB)
    row = world.log.topics["clicks"][partition][offset]
    world.letter("clicks", row, "the worker did not like it")
    world._read["clicks", partition] = offset + 1
    world.commit()


def applied_and_set_aside(world: World) -> None:
    world.letter("clicks", world.log.topics["clicks"][partition_of(ALICE)][0], "and yet it was applied")


def missing_letter(world: World) -> None:
    world.log.topics["dead-letters"][partition_of("carol")].clear()


def letter_of_nothing(world: World) -> None:
    world.letter("clicks", Row(0, 777, NOW, None, None), "no such record")


def changed_letter(world: World) -> None:
    found = world.log.topics["dead-letters"][partition_of("carol")]
    found[0] = found[0]._replace(value=b"something else")


def letter_of_another_key(world: World) -> None:
    found = world.log.topics["dead-letters"][partition_of("carol")]
    found[0] = found[0]._replace(key=b"dave")


def test_one_good_event_in_a_thousand_set_aside_is_seen() -> None:
    world = World()
    for number in range(1000):
        world.send(0, f"u{number % 50}")
    partition = partition_of("u7")
    rows = world.log.topics["clicks"][partition]
    index = max(index for index, row in enumerate(rows) if row.key == b"u7")
    kept = rows[index]
    rows[index] = kept._replace(value=b"{")
    world.work()
    rows[index] = kept
    dead_letters = world.log.topics["dead-letters"][partition]
    dead_letters[0] = dead_letters[0]._replace(value=kept.value)
    assert set(verify(world).kinds) == {"valid-dead-letter", "lost"}


def erased_letter(world: World) -> None:
    world.log.append(world.settings.dead_letters_topic, partition_of("carol"), b"carol", None)


def letter_on_another_partition(world: World) -> None:
    found = world.log.topics["dead-letters"][partition_of("carol")][0]
    world.log.append("dead-letters", 1 - partition_of("carol"), found.key, found.value, found.headers)


def letter_of_an_item(world: World) -> None:
    world.letter(world.settings.items_topic, Row(0, 0, NOW, b"item-1", b"{"), "no item", "catalogue")


MUTANTS: list[tuple[Callable[[World], None], set[str]]] = [
    (good_event_set_aside, {"valid-dead-letter", "lost"}),
    (applied_and_set_aside, {"valid-dead-letter"}),
    (missing_letter, {"unreported"}),
    (letter_of_nothing, {"dead-letter"}),
    (changed_letter, {"dead-letter"}),
    (letter_of_another_key, {"dead-letter"}),
]


@pytest.mark.parametrize(("mutate", "kinds"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mutant_is_red_for_the_right_reason(mutate: Callable[[World], None], kinds: set[str]) -> None:
    red(mutate, kinds)


FORGERIES: list[tuple[Callable[[World], None], str, str]] = [
    (erased_letter, "dead-letter", "headers"),
    (letter_on_another_partition, "dead-letter", "not a place in this source partition"),
    (letter_of_an_item, "dead-letter", "names an item's record"),
]


@pytest.mark.parametrize(("forge", "kind", "says"), FORGERIES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_forged_record_is_named_and_breaks_nothing_else(forge: Callable[[World], None], kind: str, says: str) -> None:
    named(forge, kind, says)


def test_an_event_that_the_model_fails_on_is_counted_apart() -> None:
    world = small()
    poison(world)
    report = verify(world)
    assert report.violations == []
    assert (report.inference, report.lost, report.dead_letters) == (1, 0, 1)
    assert report.conserved
    assert report.exit_code == 0


def test_a_users_first_event_may_be_one_that_the_model_fails_on() -> None:
    world = small()
    world.states[b"eve"] = state_module.new(bytes(range(16)), 16)
    poison(world, user="eve")
    report = verify(world)
    assert report.violations == []
    assert (report.inference, report.exit_code) == (1, 0)


def test_only_the_stage_inference_excuses() -> None:
    world = small()
    poison(world, "validate")
    assert set(verify(world).kinds) == {"valid-dead-letter", "lost"}


def test_an_applied_event_is_no_poison_event() -> None:
    world = small()
    world.letter("clicks", world.log.topics["clicks"][partition_of(ALICE)][0], "and yet it was applied", "inference")
    assert set(verify(world).kinds) == {"valid-dead-letter"}
