"""`freshet worker` that can be told at which point to die.

python -m tests.points FILE      once FILE holds the name of a point, the first worker that comes by there takes the file
                                 away and kills itself

Whoever started it starts it again.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stream.core.keys import ANYONE_KEY
from stream.kafka import read_back
from stream.kafka.consumer import SourceConsumer
from stream.kafka.fencing import Fence
from stream.kafka.producer import Outgoing, RecordBatches
from stream.kafka.state_store import InterestStore, apply_changelog
from stream.pipeline.pipeline import Pipeline
from stream.settings import load
from tests.patching import patch

POINTS = {
    "recovering": "some changelog records are back in RocksDB, others are not",
    "claimed": "a partition is claimed, what lies before the claim is not read yet",
    "changelog_acknowledged": "states are in the changelog, no slate shows them",
    "slates_acknowledged": "slates are out, RocksDB is behind them",
    "before_rocksdb": "about to write a partition's states to RocksDB",
    "rocksdb_partly": "one partition of the micro-batch is in RocksDB, others may not be",
    "before_commit": "all is written, the offsets are about to be committed",
    "after_commit": "the offsets are committed, the worker has not seen the answer",
}
"""In the order in which a worker comes by."""

At = Callable[[str], None]


def at(order: Path) -> At:
    """Called at each point with its name."""

    def here(point: str) -> None:
        try:
            if order.read_text() != point:
                return
            order.unlink()
        except FileNotFoundError:  # nothing is asked for, or another worker was faster
            return
        os.kill(os.getpid(), signal.SIGKILL)

    return here


def taking_over(here: At) -> None:
    claim = Fence._claim

    def applied(*inputs: Any) -> Any:
        found = apply_changelog(*inputs)
        if found[1]:
            here("recovering")
        return found

    async def claimed(self: Fence, *inputs: Any) -> Any:
        found = await claim(self, *inputs)
        here("claimed")
        return found

    patch(read_back, "apply_changelog", applied)
    patch(Fence, "_claim", claimed)


def sending(here: At, slates: str) -> None:
    changelog, send = Pipeline._send_changelog, RecordBatches.send

    async def acknowledged(self: Pipeline, records: Mapping[Any, Any], *rest: Any) -> Any:
        ends = await changelog(self, records, *rest)
        if records:
            here("changelog_acknowledged")
        return ends

    async def sent(self: RecordBatches, lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> Any:
        ends = await send(self, lists)
        if any(topic == slates and records[0].key != ANYONE_KEY for (topic, _), records in lists.items()):
            here("slates_acknowledged")
        return ends

    patch(Pipeline, "_send_changelog", acknowledged)
    patch(RecordBatches, "send", sent)


def keeping(here: At) -> None:
    write, commit = InterestStore.write, SourceConsumer._commit

    def written(self: InterestStore, *inputs: Any) -> None:
        here("before_rocksdb")
        write(self, *inputs)
        here("rocksdb_partly")

    async def committed(self: SourceConsumer, *inputs: Any) -> Any:
        here("before_commit")
        done = await commit(self, *inputs)
        here("after_commit")
        return done

    patch(InterestStore, "write", written)
    patch(SourceConsumer, "_commit", committed)


if __name__ == "__main__":
    from deploy.cli.main import main

    here = at(Path(sys.argv.pop()))
    taking_over(here)
    sending(here, load().recommendations_topic)
    keeping(here)
    sys.argv[1:] = ["worker"]
    main()
