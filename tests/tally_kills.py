"""Tallies that kill themselves once, each at one moment: python -m tests.tally_kills MOMENT

A real `stream.tally.process.run` with the settings of the environment and one thing patched. A file beside `tally_dir`
remembers that it has happened; whoever started it starts it again.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer

from deploy.clients.admin import check
from stream.settings import Settings, load
from stream.tally import process
from stream.tally.publisher import Publisher
from stream.tally.store import TallyStore
from tests.patching import patch

MOMENTS = ("counted", "written", "rows sent", "closed", "committed")
"""Before RocksDB is written; after; within the rows of an epoch; before its commit; after its commit."""


def crash(settings: Settings, moment: str) -> None:
    """SIGKILL ourselves, the first time."""
    marker = settings.tally_dir.with_name(f"{settings.tally_dir.name}-{moment}")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, settings: Settings, moment: str) -> None:
    """Crash before the first call of a method."""
    original: Callable[..., Any] = getattr(owner, name)

    def mutant(self: Any, *arguments: Any, **named: Any) -> Any:
        crash(settings, moment)
        return original(self, *arguments, **named)

    patch(owner, name, mutant)


def after(owner: Any, name: str, settings: Settings, moment: str) -> None:
    """Crash after the first call of a method."""
    original: Callable[..., Any] = getattr(owner, name)

    def mutant(self: Any, *arguments: Any, **named: Any) -> Any:
        original(self, *arguments, **named)
        crash(settings, moment)

    patch(owner, name, mutant)


def arm(settings: Settings, moment: str) -> None:
    if moment == "counted":
        before(TallyStore, "write", settings, moment)
    elif moment == "written":
        after(TallyStore, "write", settings, moment)
    elif moment == "rows sent":
        before(AIOKafkaProducer, "send_and_wait", settings, moment)  # of the closing record: all rows are acknowledged
    elif moment == "closed":
        before(AIOKafkaProducer, "commit_transaction", settings, moment)
    else:
        publish = Publisher.publish

        async def mutant(self: Publisher, epoch: Any) -> int:
            rows = await publish(self, epoch)
            crash(settings, moment)
            return rows

        patch(Publisher, "publish", mutant)


if __name__ == "__main__":
    given = load()
    arm(given, sys.argv[1])
    topology = check(given, tally=True)
    found = given.model_copy(update={"partitions": topology.partitions})
    process.run(found, topology.ids, topology.cluster, once=len(sys.argv) > 2)
