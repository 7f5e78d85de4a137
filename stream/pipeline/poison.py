"""Finding the event that a model call fails on, so that one record cannot stop a partition for good.

A call that fails is made once more, then by halves of its users, then event by event. An event is a culprit only where the
call passes without it, then the plainest call passes, and then it fails with the event once more. An error that passes, or of a
machine that lacks memory, is nobody's fault: the worker stops, and the events are read again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from stream.core.errors import FreshetError
from stream.core.fold import StepInput, Turn
from stream.core.messages import CLICK, SourceEvent
from stream.core.state import NO_TIME
from stream.inference.machine_errors import machine_fails

log = logging.getLogger("freshet.culprits")

PLAIN: Final = StepInput("", CLICK, "", "", math.nan, NO_TIME, None)
Culprit = tuple[SourceEvent, Exception]
Advance = Callable[[Sequence[Turn]], Awaitable[int]]
TakenAgain = Callable[[Turn, Collection[SourceEvent]], Turn]


@dataclass(slots=True)
class Kept:
    """A record that came in an earlier micro-batch, as it was received."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any

    @classmethod
    def of(cls, event: SourceEvent) -> Kept:
        return cls(event.offset, event.append_ms, event.user, event.payload, event.headers)


async def advance_or_part(
    turns: Sequence[Turn], advance: Advance, taken_again: TakenAgain
) -> tuple[list[Turn], int, list[Culprit]]:
    """Advance all turns, without the events that the model fails on.

    advance: raises where the model fails, and leaves its turns as they were; taken_again: a turn without some of its events.
    Returns the turns (those with a culprit taken in again), how many inputs were of unknown items, and the culprits.
    Raises FreshetError as `advance` does, where it fails now and then, and where it passes for nobody.
    """

    async def judged(some: Sequence[Turn]) -> int:
        try:
            return await advance(some)
        except Exception as error:
            if short := machine_fails(error):
                raise FreshetError(short) from error
            raise

    try:
        return list(turns), await judged(turns), []
    except FreshetError:
        raise
    except Exception as error:
        log.warning("a model call failed, once more: %s", error)
    return await _part(turns, judged, taken_again)


async def _part(
    turns: Sequence[Turn], advance: Advance, taken_again: TakenAgain
) -> tuple[list[Turn], int, list[Culprit]]:
    try:
        return list(turns), await advance(turns), []
    except FreshetError:
        raise
    except Exception as error:
        if len(turns) == 1:
            return await _without(turns[0], error, advance, taken_again)
    half = len(turns) // 2
    first, second = [await _part(part, advance, taken_again) for part in (turns[:half], turns[half:])]
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


async def _without(
    turn: Turn, error: Exception, advance: Advance, taken_again: TakenAgain
) -> tuple[list[Turn], int, list[Culprit]]:
    """One user's turn that fails: leave its culprits out, the first one first."""
    culprits: list[Culprit] = []
    while True:
        found = await _first_culprit(turn, advance, taken_again)
        if found is None:
            return [turn], await advance([turn]), culprits
        culprits.append(found)
        turn = taken_again(turn, [event for event, _ in culprits])


async def _first_culprit(turn: Turn, advance: Advance, taken_again: TakenAgain) -> Culprit | None:
    """The last event of the shortest run of the turn's inputs that fails; None where all pass. Leaves the turn as it was.

    Raises FreshetError where a state that is read again (its inputs come before those of the events) fails by itself, and where
    nothing is proven against the event.
    """
    h, c = turn.state.h, turn.state.c
    before = len(turn.inputs) - len(turn.folded)
    for count in range(before, len(turn.inputs) + 1):
        try:
            await advance([replace(turn, inputs=turn.inputs[:count])])
        except FreshetError:
            raise
        except Exception as error:
            if count == before:
                raise FreshetError(f"the step model fails on a stored state, without any event: {error}") from error
            turn.state.h, turn.state.c = h, c
            await _control(turn, advance, taken_again)
            await _once_more(replace(turn, inputs=turn.inputs[:count]), advance, error)
            return turn.folded[count - before - 1], error
        finally:
            turn.state.h, turn.state.c = h, c
    return None


async def _once_more(turn: Turn, advance: Advance, before: Exception) -> None:
    """Raises FreshetError where the model does not fail on the turn again: an error that comes and goes proves nothing."""
    try:
        await advance([turn])
    except FreshetError:
        raise
    except Exception:
        return
    raise FreshetError(f"the step model fails now and then, on no event in particular: {before}") from before


async def _control(turn: Turn, advance: Advance, taken_again: TakenAgain) -> None:
    """Raises FreshetError where the model fails on the plainest input, too: then no event is proven to be at fault."""
    try:
        await advance([replace(taken_again(turn, turn.events), inputs=[PLAIN])])
    except FreshetError:
        raise
    except Exception as error:
        raise FreshetError(f"the step model fails on every event: {error}") from error
