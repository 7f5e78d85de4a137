"""How far each assigned source partition is fetched, handed over and finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from faust.types import TP


class SourcePositions:
    """Offsets of the source partitions that were taken over in the current assignment.

    Attributes:
        next: The next offset that we expect from the broker.
        handed: The offset after the last record handed over; at first the start offset.
        safe: Everything below it is finished.
    """

    def __init__(self) -> None:
        self.next: dict[TP, int] = {}
        self.handed: dict[TP, int] = {}
        self.safe: dict[TP, int] = {}

    def begin(self, offsets: Mapping[TP, int]) -> None:
        """Begin to read partitions at these offsets."""
        for known in (self.next, self.handed, self.safe):
            known.update(offsets)

    def forget(self) -> None:
        for known in (self.next, self.handed, self.safe):
            known.clear()

    def finished(self, tp: TP) -> int:
        """Return the offset below which everything is finished.

        If all records that were handed over are finished, the markers after them are finished, too.
        """
        safe = self.safe[tp]
        return self.next[tp] if safe >= self.handed[tp] else safe

    def lag(self, stable: Callable[[TP], int | None]) -> dict[TP, int]:
        """Return how many readable records of each partition are not finished, as far as the broker reported.

        Args:
            stable: Partition -> the end of its readable records, None before the broker has reported it.
        """
        return {tp: max(0, (stable(tp) or 0) - self.finished(tp)) for tp in self.safe}

    def undecided(
        self, topics: Iterable[str], stable: Callable[[TP], int | None], end: Callable[[TP], int | None]
    ) -> dict[str, int]:
        """Return, by topic, how many records are unreadable until an open transaction ends.

        These are its own records and all records after its first one.

        Args:
            topics: The source topics.
            stable: As in `lag`.
            end: Partition -> the end of its log, None before the broker has reported it.
        """
        found = dict.fromkeys(topics, 0)
        for tp in self.safe:
            readable = stable(tp)
            if readable is not None:
                found[tp.topic] += max(0, (end(tp) or 0) - readable)
        return found
