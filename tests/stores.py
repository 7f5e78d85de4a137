"""The table's store on a plain RocksDB, without a Faust app."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from faust.stores.rocksdb import RocksDBOptions

from stream.kafka.state_store import InterestStore


def plain_store(folder: Path, changelog: str) -> InterestStore:
    """Partitions below `folder`, opened by `prepare`. changelog: the topic's name."""
    folder.mkdir(exist_ok=True)
    data = SimpleNamespace(
        _dbs={},
        offset_key=b"offset",
        partition_path=lambda partition: folder / f"{partition}.db",
        rocksdb_options=RocksDBOptions(),
    )
    table: Any = SimpleNamespace(changelog_topic_name=changelog, data=data)
    return InterestStore(table)
