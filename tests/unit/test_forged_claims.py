"""Claims and states in the changelog that no worker wrote: refused, named, and read alike by the worker and by the check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.verify.writers import CLAIM, FENCED, FORGED, Writers
from stream.claims import CLAIM_KEY, FIRST, NO_CLAIM, STEP, Claim, Written, encode, judge, sift, stamp
from stream.errors import FencedError, TopologyError
from tests.unit.synthetic import NOW, Row
from tests.unit.test_fencing import Log, Writer

EVIL = "e" * 32
HUGE = 10**17


def claim(offset: int, epoch: int, worker: str = EVIL, headers: list[tuple[str, bytes]] | None = None) -> Written:
    said = stamp(epoch) if headers is None else headers
    return Written(offset, CLAIM_KEY, encode(Claim(epoch, worker, NOW)), said)


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
        (Written(0, CLAIM_KEY, b"{", stamp(8)), "no claim"),
        (Written(0, CLAIM_KEY, None, stamp(8)), "no claim"),
    ],
)
def test_a_forged_claim_counts_for_nothing_and_is_named(forged: Written, why: str) -> None:
    holds, said = judge(forged, 7)
    assert holds == NO_CLAIM
    assert why in said
    found = sift([claim(0, 7), forged, state(2, b"u", b"1", 7)], NO_CLAIM)
    assert (found.claim.epoch, found.states, found.fenced, len(found.forged)) == (7, [(b"u", b"1")], [], 1)


def test_a_state_tells_of_the_claim_that_compaction_took_away() -> None:
    """Else a reader who begins there would take the forged claim for the first one, and fence what comes after it."""
    found = sift([state(5, b"u", b"1", 57), claim(9, HUGE), claim(10, 58), state(11, b"u", b"2", 58)], NO_CLAIM)
    assert (found.claim.epoch, found.states, len(found.forged)) == (58, [(b"u", b"1"), (b"u", b"2")], 1)


@pytest.mark.parametrize("epoch", [6, 7, 8])
def test_a_tombstone_deletes_no_state(epoch: int) -> None:
    found = sift([claim(0, 7), state(1, b"u", b"1", 7), state(2, b"u", None, epoch)], NO_CLAIM)
    assert (found.states, found.fenced) == ([(b"u", b"1")], [b"u"])


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


# Worker and check.

EPOCHS = st.one_of(
    st.integers(0, 6), st.integers(-1, 3).map(lambda more: STEP + more), st.sampled_from([FIRST, FIRST + 1, HUGE])
)
NAMES = st.sampled_from([EVIL, "a" * 32, "w", EVIL + "0"])
FIELDS = st.sampled_from(["epoch", "worker", "time", "topics", "partitions", "more"])
ODD = st.sampled_from([None, True, 1.0, 1.5, "1", {"a": 1}, {"a": "b"}, [], 10**25])
VALUES = st.one_of(
    st.builds(lambda epoch, worker: encode(Claim(epoch, worker, NOW)), EPOCHS, NAMES),
    st.dictionaries(FIELDS, ODD, max_size=2).map(
        lambda said: json.dumps({"epoch": 3, "worker": EVIL, "time": 5} | said).encode()
    ),
    st.binary(max_size=8),
    st.none(),
)
RECORDS = st.lists(
    st.tuples(
        st.sampled_from([CLAIM, CLAIM, b"ann", b"bob"]), VALUES,
        st.one_of(st.none(), EPOCHS.map(lambda epoch: b"%d" % epoch), st.sampled_from([b"", b"x", b"03", "\u0663".encode()])),
    ),
    max_size=12,
)  # fmt: skip


def stands_for_worker(log: list[Written]) -> list[bytes]:
    return [value for _, value in sift(log, NO_CLAIM).states]


def stands_for_check(log: list[Written]) -> list[bytes]:
    writers = Writers()
    found = []
    for record in log:
        row = Row(0, record.offset, NOW, record.key, record.value, tuple(record.headers))
        if record.key == CLAIM:
            writers.claim(row)
        elif record.value is not None and writers.judge(row) not in (FENCED, FORGED):
            found.append(record.value)
    return found


@given(RECORDS)
@settings(max_examples=500, deadline=None)
def test_worker_and_check_agree_on_what_stands(drawn: list[tuple[bytes, bytes | None, bytes | None]]) -> None:
    log = [
        Written(offset, key, value, [] if said is None else [("writer", said)])
        for offset, (key, value, said) in enumerate(drawn)
    ]
    assert stands_for_worker(log) == stands_for_check(log)
    for cut in range(len(log)):  # and wherever the worker's reading is cut
        first = sift(log[:cut], NO_CLAIM)
        assert [value for _, value in first.states + sift(log[cut:], first.claim).states] == stands_for_check(log)
