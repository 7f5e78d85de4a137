"""Lost records: the errors that name them, and the setting by which a worker goes on without them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from faust.types import TP

from stream.core.errors import LossError

log = logging.getLogger("freshet.consumer")


class Losses:
    """Decides whether a loss ends the worker.

    Args:
        accept: The setting `accept_loss`.
        on_accepted: Called with the number of records of each accepted loss, at least 1.
    """

    def __init__(self, accept: bool, on_accepted: Callable[[int], object]) -> None:
        self._accept = accept
        self._on_accepted = on_accepted

    def lose(self, error: LossError, records: int = 0) -> None:
        """Raise `error`, or log it and return if losses are accepted; `records` is how many are lost, 0 if unknown."""
        if not self._accept:
            raise error
        log.error("%s: going on, since accept_loss is set", error)
        self._on_accepted(max(1, records))  # if the number is unknown, there is still something to alert on


def records_gone(tp: TP, offset: int, log: range) -> LossError:
    """Return the error for an `offset` that a source partition's log no longer contains, or whose log was replaced."""
    if offset < log.start:
        what = f"source records are gone: {offset} to {log.start - 1}"
    elif offset > log.stop:
        what = f"source records are gone: beyond the log's end {log.stop}, read up to {offset}"
    else:
        what = f"the log was cut off before {offset} and has grown to {log.stop} since"
    return LossError(f"{tp.topic} partition {tp.partition}: {what}; see --accept-loss")


def holes_found(tp: TP, holes: Sequence[range]) -> LossError:
    """Return the error for offsets of a source partition that hold no record although others around them do."""
    which = f"{holes[0].start} to {holes[-1].stop - 1}" + (
        f", {sum(map(len, holes))} of them," if len(holes) > 1 else ""
    )
    return LossError(
        f"{tp.topic} partition {tp.partition}: source records {which} are gone, but others around them are not: "
        "was the topic compacted? See --accept-loss"
    )


def offset_gone(tp: TP, log: range) -> LossError:
    """Return the error for a missing committed offset. The changelog has a claim, so an offset was committed once."""
    return LossError(
        f"{tp.topic} partition {tp.partition}: the group's offsets are gone (expired, or the group was deleted), and so are the "
        f"records before {log.start}, which may never have been read; see --accept-loss"
    )


def states_gone(tp: TP, last: int, log: range) -> LossError:
    """Return the error for a changelog partition that was read up to `last` and no longer continues from there."""
    if last + 1 < log.start:
        what = f"records {last + 1} to {log.start - 1} are gone, and with them states"
    else:
        what = f"it ends at {log.stop}, but was read up to {last}: was it recreated?"
    return LossError(f"{tp.topic} partition {tp.partition}: {what}; see --accept-loss")


def changelog_empty(changelog: TP, source: TP, offset: int) -> LossError:
    """Return the error for an empty changelog partition, though `offset` of its source partition is committed."""
    return LossError(
        f"{changelog.topic} partition {changelog.partition} is empty, though {source.topic} is committed up to {offset}: "
        "the states are gone; see --accept-loss"
    )
