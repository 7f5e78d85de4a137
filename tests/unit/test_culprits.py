"""An event that the model fails on is found and left out; nobody else's is."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress

import pytest

from stream.core.errors import FreshetError
from stream.core.fold import Turn, take_in
from stream.core.messages import SourceEvent
from stream.pipeline.poison import Culprit, advance_or_part

TOPICS = ("clicks", "ratings", "comments")
MODEL = b"m" * 16


def event(user: bytes, offset: int, item: str) -> SourceEvent:
    return SourceEvent(0, 0, offset, 1000 + offset, user, item, offset, float("nan"), "", "", "", b"{}")


def turn(user: bytes, *items: str) -> Turn:
    events = [event(user, offset, item) for offset, item in enumerate(items)]
    return take_in(user, 0, None, events, TOPICS, MODEL, 4)


def again(turn: Turn, without: Collection[SourceEvent]) -> Turn:
    return take_in(turn.user, 0, None, turn.events, TOPICS, MODEL, 4, without)


def run(
    turns: Sequence[Turn],
    fails: Collection[str],
    flaky: int = 0,
    broken: bool = False,
    error: Exception = ValueError("no"),  # noqa: B008
) -> tuple[list[Turn], list[Culprit]]:
    """flaky: so many model calls fail, whatever they are of; broken: all do."""
    left = [flaky]

    async def advance(some: Sequence[Turn]) -> int:
        inputs = [one for turn in some for one in turn.inputs]
        left[0] -= bool(inputs)  # without any there is no model call
        if inputs and (broken or left[0] >= 0 or any(one.item in fails for one in inputs)):
            raise error
        return 0

    done, _, culprits = asyncio.run(advance_or_part(turns, advance, again))
    return done, culprits


def test_nobody_is_blamed_for_a_call_that_passes_the_second_time() -> None:
    done, culprits = run([turn(b"a", "x"), turn(b"b", "y")], (), flaky=1)
    assert not culprits
    assert [len(turn.folded) for turn in done] == [1, 1]


@pytest.mark.parametrize("users", [1, 2, 3, 7, 16])
def test_the_culprit_alone_is_left_out(users: int) -> None:
    turns = [turn(b"u%d" % number, "x", "bad" if number == users // 2 else "y", "z") for number in range(users)]
    done, culprits = run(turns, {"bad"})
    assert [culprit.offset for culprit, _ in culprits] == [1]
    assert sorted(len(turn.folded) for turn in done) == [2] + [3] * (users - 1)
    guilty = next(turn for turn in done if turn.refused)
    assert guilty.state.fence[0] == 2
    assert guilty.state.seq == 2
    assert guilty.changed


def test_several_culprits_of_one_user() -> None:
    done, culprits = run([turn(b"a", "bad", "x", "worse")], {"bad", "worse"})
    assert [culprit.offset for culprit, _ in culprits] == [0, 2]
    assert [one.item for one in done[0].folded] == ["x"]


def test_a_user_with_nothing_but_a_culprit_keeps_a_fence() -> None:
    done, culprits = run([turn(b"a", "bad")], {"bad"})
    assert len(culprits) == 1
    assert (done[0].state.seq, done[0].state.fence[0], done[0].changed) == (0, 0, True)


def test_where_nothing_passes_the_model_is_at_fault() -> None:
    with pytest.raises(FreshetError, match="fails on every event"):
        run([turn(b"a", "x"), turn(b"b", "y")], (), broken=True)


@pytest.mark.parametrize("users", [1, 4, 128])
def test_an_error_that_passes_makes_nobody_a_culprit(users: int) -> None:
    """Whatever the number of calls that fail before it has passed; the worker may stop, and reads them again."""
    for flaky in range(1, 401):
        turns = [turn(b"u%d" % number, "x") for number in range(users)]
        with suppress(FreshetError):
            _, culprits = run(turns, (), flaky=flaky)
            assert not culprits, flaky


def test_an_error_that_passes_hides_no_culprit_and_accuses_nobody_beside_it() -> None:
    for flaky in range(1, 60):
        turns = [turn(b"u%d" % number, "x", "bad" if number == 3 else "y") for number in range(8)]
        with suppress(FreshetError):
            _, culprits = run(turns, {"bad"}, flaky=flaky)
            assert [(culprit.user, culprit.offset) for culprit, _ in culprits] == [(b"u3", 1)], flaky


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
        run([turn(b"a", "x"), turn(b"b", "big")], {"big"}, error=error)
    assert raised.value.exit_code == 70
    assert str(raised.value).startswith(("out of memory", "the GPU is out of memory", "the accelerator fails"))
