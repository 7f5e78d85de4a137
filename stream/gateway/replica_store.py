"""RocksDB of one replica, a database per partition: user's key -> state record, and how far the changelog was read.

It is a copy of the changelog. What does not fit (damage, another changelog, a log that was cut off) is deleted and read
back. The folder has a file MARK from its beginning. One without it belongs to somebody else, and nothing in it is touched.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import rocksdict

from stream.core import fencing_log
from stream.core.errors import DiskError, FreshetError, SettingsError
from stream.core.fencing_log import CLAIM_KEY, Claim, LogRecord, Sifted
from stream.core.unreadable import UNREADABLE
from stream.kafka.rocksdb_folder import is_damage, open_whole, remove, set_layout, take_folder

log = logging.getLogger("freshet.replica")

REACHED: Final = b"\xffreached-offset"
ORIGIN: Final = b"\xfforigin"
"""No user has these keys, in any form of a key (stream.core.keys): neither is UTF-8, and neither has 8 bytes or is
JSON."""

CACHE: Final = 64 << 20  # bytes of blocks, for all partitions
WRITE_BUFFER: Final = 8 << 20  # bytes per partition
MARK: Final = "FRESHET-REPLICA"
MARK_TEXT: Final = (
    "A copy of users' states, kept by `freshet serve`. The whole folder may be deleted while no gateway runs.\n"
)
DAMAGED: Final = ".damaged"  # suffix of a mark beside a partition's folder: delete the folder at the next start


class Origin(msgspec.Struct, frozen=True):
    """What a folder was read from. Kafka's ids are unique."""

    cluster: str
    topic: str
    id: str
    partition: int


class Reached(msgspec.Struct, frozen=True):
    """How far a partition was read.

    Attributes:
        offset: Of the last record; -1: none.
        epoch: The leader epoch in which that record was written; -1: unknown.
    """

    offset: int = -1
    epoch: int = -1


class ReplicaStore:
    """The partitions of one replica.

    Args:
        folder: The folder of all partitions.
        cluster: Kafka's id of the cluster.
        topic: The changelog.
        id: The changelog's topic id; "" if the broker reports none.
    """

    def __init__(self, folder: Path, cluster: str, topic: str, id: str) -> None:  # noqa: A002
        self._folder = folder
        self._cluster = cluster
        self._topic = topic
        self._id = id
        self._open: dict[int, Any] = {}
        self._claims: dict[int, Claim] = {}
        self._cache = rocksdict.Cache(CACHE)

    def open(self, partition: int) -> Reached:
        """Open a partition. Return how far it was read.

        Raises:
            DiskError: The folder cannot be made, read or written.
            SettingsError: It is in use, or is not a gateway's.
        """
        take_folder(self._folder, "replica_dir", "freshet serve", MARK, MARK_TEXT)
        path = self._path(partition)
        if self._mark(partition).exists():
            self.drop(partition)
        try:
            self._open[partition] = open_whole(path, self._options())
            found = self._reached(partition)
        except Exception as error:
            if "lock" in str(error).lower():
                raise SettingsError(
                    f"replica_dir: {self._folder} is in use by another `freshet serve`; set FRESHET_REPLICA_DIR to a folder of "
                    "its own"
                ) from None
            if not is_damage(error):
                self._fail(partition, error)
            log.error("damaged, read back from the changelog: %s", error, extra={"partition": partition})
            return self.begin_again(partition)
        origin = Origin(self._cluster, self._topic, self._id, partition)
        noted = self._noted(partition)
        if noted is not None and noted != origin:
            log.warning(
                "the folder was read from %s, dropped and read back", noted.topic, extra={"partition": partition}
            )
            return self.begin_again(partition)
        self._note(partition, origin)
        self._claims[partition] = fencing_log.decode(self._open[partition].get(CLAIM_KEY))
        return found

    def begin_again(self, partition: int) -> Reached:
        """Empty a partition: it is read back from the beginning of the changelog. Raises DiskError."""
        self.drop(partition)
        try:
            self._open[partition] = open_whole(self._path(partition), self._options())
        except Exception as error:
            self._fail(partition, error)
        self._note(partition, Origin(self._cluster, self._topic, self._id, partition))
        self._claims[partition] = fencing_log.NO_CLAIM
        return Reached()

    def read(self, partition: int, user: bytes) -> bytes | None:
        """Return a user's state record, None for an unknown user. Raises FreshetError, DiskError."""
        try:
            found: bytes | None = self._open[partition].get(user)
        except Exception as error:
            self._stop(partition, error)
        return found

    def claim(self, partition: int) -> Claim:
        """Return the claim in force, as far as the changelog was read."""
        return self._claims[partition]

    def apply(self, partition: int, records: Sequence[LogRecord], epoch: int) -> Sifted:
        """Write changelog records in order: only states that count (stream.core.fencing_log), and the offset reached.

        Args:
            partition: The partition.
            records: At least one record.
            epoch: The leader epoch of the last one; -1: unknown.
        Raises:
            FreshetError, DiskError: It cannot be written.
        """
        claim = self._claims[partition]
        sifted = fencing_log.sift(records, claim)
        batch = rocksdict.WriteBatch(raw_mode=True)
        for user, record in dict(sifted.states).items():
            if record is None:
                batch.delete(user)
            else:
                batch.put(user, record)
        if sifted.claim is not claim:
            batch.put(CLAIM_KEY, fencing_log.encode(sifted.claim))
        batch.put(REACHED, msgspec.json.encode(Reached(records[-1].offset, epoch)))
        try:
            self._open[partition].write(batch)
        except Exception as error:
            self._stop(partition, error)
        self._claims[partition] = sifted.claim
        return sifted

    def mark_damaged(self, partition: int) -> None:
        """Have the next start read the partition back."""
        self._mark(partition).touch()

    def drop(self, partition: int) -> None:
        """Delete a partition's folder. Raises DiskError, and SettingsError if it has files that are not RocksDB's."""
        database = self._open.pop(partition, None)
        if database is not None:
            with suppress(Exception):  # closing writes what is still in memory, which may fail because of damage
                database.close()
        remove(self._path(partition), "replica_dir")
        self._mark(partition).unlink(missing_ok=True)

    def close(self) -> None:
        """Close all partitions."""
        while self._open:
            _, database = self._open.popitem()
            with suppress(Exception):
                database.close()

    def _reached(self, partition: int) -> Reached:
        found = self._open[partition].get(REACHED)
        try:
            return Reached() if found is None else msgspec.json.decode(found, type=Reached)
        except UNREADABLE:
            return Reached()

    def _noted(self, partition: int) -> Origin | None:
        found = self._open[partition].get(ORIGIN)
        try:
            return None if found is None else msgspec.json.decode(found, type=Origin)
        except UNREADABLE:  # not written by us, so we cannot use it
            return Origin("?", "?", "?", -1)

    def _note(self, partition: int, origin: Origin) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.put(ORIGIN, msgspec.json.encode(origin))
        try:
            self._open[partition].write(batch)
        except Exception as error:
            self._stop(partition, error)

    def _options(self) -> Any:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER)
        options.set_max_open_files(256)
        options.set_keep_log_file_num(2)
        set_layout(options, self._cache)
        return options

    def _path(self, partition: int) -> Path:
        return self._folder / f"states-{partition}"

    def _mark(self, partition: int) -> Path:
        path = self._path(partition)
        return path.with_name(path.name + DAMAGED)

    def _stop(self, partition: int, error: Exception) -> NoReturn:
        if not is_damage(error):
            self._fail(partition, error)
        self.mark_damaged(partition)
        raise FreshetError(
            f"partition {partition} of the replica is damaged, the next start reads it back: {error}"
        ) from None

    def _fail(self, partition: int, error: Exception) -> NoReturn:
        raise DiskError(f"partition {partition} of the replica cannot be used: {error}") from None
