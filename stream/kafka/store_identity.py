"""Notes inside a partition's folder which changelog it was read from, so that a foreign folder is never taken for ours.

Offsets and names are not enough: another cluster, or another app_id, has a changelog with the same offsets. Kafka's ids
are unique.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from stream.core.errors import LossError
from stream.core.unreadable import UNREADABLE
from stream.kafka.state_store import InterestStore

NOTE_KEY: Final = b"\xffchangelog"
"""No user has this key in any form (stream.core.keys)."""

log = logging.getLogger("freshet.folder")


class Changelog(msgspec.Struct, frozen=True):
    """Identifies the changelog that a folder was read from.

    Attributes:
        cluster: Kafka's id of the cluster, "" if it reports none.
        topic: The changelog's name.
        id: The topic's id.
        partition: In a note, which partition of the topic was read; -1 if an earlier version did not note it.
    """

    cluster: str
    topic: str
    id: str
    partition: int = -1


class FolderCheck:
    """Opens partitions of the store as `InterestStore.prepare` does.

    It empties a partition that holds records of another changelog, or of another partition of ours.

    Args:
        store: The table's partitions.
        ours: This worker's changelog.
        sources: Source topic -> its current id.
        damaged: Called for each partition that was damaged.
        lost: Called with the error if the changelog was recreated. It raises LossError, or returns if the loss is
            accepted.
    """

    def __init__(
        self,
        store: InterestStore,
        ours: Changelog,
        sources: Mapping[str, str],
        damaged: Callable[[], object],
        lost: Callable[[LossError], object],
    ) -> None:
        self._store = store
        self._ours = ours
        self._sources = dict(sources)
        self._damaged = damaged
        self._lost = lost

    def prepare(self, partition: int) -> int:
        """Open a partition, and return the offset of its last changelog record. Raises DiskError, LossError."""
        if not self._store.prepare(partition):
            self._damaged()
        if not self._ours.id:  # the broker reports no ids
            return self._store.offset(partition)
        noted, ours = self._noted(partition), msgspec.structs.replace(self._ours, partition=partition)
        if noted != ours:
            earlier = noted == self._ours or (noted is None and self._proven(partition))
            if not earlier:
                self._drop(partition, noted)
            self._store.write(partition, [(NOTE_KEY, msgspec.json.encode(ours))], -1)
        return self._store.offset(partition)

    def _noted(self, partition: int) -> Changelog | None:
        found = self._store.read(partition, [NOTE_KEY])[0]
        try:
            return None if found is None else msgspec.json.decode(found, type=Changelog)
        except UNREADABLE:  # not written by us, so we cannot use it
            return Changelog("?", "?", "?")

    def _proven(self, partition: int) -> bool:
        """Return whether a folder without a note is ours.

        It is if it is empty, or if its last claim has the current ids of the source topics.
        """
        claimed = self._store.claim(partition).topics
        return self._store.offset(partition) < 0 or (bool(claimed) and claimed == self._sources)

    def _drop(self, partition: int, noted: Changelog | None) -> None:
        ours = self._ours
        same = noted is not None and (noted.cluster, noted.topic) == (ours.cluster, ours.topic)
        if noted is not None and same and noted.id != ours.id:
            self._lost(
                LossError(
                    f"{ours.topic} was recreated: it has the id {ours.id}, the folder's partition {partition} was read from "
                    f"{noted.id}: states are gone; see --accept-loss"
                )
            )
        if noted is None:
            of = "an unnamed changelog"
        elif same and noted.id == ours.id:
            of = f"partition {noted.partition} of {noted.topic}"
        else:
            of = f"{noted.topic} (id {noted.id}) of cluster {noted.cluster}"
        log.error(
            "the folder holds records of %s, dropped and read back from the changelog",
            of,
            extra={"partition": partition},
        )
        self._store.drop(partition)
        self._store.prepare(partition)
