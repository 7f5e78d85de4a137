"""Finds the event that a model call fails on, so that one record cannot block a partition forever.

A call that fails is repeated once, then with halves of its users, then event by event. An event is poison only if the
call succeeds without it, the plainest call then succeeds, and the call with the event then fails again. If an error
does not repeat, or the machine lacks memory, no event is at fault: the worker stops, and the events are read again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from stream.core.errors import FreshetError
from stream.core.fold import StepInput, UserBatch
from stream.core.messages import CLICK, SourceEvent
from stream.core.state import NO_TIME
from stream.inference.machine_errors import machine_fails

log = logging.getLogger("freshet.poison")

PLAIN: Final = StepInput("", CLICK, "", "", math.nan, NO_TIME, None)
PoisonEvent = tuple[SourceEvent, Exception]
Advance = Callable[[Sequence[UserBatch]], Awaitable[int]]
AppliedAgain = Callable[[UserBatch, Collection[SourceEvent]], UserBatch]


@dataclass(slots=True)
class BufferedRecord:
    """A record of an earlier micro-batch, as received."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any

    @classmethod
    def of(cls, event: SourceEvent) -> BufferedRecord:
        return cls(event.offset, event.append_ms, event.user, event.payload, event.headers)


async def advance_isolating(
    user_batches: Sequence[UserBatch], advance: Advance, applied_again: AppliedAgain
) -> tuple[list[UserBatch], int, list[PoisonEvent]]:
    """Advance all user batches, without the events that the model fails on.

    Args:
        user_batches: The batches.
        advance: Raises if the model fails, and then leaves its batches unchanged.
        applied_again: Returns a batch without some of its events.
    Returns:
        The batches (those with a poison event applied again without it), how many inputs were of unknown items, and the
        poison events.
    Raises:
        FreshetError: Raised by `advance`; or the model fails intermittently, or on every event.
    """

    async def judged(some: Sequence[UserBatch]) -> int:
        try:
            return await advance(some)
        except Exception as error:
            if short := machine_fails(error):
                raise FreshetError(short) from error
            raise

    try:
        return list(user_batches), await judged(user_batches), []
    except FreshetError:
        raise
    except Exception as error:
        log.warning("a model call failed and is repeated: %s", error)
    return await _part(user_batches, judged, applied_again)


async def _part(
    user_batches: Sequence[UserBatch], advance: Advance, applied_again: AppliedAgain
) -> tuple[list[UserBatch], int, list[PoisonEvent]]:
    try:
        return list(user_batches), await advance(user_batches), []
    except FreshetError:
        raise
    except Exception as error:
        if len(user_batches) == 1:
            return await _without(user_batches[0], error, advance, applied_again)
    half = len(user_batches) // 2
    first, second = [await _part(part, advance, applied_again) for part in (user_batches[:half], user_batches[half:])]
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


async def _without(
    user_batch: UserBatch, error: Exception, advance: Advance, applied_again: AppliedAgain
) -> tuple[list[UserBatch], int, list[PoisonEvent]]:
    """Leave the poison events out of one user's failing batch, in order."""
    poison_events: list[PoisonEvent] = []
    while True:
        found = await _first_poison(user_batch, advance, applied_again)
        if found is None:
            return [user_batch], await advance([user_batch]), poison_events
        poison_events.append(found)
        user_batch = applied_again(user_batch, [event for event, _ in poison_events])


async def _first_poison(user_batch: UserBatch, advance: Advance, applied_again: AppliedAgain) -> PoisonEvent | None:
    """Return the last event of the shortest run of the batch's inputs that fails; None if all succeed.

    It leaves the batch unchanged. Raises FreshetError if the inputs of a state's stored events, which come first when
    they are folded again, fail without any new event, and if the event is not proven to be at fault.
    """
    h, c = user_batch.state.h, user_batch.state.c
    before = len(user_batch.inputs) - len(user_batch.folded)
    for count in range(before, len(user_batch.inputs) + 1):
        try:
            await advance([replace(user_batch, inputs=user_batch.inputs[:count])])
        except FreshetError:
            raise
        except Exception as error:
            if count == before:
                raise FreshetError(f"the step model fails on a stored state without any event: {error}") from error
            user_batch.state.h, user_batch.state.c = h, c
            await _control(user_batch, advance, applied_again)
            await _once_more(replace(user_batch, inputs=user_batch.inputs[:count]), advance, error)
            return user_batch.folded[count - before - 1], error
        finally:
            user_batch.state.h, user_batch.state.c = h, c
    return None


async def _once_more(user_batch: UserBatch, advance: Advance, before: Exception) -> None:
    """Raise FreshetError if the model does not fail on the batch again: an intermittent error proves nothing."""
    try:
        await advance([user_batch])
    except FreshetError:
        raise
    except Exception:
        return
    raise FreshetError(f"the step model fails intermittently, on no event in particular: {before}") from before


async def _control(user_batch: UserBatch, advance: Advance, applied_again: AppliedAgain) -> None:
    """Raise FreshetError if the model also fails on the plainest input: then no event is proven to be at fault."""
    try:
        await advance([replace(applied_again(user_batch, user_batch.events), inputs=[PLAIN])])
    except FreshetError:
        raise
    except Exception as error:
        raise FreshetError(f"the step model fails on every event: {error}") from error
