"""Who may write a changelog partition: the log's own order decides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.core.fencing_log import CLAIM_KEY, NO_CLAIM, Claim, Written, decode, encode, epoch_of, sift, stamp

OLD, NEW = "a" * 32, "b" * 32


def claim(offset: int, epoch: int, worker: str = OLD) -> Written:
    return Written(offset, CLAIM_KEY, encode(Claim(epoch, worker, 0)), stamp(epoch))


def state(offset: int, user: bytes, value: bytes, epoch: int) -> Written:
    return Written(offset, user, value, stamp(epoch) if epoch else [])


def test_a_late_record_of_a_former_owner_does_not_count() -> None:
    log = [claim(0, 1), state(1, b"u", b"1", 1), claim(2, 2), state(3, b"u", b"2", 2), state(4, b"u", b"stale", 1)]
    sifted = sift(log, NO_CLAIM)
    assert sifted.states == [(b"u", b"1"), (b"u", b"2")]
    assert sifted.fenced == [b"u"]
    assert sifted.claim.epoch == 2


def test_what_a_former_owner_wrote_before_the_claim_counts() -> None:
    assert sift([claim(0, 1), state(1, b"u", b"1", 1), claim(2, 2)], NO_CLAIM).states == [(b"u", b"1")]


def test_of_two_claims_with_one_epoch_the_first_counts() -> None:
    assert sift([claim(0, 3, OLD), claim(1, 3, NEW)], NO_CLAIM).claim.worker == OLD


def test_records_of_versions_without_epochs_count_until_the_first_claim() -> None:
    sifted = sift([state(0, b"u", b"1", 0), claim(1, 1), state(2, b"u", b"2", 0)], NO_CLAIM)
    assert (sifted.states, sifted.fenced) == ([(b"u", b"1")], [b"u"])


@given(st.binary(max_size=60))
def test_what_is_no_claim_never_counts(value: bytes) -> None:
    assert decode(value) == NO_CLAIM or decode(value).epoch > 0


@given(st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=30)), max_size=4))
def test_hostile_headers_are_epoch_zero_or_a_number(headers: list[tuple[str, bytes]]) -> None:
    assert epoch_of(headers) >= 0


@st.composite
def two_writers(draw: st.DrawFn) -> list[Written]:
    """An owner after another; the first one goes on writing whatever it likes after it has lost the partition."""
    log = [claim(0, 1)]
    for _ in range(draw(st.integers(0, 5))):
        log.append(state(len(log), draw(st.sampled_from([b"a", b"b"])), b"old%d" % len(log), 1))
    log.append(claim(len(log), 2, NEW))
    for _ in range(draw(st.integers(0, 8))):
        epoch = draw(st.sampled_from([1, 2]))
        if epoch == 1 and draw(st.booleans()):
            log.append(claim(len(log), 1))
        else:
            value = b"%s%d" % (b"stale" if epoch == 1 else b"new", len(log))
            log.append(state(len(log), draw(st.sampled_from([b"a", b"b"])), value, epoch))
    return log


@given(two_writers(), st.integers(0, 14))
def test_wherever_reading_is_cut_the_states_are_the_same(log: list[Written], cut: int) -> None:
    whole = sift(log, NO_CLAIM)
    first = sift(log[:cut], NO_CLAIM)
    second = sift(log[cut:], first.claim)
    assert first.states + second.states == whole.states
    assert not any(value and value.startswith(b"stale") for _, value in whole.states)
    assert whole.claim.worker == NEW
