"""The table's store on a plain RocksDB, without a Faust app."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rocksdict

from stream.store import InterestStore


def plain_store(folder: Path, changelog: str) -> InterestStore:
    """Partitions below `folder`, opened by `prepare`. changelog: the topic's name."""
    opened: dict[int, Any] = {}

    def path(partition: int) -> Path:
        return folder / f"{partition}.db"

    def database(partition: int) -> Any:
        if partition not in opened:
            opened[partition] = rocksdict.Rdict(str(path(partition)), rocksdict.Options(raw_mode=True))
        return opened[partition]

    folder.mkdir(exist_ok=True)
    data = SimpleNamespace(_dbs=opened, offset_key=b"offset", partition_path=path, _db_for_partition=database)
    table: Any = SimpleNamespace(changelog_topic_name=changelog, data=data)
    return InterestStore(table)
