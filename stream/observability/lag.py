"""Computes per topic how long records have been waiting, from what a worker knows without reading them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from faust.types import TP


class Lag:
    """The lag of a worker's partitions.

    A waiting record is younger than the newest finished record of its partition, and younger than the last check that
    found none waiting there. The oldest record of all partitions counts, so a partition that stands still shows, even
    if the others move.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = tuple(topics)
        self._empty: dict[TP, float] = {}  # last Unix time at which nothing was waiting

    def look(self, now: float, waiting: Mapping[TP, int], newest: Mapping[TP, int]) -> dict[str, tuple[int, float]]:
        """Return topic -> (waiting records, age in seconds of the oldest); 0.0 if its age is not known yet.

        Args:
            now: Unix time in seconds.
            waiting: Number of waiting records of each assigned partition.
            newest: Append time in epoch ms of the newest finished record of each partition.
        """
        self._empty = {tp: now if not records else self._empty.get(tp, 0.0) for tp, records in waiting.items()}
        lag = dict.fromkeys(self._topics, (0, 0.0))
        for tp, records in waiting.items():
            since = max(self._empty[tp], newest.get(tp, 0) / 1000) or now
            count, age = lag[tp.topic]
            lag[tp.topic] = count + records, max(age, now - since if records else 0.0)
        return lag
