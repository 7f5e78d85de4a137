"""Which changelog the folder of a partition was read from, noted inside it: a folder of elsewhere is never taken for ours.

Offsets and names tell nothing: another cluster, or another app_id, has a changelog with the same offsets. Kafka's ids do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from stream.core.errors import LossError
from stream.kafka.state_store import InterestStore

NOTE_KEY: Final = b"\xffchangelog"
"""No user has it in any form of a key (stream.core.keys)."""

log = logging.getLogger("freshet.folder")


class Changelog(msgspec.Struct, frozen=True):
    """cluster: Kafka's id of it, "" where it tells none; topic: the changelog's name; id: the topic's id; partition: of a note,
    which one of that topic was read, -1 where an earlier version has not said it."""

    cluster: str
    topic: str
    id: str
    partition: int = -1


class FolderCheck:
    """Opens partitions of the store as `InterestStore.prepare` does, empty where they hold records of another changelog, or of
    another partition of ours.

    sources: source topic -> its id, as it is now. damaged: called for each partition that was damaged.
    lost: called with what is lost where the changelog was recreated; raises LossError, or returns where that is accepted.
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
        """Open a partition -> the offset of the last changelog record that it holds. Raises DiskError, LossError."""
        if not self._store.prepare(partition):
            self._damaged()
        if not self._ours.id:  # a broker that does not tell ids
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
        except msgspec.MsgspecError:  # not written by us: nothing that we could take
            return Changelog("?", "?", "?")

    def _proven(self, partition: int) -> bool:
        """A folder without a note: it is empty, or its last claim names the source topics by the ids that they have now."""
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
            of = "a changelog that it does not name"
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
