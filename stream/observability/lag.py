"""How long records have been waiting, by topic, from what a worker knows without reading them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from faust.types import TP


class Lag:
    """A waiting record is younger than the newest finished one of its partition, and younger than the last look that saw
    none waiting there. The oldest of all partitions counts, so that one that stands still is seen beside one that does not.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = tuple(topics)
        self._empty: dict[TP, float] = {}  # Unix time at which nothing was waiting

    def look(self, now: float, waiting: Mapping[TP, int], newest: Mapping[TP, int]) -> dict[str, tuple[int, float]]:
        """Topic -> (records waiting, age in seconds of the oldest); 0.0 where nothing is known of it yet.

        now: Unix time in seconds; waiting: records of each assigned partition; newest: append time in epoch ms of the newest
        record finished there.
        """
        self._empty = {tp: now if not records else self._empty.get(tp, 0.0) for tp, records in waiting.items()}
        lag = dict.fromkeys(self._topics, (0, 0.0))
        for tp, records in waiting.items():
            since = max(self._empty[tp], newest.get(tp, 0) / 1000) or now
            count, age = lag[tp.topic]
            lag[tp.topic] = count + records, max(age, now - since if records else 0.0)
        return lag
