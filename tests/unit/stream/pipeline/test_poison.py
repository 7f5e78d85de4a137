"""An event that the model fails on is found and left out; nobody else's is."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress

import pytest

from stream.core.errors import FreshetError
from stream.core.fold import UserBatch, apply_events
from stream.core.messages import SourceEvent
from stream.pipeline.poison import PoisonEvent, advance_isolating

TOPICS = ("clicks", "ratings", "comments")
MODEL = b"m" * 16


def event(user: bytes, offset: int, item: str) -> SourceEvent:
    return SourceEvent(0, 0, offset, 1000 + offset, user, item, offset, float("nan"), "", "", "", b"{}")


def batch(user: bytes, *items: str) -> UserBatch:
    events = [event(user, offset, item) for offset, item in enumerate(items)]
    return apply_events(user, 0, None, events, TOPICS, MODEL, 4)


def again(batch: UserBatch, without: Collection[SourceEvent]) -> UserBatch:
    return apply_events(batch.user, 0, None, batch.events, TOPICS, MODEL, 4, without)


def run(
    batches: Sequence[UserBatch],
    fails: Collection[str],
    flaky: int = 0,
    broken: bool = False,
    error: Exception = ValueError("no"),  # noqa: B008
) -> tuple[list[UserBatch], list[PoisonEvent]]:
    """flaky: so many model calls fail, whatever they are of; broken: all do."""
    left = [flaky]

    async def advance(some: Sequence[UserBatch]) -> int:
        inputs = [one for batch in some for one in batch.inputs]
        left[0] -= bool(inputs)  # without any there is no model call
        if inputs and (broken or left[0] >= 0 or any(one.item in fails for one in inputs)):
            raise error
        return 0

    done, _, poison_events = asyncio.run(advance_isolating(batches, advance, again))
    return done, poison_events


def test_nobody_is_blamed_for_a_call_that_passes_the_second_time() -> None:
    done, poison_events = run([batch(b"a", "x"), batch(b"b", "y")], (), flaky=1)
    assert not poison_events
    assert [len(batch.folded) for batch in done] == [1, 1]


@pytest.mark.parametrize("users", [1, 2, 3, 7, 16])
def test_the_poison_event_alone_is_left_out(users: int) -> None:
    batches = [batch(b"u%d" % number, "x", "bad" if number == users // 2 else "y", "z") for number in range(users)]
    done, poison_events = run(batches, {"bad"})
    assert [poison.offset for poison, _ in poison_events] == [1]
    assert sorted(len(batch.folded) for batch in done) == [2] + [3] * (users - 1)
    guilty = next(batch for batch in done if batch.refused)
    assert guilty.state.applied[0] == 2
    assert guilty.state.seq == 2
    assert guilty.changed


def test_several_poison_events_of_one_user() -> None:
    done, poison_events = run([batch(b"a", "bad", "x", "worse")], {"bad", "worse"})
    assert [poison.offset for poison, _ in poison_events] == [0, 2]
    assert [one.item for one in done[0].folded] == ["x"]


def test_a_user_with_nothing_but_a_poison_event_moves_applied() -> None:
    done, poison_events = run([batch(b"a", "bad")], {"bad"})
    assert len(poison_events) == 1
    assert (done[0].state.seq, done[0].state.applied[0], done[0].changed) == (0, 0, True)


def test_where_nothing_passes_the_model_is_at_fault() -> None:
    with pytest.raises(FreshetError, match="fails on every event"):
        run([batch(b"a", "x"), batch(b"b", "y")], (), broken=True)


@pytest.mark.parametrize("users", [1, 4, 128])
def test_an_error_that_passes_makes_no_event_poison(users: int) -> None:
    """Whatever the number of calls that fail before it has passed; the worker may stop, and reads them again."""
    for flaky in range(1, 401):
        batches = [batch(b"u%d" % number, "x") for number in range(users)]
        with suppress(FreshetError):
            _, poison_events = run(batches, (), flaky=flaky)
            assert not poison_events, flaky


def test_an_error_that_passes_hides_no_poison_event_and_accuses_nobody_beside_it() -> None:
    for flaky in range(1, 60):
        batches = [batch(b"u%d" % number, "x", "bad" if number == 3 else "y") for number in range(8)]
        with suppress(FreshetError):
            _, poison_events = run(batches, {"bad"}, flaky=flaky)
            assert [(poison.user, poison.offset) for poison, _ in poison_events] == [(b"u3", 1)], flaky


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 6400000000"),
        RuntimeError("[ONNXRuntimeError] : 1 : Non-zero status code. bad allocation"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA failure 2: out of memory ; GPU=0"),
        RuntimeError("CUDA failure 700: an illegal memory access was encountered"),
        RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDNN failure 4000: CUDNN_STATUS_INTERNAL_ERROR"),
    ],
)
def test_what_the_machine_lacks_is_nobodys_fault(error: Exception) -> None:
    """Not even where it comes with one event alone."""
    with pytest.raises(FreshetError) as raised:
        run([batch(b"a", "x"), batch(b"b", "big")], {"big"}, error=error)
    assert raised.value.exit_code == 70
    assert str(raised.value).startswith(("out of memory", "the GPU is out of memory", "the accelerator fails"))
