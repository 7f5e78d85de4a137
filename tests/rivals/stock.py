"""A stock Faust agent: per user a table entry that counts each event, and one output record per event.

python -m tests.rivals.stock SETUP, as `faust worker` would run it. Faust's own defaults but for what Setup names, rocksdict in
place of python-rocksdb, no web server, and a block cache of 32 MiB a partition (the default is 2 GiB).
"""

from __future__ import annotations

import sys
from typing import Any

import faust

from tests.rivals.setup import Setup, number, parse, take

TABLE = "applied"
DEFAULT_COMMIT_INTERVAL = 2.8  # seconds


class Event(faust.Record, serializer="json"):  # type: ignore[call-arg]  # mypy skips Faust: a base without arguments
    user: str
    id: str


def changelog(group: str) -> str:
    return f"{group}-{TABLE}-changelog"


def user_of(key: bytes) -> str:
    """The user in a key of the changelog: JSON."""
    return key.decode().strip('"')


def make(setup: Setup) -> faust.App:
    app = faust.App(
        setup.group,
        broker=[f"kafka://{address}" for address in setup.brokers.split(",")],
        store="rocksdb://",
        datadir=setup.folder,
        origin="tests",
        autodiscover=False,
        web_enabled=False,
        topic_partitions=setup.partitions,
        processing_guarantee=setup.guarantee.replace("-", "_"),
        broker_commit_interval=setup.commit_interval,
        broker_session_timeout=setup.session_timeout,
        broker_heartbeat_interval=setup.heartbeat,
    )
    source = app.topic(setup.source, value_type=Event)
    output = app.topic(setup.output)
    table = app.Table(
        TABLE, default=list, partitions=setup.partitions,
        options={"driver": "rocksdict", "block_cache_size": 32 << 20},
    )  # fmt: skip

    @app.agent(source, name="count")
    async def count(events: Any) -> None:
        async for event in events:
            user, event_number = event.user, number(event.id)
            counts = take(table[user], event_number)
            table[user] = counts
            await output.send(key=user, value={"user": user, "number": event_number, "count": sum(counts)})

    return app


if __name__ == "__main__":
    faust.Worker(make(parse(sys.argv[1])), loglevel="WARNING").execute_from_commandline()
