"""Claims and states in the changelog that no worker wrote: refused, named, and read alike by the worker and by the check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.verify import check
from deploy.verify.fencing import CLAIM, FENCED, FORGED, NOBODYS, Fencing
from deploy.verify.fencing import _parsed as check_parsed
from deploy.verify.fencing import epoch as check_epoch
from deploy.verify.keys import TEXT
from deploy.verify.local_store import OFFSET_KEY
from deploy.verify.validator import Validator
from stream.core.errors import FencedError, TopologyError
from stream.core.fencing_log import (
    CLAIM_KEY,
    FIRST,
    NO_CLAIM,
    STEP,
    Claim,
    Written,
    decode,
    encode,
    epoch_of,
    judge,
    of_user,
    sift,
    stamp,
)
from stream.core.keys import UTF8
from stream.kafka.store_identity import NOTE_KEY
from tests.unit.stream.kafka.changelogs import Log, Writer
from tests.unit.synthetic import NOW, Row, World, partition_of

EVIL = "e" * 32
HUGE = 10**17


def claim(offset: int, epoch: int, worker: str = EVIL, headers: list[tuple[str, bytes]] | None = None) -> Written:
    named = stamp(epoch) if headers is None else headers
    return Written(offset, CLAIM_KEY, encode(Claim(epoch, worker, NOW)), named)


def state(offset: int, user: bytes, value: bytes | None, epoch: int) -> Written:
    return Written(offset, user, value, stamp(epoch))


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        (claim(0, HUGE), "is beyond 1000007"),
        (claim(0, 10**30), "different epochs"),
        (claim(0, 8, "evil"), "32 hex digits"),
        (claim(0, 8, headers=[]), "different epochs"),
        (claim(0, 8, headers=stamp(9)), "different epochs"),
        (Written(0, CLAIM_KEY, b"{", stamp(8)), "is not a claim"),
        (Written(0, CLAIM_KEY, None, stamp(8)), "is not a claim"),
    ],
)
def test_a_forged_claim_counts_for_nothing_and_is_named(forged: Written, why: str) -> None:
    holds, violations = judge(forged, 7)
    assert holds == NO_CLAIM
    assert why in violations
    found = sift([claim(0, 7), forged, state(2, b"u", b"1", 7)], NO_CLAIM)
    assert (found.claim.epoch, found.states, found.fenced, len(found.forged)) == (7, [(b"u", b"1")], [], 1)


def test_a_state_tells_of_the_claim_that_compaction_took_away() -> None:
    """Else a reader who begins there would take the forged claim for the first one, and fence what comes after it."""
    found = sift([state(5, b"u", b"1", 57), claim(9, HUGE), claim(10, 58), state(11, b"u", b"2", 58)], NO_CLAIM)
    assert (found.claim.epoch, found.states, len(found.forged)) == (58, [(b"u", b"1"), (b"u", b"2")], 1)


@pytest.mark.parametrize("epoch", [None, 0, 6, HUGE])
def test_a_tombstone_of_no_writer_in_force_deletes_no_state(epoch: int | None) -> None:
    tombstone = state(2, b"u", None, 0)._replace(headers=[]) if epoch is None else state(2, b"u", None, epoch)
    found = sift([claim(0, 7), state(1, b"u", b"1", 7), tombstone], NO_CLAIM)
    assert (found.states, found.fenced) == ([(b"u", b"1")], [b"u"])


def test_a_tombstone_of_the_writer_in_force_deletes_the_state() -> None:
    found = sift([claim(0, 7), state(1, b"u", b"1", 7), state(2, b"u", None, 7)], NO_CLAIM)
    assert (found.states, found.fenced) == ([(b"u", b"1"), (b"u", None)], [])


# The worker that meets one.


@pytest.fixture
def log() -> Log:
    return Log()


def insert(log: Log, *records: Written) -> None:
    log.records += [one._replace(offset=len(log.records) + number) for number, one in enumerate(records)]


def counted(writer: Writer) -> tuple[int, int]:
    return sum(one.fenced for one in writer.left_out), sum(one.forged for one in writer.left_out)


@pytest.mark.parametrize("epoch", [HUGE, 10**30])
def test_a_worker_goes_on_past_a_forged_claim(log: Log, tmp_path: Path, epoch: int) -> None:
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    writer.write(ann=b"1")
    insert(log, claim(0, epoch))
    writer.write(ann=b"2", bob=b"1")
    writer.write(bob=b"2")
    assert counted(writer) == (0, 1)
    assert log.states() == {b"ann": b"2", b"bob": b"2"}
    other = Writer(log, tmp_path / "b")
    other.take_over()
    assert other.store.read(0, [b"ann", b"bob"]) == [b"2", b"2"]
    assert counted(other) == (0, 1)


def test_whoever_begins_to_read_at_a_forged_claim_has_all_states(log: Log, tmp_path: Path) -> None:
    """Compaction has taken everything before it: the newest states come after the next claim once more."""
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    writer.write(ann=b"1")
    insert(log, claim(0, HUGE))
    writer.write(ann=b"2")
    left = [one for one in log.records if one.offset > 1]
    assert left[0].key == CLAIM_KEY
    again = [one.value for one in left if one.key == b"ann"]
    assert again == [b"2", b"2"], "written once more behind the claim"


def test_a_claim_that_is_near_ends_the_worker_whatever_name_it_bears(log: Log, tmp_path: Path) -> None:
    """It cannot be told from another worker's: 75, and the next worker claims the partition back."""
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    own = sift(log.records, NO_CLAIM).claim.worker
    insert(log, claim(0, 5, own))
    with pytest.raises(FencedError, match="claimed by another worker: epoch 5, ours 1"):
        writer.write(ann=b"1")
    again = Writer(log, tmp_path / "b")
    again.take_over()
    again.write(ann=b"2")
    assert log.states() == {b"ann": b"2"}


def test_a_worker_does_not_take_over_where_the_epochs_are_used_up(log: Log, tmp_path: Path) -> None:
    insert(log, claim(0, FIRST))
    writer = Writer(log, tmp_path / "a")
    writer.store.apply(0, log.records)
    with pytest.raises(TopologyError, match="use another app_id"):
        writer.take_over()


@pytest.mark.parametrize("value", [b"stale", None])
def test_a_state_under_the_workers_own_epoch_is_written_over(log: Log, tmp_path: Path, value: bytes | None) -> None:
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    writer.write(ann=b"1")
    insert(log, state(0, b"ann", value, 1), state(0, b"eve", b"?", 1))
    writer.write(bob=b"1")
    assert counted(writer) == (2, 0)
    assert log.kept_by_compaction()[b"ann"] == b"1"
    assert writer.store.read(0, [b"ann", b"bob", b"eve"]) == [b"1", b"1", None]


# Records under keys that no user can have: of the folder's own notes, of the store, of nobody.

STRANGE = [
    NOTE_KEY, OFFSET_KEY, b"\xff", b"\xffwrite", b"", b"*", b"a\0b", b"x" * 257, "\u00fc".encode() * 257, b"\xed\xa0\x80", None,
]  # fmt: skip


@pytest.mark.parametrize("key", STRANGE)
@pytest.mark.parametrize("value", [b"?", None])
def test_a_record_of_no_user_is_left_out_and_named(key: bytes | None, value: bytes | None) -> None:
    forged = Written(1, key, value, stamp(9))
    found = sift([claim(0, 7), forged, state(2, b"u", b"1", 7)], NO_CLAIM)
    assert (found.claim.epoch, found.states, found.fenced) == (7, [(b"u", b"1")], [])
    assert [(one.offset, one.what) for one in found.forged] == [(1, "record")]
    assert "no user" in found.forged[0].why
    assert sift([forged], NO_CLAIM).claim == NO_CLAIM, "its epoch proves nothing"


@pytest.mark.parametrize("key", STRANGE)
@pytest.mark.parametrize("value", [b"?", None])
def test_a_record_of_no_user_changes_nothing_in_a_folder(
    log: Log, tmp_path: Path, key: bytes | None, value: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    writer.store.write(0, [(NOTE_KEY, b"ours")], -1)
    writer.write(ann=b"1")
    insert(log, Written(0, key, value, stamp(1)))
    writer.write(ann=b"2")
    assert counted(writer) == (0, 1)
    assert "forged record in the changelog, left out" in caplog.text
    assert [one.value for one in log.records if one.key == key] == [value], "nothing is written over it"
    assert [one.value for one in log.records if one.key == b"ann"] == [b"1", b"2"], "and no state once more"
    other = Writer(log, tmp_path / "b")
    other.store.write(0, [(NOTE_KEY, b"theirs")], -1)
    other.take_over()
    assert counted(other) == (0, 1)
    for one, note in ((writer, b"ours"), (other, b"theirs")):
        assert one.store.read(0, [NOTE_KEY, b"ann"]) == [note, b"2"]
        assert one.store.offset(0) >= 3


@pytest.mark.parametrize("key", STRANGE)
def test_the_check_names_a_record_of_no_user(key: bytes | None) -> None:
    world = World()
    world.send(0, "alice")
    world.claim(0, 1)
    world.claim(1, 1)
    world.work()
    topic = world.settings.changelog_topic
    for partition in range(2):
        good = world.log.topics[topic][partition_of("alice")][1].value
        world.log.append(topic, partition, key, good, tuple(stamp(5)))
    report = check(world.log, world.settings)
    assert report.kinds == {"state": 2}, report.violations
    assert "no user" in report.violations[0].message


@given(
    st.one_of(
        st.text(max_size=300).map(lambda text: text.encode(errors="surrogatepass")),
        st.binary(max_size=4),
        st.sampled_from(STRANGE),
    )
)
@settings(deadline=None)
def test_worker_check_and_schema_agree_on_who_can_be_a_user(key: bytes | None) -> None:
    read_user = of_user(key, UTF8)
    assert read_user == (TEXT.user(key) is not None)
    body = json.dumps({"user": (key or b"").decode(errors="replace"), "item": "i", "time": 1}).encode()
    verdict = Validator(1, (0.5, 5)).validate(0, 0, NOW, key, body)
    assert read_user == (not isinstance(verdict, str))


# Headers and claims, read alike.

HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["writer", "writer", "Writer", "x"]),
        st.one_of(
            st.none(), st.integers(0, 10**19).map(lambda n: b"%d" % n), st.binary(max_size=3),
            st.sampled_from([b"", b"007", b"-1", b"+1", b" 1", b"1 ", b"1_0", b"1.0", b"9" * 18, b"9" * 19, "\u0663".encode()]),
        ),
    ),
    max_size=4,
)  # fmt: skip


@given(HEADERS)
@settings(max_examples=500, deadline=None)
def test_worker_and_check_read_one_epoch_out_of_headers(headers: list[tuple[str, bytes | None]]) -> None:
    row = Row(0, 0, NOW, b"u", b"", tuple(headers))  # type: ignore[arg-type]
    assert epoch_of(headers) == (check_epoch(row) or 0)


@pytest.mark.parametrize(
    ("values", "epoch"),
    [([b"7"], 7), ([b"7", b"8"], 7), ([b"x", b"8"], 0), ([None, b"8"], 0), ([None], 0), ([], 0), ([b"007"], 7)],
)
def test_the_first_header_tells_the_epoch(values: list[bytes | None], epoch: int) -> None:
    headers = [("writer", value) for value in values]
    assert epoch_of(headers) == epoch
    assert (check_epoch(Row(0, 0, NOW, b"u", b"", tuple(headers))) or 0) == epoch  # type: ignore[arg-type]


def test_a_header_without_a_value_does_not_stop_a_folder(log: Log, tmp_path: Path) -> None:
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    headers: list[tuple[str, bytes]] = [("writer", None)]  # type: ignore[list-item]
    insert(log, Written(0, b"ann", b"?", headers), Written(0, CLAIM_KEY, encode(Claim(9, EVIL, NOW)), headers))
    writer.write(ann=b"1")
    assert counted(writer) == (1, 1)
    assert writer.store.read(0, [b"ann"]) == [b"1"]


SAID = b'{"epoch": 3, "worker": "%s", "time": 5, "topics": {"a": "b"}, "partitions": 2}' % EVIL.encode()
TEXTS = [
    (SAID, True),
    (SAID[:-1] + b', "more": ' + b"[" * 31 + b"]" * 31 + b"}", True),
    (SAID[:-1] + b', "more": ' + b"[" * 32 + b"]" * 32 + b"}", False),
    (SAID[:-1] + b', "more": ' + b"[" * 2_000 + b"]" * 2_000 + b"}", False),
    (b'{"epoch": "x", ' + SAID[1:], True),
    (SAID[:-1] + b', "epoch": "x"}', False),
    (SAID[:-1] + b', "topics": 1}', False),
    (SAID[:-1] + b', "key": "json"}', True),
    (SAID[:-1] + b', "key": 1}', False),
    (SAID[:-1] + b', "key": null}', False),
    (SAID[:-1] + b', "topics": {"a": 1, "a": "b"}}', True),
    (SAID[:-1] + b', "topics": {"a": "b", "a": 1}}', False),
    (SAID[:-1] + b', "time": 5.0}', True),
    (SAID[:-1] + b', "time": 5.5}', False),
    (SAID[:-1] + b', "time": 1e400}', False),
    (SAID[:-1] + b', "epoch": 3.0}', False),
    (SAID[:-1] + b', "epoch": 1' + b"0" * 5000 + b"}", False),
    (SAID[:-1] + b', "more": 1' + b"0" * 5000 + b"}", True),
    (SAID[:-1] + b', "more": 1e400}', True),
    (SAID[:-1] + b', "more": NaN}', False),
    (SAID[:-1] + b', "more": "\xff"}', False),
    (SAID[:-1] + b', "more": "\\ud800"}', False),
    (SAID[:-1] + b', "more": "\\ud83d\\ude00"}', True),
    (b"\xef\xbb\xbf" + SAID, False),
    (SAID + b" \n", True),
    (SAID + b"x", False),
    (b" " * (64 << 10) + SAID, False),
]


@pytest.mark.parametrize(("text", "holds"), TEXTS, ids=[str(number) for number in range(len(TEXTS))])
def test_what_is_a_claim_to_the_worker_is_one_to_the_check(text: bytes, holds: bool) -> None:
    assert (decode(text).epoch == 3, bool(check_parsed(text))) == (holds, holds)


NUMBERS = st.sampled_from(
    ["0", "3", "-1", "3.0", "3.5", "1e2", "1e400", "-0", "03", "1" + "0" * 30, "1" + "0" * 5000, "true"]
)
WORDS = st.sampled_from(
    ['"' + EVIL + '"', '"w"', '""', '"\\u0065"', '"\\ud800"', '"\\ud83d\\ude00"', '"\x01"', "null", '"']
)
ANYTHING = st.recursive(
    NUMBERS | WORDS,
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda parts: "[" + ",".join(parts) + "]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"\\u0061"']), inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{name}: {value}" for name, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)
DEEP = st.integers(0, 40).map(lambda depth: "[" * depth + "]" * depth or "1")
GOOD = {
    "epoch": st.sampled_from(["3", "1" + "0" * 30]), "worker": WORDS, "time": NUMBERS, "partitions": NUMBERS,
    "key": st.sampled_from(['"utf8"', '"json"', '""', "1", "null"]),
    "topics": st.sampled_from(["{}", '{"a": "b"}', '{"a": 1, "a": "b"}', '{"a": "b", "a": 1}']),
}  # fmt: skip


@st.composite
def claim_texts(draw: st.DrawFn) -> bytes:
    """Claims, nearly: names repeated, left out, unknown, spelt with escapes; values of other kinds."""
    fields = [("epoch", "3"), ("worker", f'"{EVIL}"'), ("time", "5")]
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from([*GOOD, "more"]))
        value = draw(st.one_of(GOOD.get(name, DEEP), GOOD.get(name, DEEP), ANYTHING, DEEP))
        fields.insert(draw(st.integers(0, len(fields))), (name, value))
    names = {"epoch": draw(st.sampled_from(["epoch", r"\u0065poch"]))}
    text = (
        "{" + draw(st.sampled_from(["", " ", "\n"])) + ", ".join(f'"{names.get(n, n)}": {v}' for n, v in fields) + "}"
    )
    raw = text.encode()
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(min_size=1, max_size=1)) + raw[at:]
    return raw


@given(claim_texts())
@settings(max_examples=1500, deadline=None)
def test_worker_and_check_read_one_claim(text: bytes) -> None:
    mine, other = decode(text), check_parsed(text)
    assert bool(mine.epoch) == (other is not None), text
    if other is not None:
        fields = {"topics": {}, "partitions": 0, "key": UTF8} | other
        assert [getattr(mine, name) for name in GOOD] == [fields[name] for name in GOOD]


# Worker and check.

EPOCHS = st.one_of(
    st.integers(0, 6), st.integers(-1, 3).map(lambda more: STEP + more), st.sampled_from([FIRST, FIRST + 1, HUGE])
)
NAMES = st.sampled_from([EVIL, "a" * 32, "w", EVIL + "0"])
FIELDS = st.sampled_from(["epoch", "worker", "time", "topics", "partitions", "more"])
ODD: st.SearchStrategy[Any] = st.sampled_from([None, True, 1.0, 1.5, "1", {"a": 1}, {"a": "b"}, [], 10**25])
VALUES = st.one_of(
    st.builds(lambda epoch, worker: encode(Claim(epoch, worker, NOW)), EPOCHS, NAMES),
    st.dictionaries(FIELDS, ODD, max_size=2).map(
        lambda fields: json.dumps({"epoch": 3, "worker": EVIL, "time": 5} | fields).encode()
    ),
    st.binary(max_size=8),
    st.none(),
)
RECORDS = st.lists(
    st.tuples(
        st.sampled_from([CLAIM, CLAIM, b"ann", b"bob", *STRANGE]), VALUES,
        st.one_of(st.none(), EPOCHS.map(lambda epoch: b"%d" % epoch), st.sampled_from([b"", b"x", b"03", "\u0663".encode()])),
    ),
    max_size=12,
)  # fmt: skip


def stands_for_worker(log: list[Written]) -> list[bytes | None]:
    return [value for _, value in sift(log, NO_CLAIM).states]


def stands_for_check(log: list[Written]) -> list[bytes | None]:
    """A tombstone counts if it names its writer's epoch."""
    fencing = Fencing()
    found: list[bytes | None] = []
    for record in log:
        row = Row(0, record.offset, NOW, record.key, record.value, tuple(record.headers))
        if record.key == CLAIM:
            fencing.claim(row)
        elif (record.value is not None or check_epoch(row)) and fencing.check(row) not in (FENCED, FORGED, NOBODYS):
            found.append(record.value)
    return found


@given(RECORDS)
@settings(max_examples=500, deadline=None)
def test_worker_and_check_agree_on_what_stands(drawn: list[tuple[bytes, bytes | None, bytes | None]]) -> None:
    log = [
        Written(offset, key, value, [] if headers is None else [("writer", headers)])
        for offset, (key, value, headers) in enumerate(drawn)
    ]
    assert stands_for_worker(log) == stands_for_check(log)
    for cut in range(len(log)):  # and wherever the worker's reading is cut
        first = sift(log[:cut], NO_CLAIM)
        assert [value for _, value in first.states + sift(log[cut:], first.claim).states] == stands_for_check(log)
