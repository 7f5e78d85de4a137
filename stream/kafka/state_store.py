"""RocksDB behind Faust's table, by partition: multi-get, one WriteBatch per micro-batch, bulk recovery.

Faust's own table writes take their partition from the current event, which does not exist in a batch, and they write
RocksDB before the changelog. Here the caller names the partition, and the changelog has been acknowledged before.

The folder is a cache of the changelog. What RocksDB reports as damaged is deleted and read back, and never mistaken for
new users.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import faust
import rocksdict

from stream.core import fencing_log
from stream.core.errors import DiskError, FreshetError, InternalError
from stream.core.fencing_log import CLAIM_KEY, Claim, LeftOut, LogRecord
from stream.core.state import is_empty
from stream.kafka.rocksdb_folder import is_damage, open_whole, remove, set_layout
from stream.kafka.user_notes import EMPTY, EXPOSED, Notes

log = logging.getLogger("freshet.store")

Result = TypeVar("Result")

ROCKSDB_OPTIONS = {
    "driver": "rocksdict",
    "block_cache_size": 32 << 20,  # bytes per partition; Faust's default is 2 GiB
    "write_buffer_size": 16 << 20,
    "bloom_filter_size": 10,
}


def interest_table(app: faust.App, partitions: int) -> faust.Table:
    """Create the table `interest`: user id -> state record, both raw bytes."""
    return app.Table(
        "interest",
        key_type=bytes,
        value_type=bytes,
        partitions=partitions,
        options=dict(ROCKSDB_OPTIONS),
        help="RocksDB: user id -> interest state record (stream.core.state), durable in the changelog",
    )


DAMAGED = ".damaged"  # suffix of a mark next to a partition's folder: delete the folder at the next start


class InterestStore:
    """Reads and writes the table's partitions that are assigned to this worker."""

    def __init__(self, table: faust.Table) -> None:
        self._table = table

    @property
    def changelog_topic(self) -> str:
        return str(self._table.changelog_topic_name)

    def partitions(self) -> list[int]:
        """Return the partitions that are open here."""
        return sorted(self._table.data._dbs)

    def prepare(self, partition: int) -> bool:
        """Open a partition before its recovery. Return False if it was damaged and is empty now. Raises DiskError."""
        path = self._path(partition)
        mark = path.with_name(path.name + DAMAGED)
        sound = not mark.exists()
        if not sound:
            self.drop(partition)
        try:
            self._open_whole(partition)
        except Exception as error:
            if not is_damage(error):
                _fail(partition, error)
            log.error("damaged, read back from the changelog: %s", error, extra={"partition": partition})
            self.drop(partition)
            self._open_again(partition)
            return False
        return sound

    def _open_again(self, partition: int) -> None:
        try:
            self._open_whole(partition)
        except Exception as error:
            _fail(partition, error)

    def _open_whole(self, partition: int) -> None:
        store = self._table.data
        if partition not in store._dbs:
            options = store.rocksdb_options.as_options()
            set_layout(options, rocksdict.Cache(store.rocksdb_options.block_cache_size))
            store._dbs[partition] = open_whole(self._path(partition), options)

    def drop(self, partition: int) -> None:
        """Delete a partition's folder. The partition is then read back from the changelog.

        Raises DiskError, and SettingsError if it has files that are not RocksDB's.
        """
        path = self._path(partition)
        database = self._table.data._dbs.pop(partition, None)
        if database is not None:
            with suppress(Exception):  # closing writes what is still in memory, which may fail because of damage
                database.close()
        remove(path, "data_dir")
        path.with_name(path.name + DAMAGED).unlink(missing_ok=True)

    def read(self, partition: int, users: Sequence[bytes]) -> list[bytes | None]:
        """Return the state records of `users`, None for unknown ones.

        Raises FreshetError if the partition is not open here, or is damaged; the next start reads a damaged one back.
        """
        try:
            found: list[bytes | None] = self._open(partition).get(list(users))
        except FreshetError:
            raise
        except Exception as error:
            self._stop(partition, error)
        return found

    def write(
        self,
        partition: int,
        records: Iterable[tuple[bytes, bytes | None]],
        changelog_offset: int,
        *,
        claim: Claim | None = None,
        exposed_users: Iterable[bytes] = (),
        settled_users: Sequence[bytes] = (),
    ) -> None:
        """Write one atomic WriteBatch.

        Args:
            partition: The partition.
            records: User id and state record of each state to write; None deletes the user's.
            changelog_offset: The changelog offset that the records reach; below 0 if unknown, then it is not written.
            claim: The claim in force in the partition, if it has changed.
            exposed_users: Users to note (see stream.kafka.user_notes).
            settled_users: Users whose note is deleted.
        Raises:
            DiskError: The disk cannot be written.
            FreshetError: As in `read`.
        """
        store = self._table.data
        batch = rocksdict.WriteBatch(raw_mode=True)
        database = self._open(partition)
        _put(batch, dict(records), database)
        if claim is not None:
            batch.put(CLAIM_KEY, fencing_log.encode(claim))
        EXPOSED.add(batch, exposed_users)
        EXPOSED.remove(batch, database, settled_users)
        if changelog_offset >= 0:
            batch.put(store.offset_key, b"%d" % changelog_offset)
        self._commit(partition, batch)

    def offset(self, partition: int) -> int:
        """Return the offset of the last changelog record that is in RocksDB; -1 if there is none."""
        found = self.read(partition, [self._table.data.offset_key])[0]
        return -1 if found is None else int(found)

    def claim(self, partition: int) -> Claim:
        """Return the claim in force, as far as the changelog was read."""
        return fencing_log.decode(self.read(partition, [CLAIM_KEY])[0])

    def apply(self, partition: int, records: Sequence[LogRecord]) -> LeftOut:
        """Write changelog records to RocksDB in order, and return how many were left out."""
        batch, left_out = _batch(partition, records, self._open(partition))
        batch.put(self._table.data.offset_key, b"%d" % records[-1].offset)
        self._commit(partition, batch)
        return left_out

    def exposed(self, partition: int, count: int) -> list[bytes]:
        """Return at most the first `count` users whose last changelog record is fenced (stream.kafka.user_notes)."""
        return self._noted(EXPOSED, partition, count)

    def empty(self, partition: int, count: int) -> list[bytes]:
        """Return at most the first `count` users whose state shows no event (stream.kafka.user_notes)."""
        return self._noted(EMPTY, partition, count)

    def _noted(self, notes: Notes, partition: int, count: int) -> list[bytes]:
        return self.use(partition, lambda database: notes.first(database, count))

    def use(self, partition: int, call: Callable[[Any], Result]) -> Result:
        """Return what `call` returns for a partition's database. Raises as `read` and `write` do."""
        try:
            return call(self._open(partition))
        except FreshetError:
            raise
        except Exception as error:
            self._stop(partition, error)

    def _commit(self, partition: int, batch: Any) -> None:
        try:
            self._open(partition).write(batch)
        except FreshetError:
            raise
        except Exception as error:
            self._stop(partition, error)

    def _stop(self, partition: int, error: Exception) -> NoReturn:
        _stop(self._path(partition), partition, error)

    def _path(self, partition: int) -> Path:
        return Path(self._table.data.partition_path(partition))

    def _open(self, partition: int) -> Any:
        # never opened lazily: a partition that is not assigned may be open in another worker
        database = self._table.data._dbs.get(partition)
        if database is None:
            raise InternalError(f"partition {partition} of the table is not open here: this is a bug")
        return database


def _stop(path: Path, partition: int, error: Exception) -> NoReturn:
    """Mark damage, so that the next start reads the partition back. Any other error is a DiskError."""
    if not is_damage(error):
        _fail(partition, error)
    path.with_name(path.name + DAMAGED).touch()
    raise FreshetError(
        f"partition {partition} of the table is damaged, the next start reads it back: {error}"
    ) from None


def _fail(partition: int, error: Exception) -> NoReturn:
    raise DiskError(f"partition {partition} of the table cannot be used: {error}") from None


def _put(batch: Any, states: Mapping[bytes, bytes | None], database: Any) -> None:
    """Add states to a WriteBatch, and note which of them show no event."""
    empty = set()
    for key, value in states.items():
        if value is None:
            batch.delete(key)
        else:
            batch.put(key, value)
            if is_empty(value):
                empty.add(key)
    EMPTY.remove(batch, database, [key for key in states if key not in empty])
    EMPTY.add(batch, empty)


def _batch(partition: int, records: Iterable[LogRecord], database: Any) -> tuple[Any, LeftOut]:
    """Return a WriteBatch of the valid `records`, and how many were left out. Forged records are logged."""
    claim = fencing_log.decode(database.get(CLAIM_KEY))
    sifted = fencing_log.sift(records, claim)
    batch = rocksdict.WriteBatch(raw_mode=True)
    states = dict(sifted.states)  # only each user's last state: with many states per user, this halves the writes
    _put(batch, states, database)
    EXPOSED.add(batch, sifted.exposed)
    EXPOSED.remove(batch, database, [key for key in states if key not in sifted.exposed])
    if sifted.claim is not claim:
        batch.put(CLAIM_KEY, fencing_log.encode(sifted.claim))
    for forged in sifted.forged:
        fencing_log.log_forged(partition, forged)
    return batch, LeftOut(len(sifted.fenced), len(sifted.forged))


def apply_changelog(recovery: Any, records: Mapping[Any, list[Any]]) -> tuple[dict[Any, list[Any]], int, LeftOut]:
    """Write whole lists of changelog records to RocksDB in bulk, for partitions in recovery or on standby.

    Returns:
        What Faust must still see (the last record of each list, which Faust counts and which ends the recovery), how
        many records were read, and how many of them were left out (stream.core.fencing_log). Faust writes none of them,
        because it considers their offsets as seen.
    Raises:
        DiskError: The disk cannot be used.
        FreshetError: A partition is damaged (it is marked, as in InterestStore.read), or Faust has records of the table
            in its own buffers.
    """
    left: dict[Any, list[Any]] = {}
    read = fenced = forged = 0
    for tp, found in records.items():
        table = recovery.tp_to_table.get(tp)
        offsets = _offsets(recovery, tp)
        if offsets is None or table is None:
            left[tp] = found
            continue
        if recovery.buffers.get(table):
            raise InternalError(f"changelog records of {tp} are in Faust's own buffers: this is a bug")
        seen = offsets.get(tp)
        fresh = found if seen is None or found[0].offset > seen else [one for one in found if one.offset > seen]
        if fresh:
            without = _take(table.data, tp.partition, fresh)
            offsets[tp] = fresh[-1].offset
            read += len(fresh)
            fenced += without.fenced
            forged += without.forged
        left[tp] = found[-1:]
    return left, read, LeftOut(fenced, forged)


def _take(store: Any, partition: int, records: Sequence[LogRecord]) -> LeftOut:
    """Write records of the changelog in order, and return how many were left out."""
    try:
        database = store._db_for_partition(partition)
        batch, left_out = _batch(partition, records, database)
        batch.put(store.offset_key, b"%d" % records[-1].offset)
        database.write(batch)
    except FreshetError:
        raise
    except Exception as error:
        _stop(Path(store.partition_path(partition)), partition, error)
    return left_out


def _offsets(recovery: Any, tp: Any) -> Any:
    if tp in recovery.active_tps:
        return recovery.active_offsets
    if tp in recovery.standby_tps:
        return recovery.standby_offsets
    return None
