"""Which offsets validly hold no record: a transaction's markers, and what it aborted. Any other gap is a loss.

A source topic is never compacted, so its offsets have no gaps. aiokafka returns a record for each offset, or skips it
because its batch is a control batch or part of an aborted transaction; the batches themselves contain this information.
If no batch holds an offset, or it is missing within a batch, its record was removed: by compaction, or because someone
deleted a file of the log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from aiokafka.consumer.fetcher import Fetcher, FetchResult
from faust.types import TP

from stream.kafka.lenient_records import Batch


class Passed:
    """Collects what a fetcher validly skips in the partitions of `topics`."""

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = topics
        self._known: dict[TP, dict[int, int]] = {}  # first offset of a batch -> the offset after it

    def watch(self, fetcher: Fetcher) -> None:
        """Watch a fetcher. Call this before anything is assigned."""
        fetcher._records = _Results(self)

    def watches(self, topic: str) -> bool:
        return topic in self._topics

    def note(self, tp: TP, batch: Batch) -> None:
        """Note a batch that the fetcher reads. If its transaction is not aborted, its records are read anyway."""
        if batch.is_control_batch or (batch.is_transactional and batch.whole):
            self._known.setdefault(tp, {})[batch.base_offset] = batch.next_offset

    def missing(self, tp: TP, first: int, end: int, read: Sequence[int]) -> list[range]:
        """Return the offsets from `first` to before `end` that were neither read nor validly skipped.

        What was noted below `end` is forgotten. `read` is ascending, and all its offsets are in that range.
        """
        known = self._known.pop(tp, {})
        later = {base: behind for base, behind in known.items() if behind > end}
        if later:
            self._known[tp] = later
        right = _joined(sorted(known.items()))
        return list(_without(_holes(first, end, read), right))

    def forget(self) -> None:
        self._known.clear()


class _Results(OrderedDict[Any, Any]):
    """Replaces the fetcher's own dict of what was fetched and not yet read."""

    def __init__(self, passed: Passed) -> None:
        super().__init__()
        self._passed = passed

    def __setitem__(self, key: Any, result: Any) -> None:
        super().__setitem__(key, result)
        if isinstance(result, FetchResult) and self._passed.watches(key.topic):
            result._partition_records._records.on_batch = partial(self._passed.note, TP(*key))


def _holes(first: int, end: int, read: Iterable[int]) -> Iterator[range]:
    for offset in read:
        if offset > first:
            yield range(first, offset)
        first = offset + 1
    if first < end:
        yield range(first, end)


def _without(holes: Iterable[range], right: Sequence[tuple[int, int]]) -> Iterator[range]:
    """Yield the holes minus what was validly skipped.

    Both are ascending, and each is visited once, because a fetch may have thousands of both.
    """
    at = 0
    for hole in holes:
        first = hole.start
        while at < len(right) and right[at][1] <= first:
            at += 1
        number = at  # a batch that extends beyond this hole may extend into the next
        while number < len(right) and right[number][0] < hole.stop:
            base, behind = right[number]
            if base > first:
                yield range(first, base)
            first = max(first, behind)
            number += 1
        at = max(at, number - 1)
        if first < hole.stop:
            yield range(first, hole.stop)


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ascending spans, with those that touch or overlap merged into one."""
    joined: list[tuple[int, int]] = []
    for base, behind in spans:
        if joined and base <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], behind)
        else:
            joined.append((base, behind))
    return joined
