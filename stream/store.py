"""RocksDB behind Faust's table, by partition: multi-get, one WriteBatch a micro-batch, bulk recovery from the changelog.

Faust's own table writes take their partition from a current event that does not exist in a batch, and write RocksDB
before the changelog; here the partition is named, and the changelog was acknowledged before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import faust
import rocksdict

from stream.errors import FreshetError

ROCKSDB_OPTIONS = {
    "driver": "rocksdict",
    "block_cache_size": 32 << 20,  # bytes per partition; Faust's default is 2 GiB
    "write_buffer_size": 16 << 20,
    "bloom_filter_size": 10,
}


def interest_table(app: faust.App, partitions: int) -> faust.Table:
    """The table `interest`: user id -> state record, both raw bytes."""
    return app.Table(
        "interest",
        key_type=bytes,
        value_type=bytes,
        partitions=partitions,
        options=dict(ROCKSDB_OPTIONS),
        help="RocksDB: user id -> interest state record (stream.interest), durable in the changelog",
    )


class InterestStore:
    """The table's partitions that are assigned to this worker."""

    def __init__(self, table: faust.Table) -> None:
        self._table = table

    @property
    def changelog_topic(self) -> str:
        return str(self._table.changelog_topic_name)

    def partitions(self) -> list[int]:
        """Partitions that are open here."""
        return sorted(self._table.data._dbs)

    def read(self, partition: int, users: Sequence[bytes]) -> list[bytes | None]:
        """State records of `users`, None for unknown ones. Raises FreshetError where the partition is not open here."""
        found: list[bytes | None] = self._open(partition).get(list(users))
        return found

    def write(self, partition: int, records: Iterable[tuple[bytes, bytes]], changelog_offset: int) -> None:
        """One atomic WriteBatch: records, and how far of the changelog they reach (below 0: not known, not written)."""
        store = self._table.data
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in records:
            batch.put(key, value)
        if changelog_offset >= 0:
            batch.put(store.offset_key, b"%d" % changelog_offset)
        self._open(partition).write(batch)

    def _open(self, partition: int) -> Any:
        # never opened lazily: a partition that is not assigned may be open in another worker
        database = self._table.data._dbs.get(partition)
        if database is None:
            raise FreshetError(f"partition {partition} of the table is not open here: this is a bug")
        return database


def apply_changelog(recovery: Any, records: Mapping[Any, list[Any]]) -> tuple[dict[Any, list[Any]], int]:
    """Write whole lists of changelog records to RocksDB, in bulk, for partitions in recovery or on standby.

    Returns what Faust must still see (the last record of each list: it counts, and ends the recovery) and how many
    records were written. Lists of tables that have records in Faust's own buffers are left to Faust.
    """
    left: dict[Any, list[Any]] = {}
    written = 0
    for tp, found in records.items():
        table = recovery.tp_to_table.get(tp)
        offsets = _offsets(recovery, tp)
        if offsets is None or table is None or recovery.buffers.get(table):
            left[tp] = found
            continue
        seen = offsets.get(tp)
        batch = rocksdict.WriteBatch(raw_mode=True)
        count = 0
        for record in found:
            if seen is not None and record.offset <= seen:
                continue
            if record.value is None:
                batch.delete(record.key)
            else:
                batch.put(record.key, record.value)
            count += 1
        if count:
            store = table.data
            batch.put(store.offset_key, b"%d" % found[-1].offset)
            store._db_for_partition(tp.partition).write(batch)
            offsets[tp] = found[-1].offset
            written += count
        left[tp] = found[-1:]
    return left, written


def _offsets(recovery: Any, tp: Any) -> Any:
    if tp in recovery.active_tps:
        return recovery.active_offsets
    if tp in recovery.standby_tps:
        return recovery.standby_offsets
    return None
