"""Stock Faust agents to compare with, each a process of its own: python -m tests.bench.stock trivial|table

trivial: an agent on the three topics that takes every event and does nothing with it.
table:   the same, and for each event one table read, one table write (RocksDB by rocksdict, with a changelog) and one
         output record, of the sizes that freshet writes. Nothing is decoded and nothing is computed, which favours it.

Set like freshet where both have the setting: raw bytes, uvloop, no web server, log level WARNING, a big stream buffer,
fetches of 5 MiB a partition, producer linger 5 ms and 256 KiB batches, commits every 0.5 s. The processing guarantee is
Faust's default, at_least_once. Events are acknowledged by Faust itself, after each one.

The counters that the bench reads are written into BENCH_PROGRESS ten times a second: events done, 0 or 1 for ready,
changelog records read back, and the seconds from the first of them to the last.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import faust
import uvloop

from stream.settings import Settings, load

TICK = 0.1
GLANCE = 0.01  # seconds between two looks at the recovery


def make(settings: Settings) -> faust.App:
    return faust.App(
        settings.app_id,
        broker=[f"kafka://{address}" for address in settings.brokers.split(",")],
        store="rocksdb://",
        datadir=str(settings.data_dir),
        origin="tests",
        autodiscover=False,
        web_enabled=False,
        web_in_thread=False,
        topic_partitions=settings.partitions,
        topic_replication_factor=1,
        topic_disable_leader=True,
        key_serializer="raw",
        value_serializer="raw",
        stream_buffer_maxsize=65_536,
        broker_commit_interval=0.5,
        broker_session_timeout=settings.session_timeout,
        broker_heartbeat_interval=settings.heartbeat_interval,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=5 << 20,
        producer_linger=0.005,
        producer_max_batch_size=262_144,
        producer_acks=-1,
    )


class Progress:
    """Events done and records read back, published for the bench."""

    def __init__(self) -> None:
        self.done = 0
        self.ready = False
        self.recovered = 0
        self.seconds = 0.0

    async def publish(self, path: Path) -> None:
        while True:
            partial = path.with_suffix(".new")
            partial.write_text(f"{self.done} {self.ready:d} {self.recovered} {self.seconds:.3f}")
            partial.replace(path)
            await asyncio.sleep(TICK)

    async def follow(self, app: faust.App) -> None:
        """The first recovery, as Faust counts it: the offsets that it has taken in."""
        first = 0.0
        while not self.ready:
            offsets = app.tables.recovery.active_offsets
            recovered = sum(offset + 1 for offset in offsets.values() if offset is not None)
            if recovered > self.recovered:
                now = time.monotonic()
                first = first or now
                self.recovered, self.seconds = recovered, now - first
            self.ready = bool(app.tables.actives_ready) and not app.rebalancing
            await asyncio.sleep(GLANCE)


def trivial(app: faust.App, settings: Settings, progress: Progress) -> None:
    source = app.topic(*settings.sources, key_type=bytes, value_type=bytes)

    @app.agent(source, name="trivial")
    async def consume(events: Any) -> None:
        async for _ in events:
            progress.done += 1


def with_table(app: faust.App, settings: Settings, progress: Progress, state: int, output: int) -> None:
    source = app.topic(*settings.sources, key_type=bytes, value_type=bytes)
    out = app.topic(settings.recommendations_topic, key_type=bytes, value_type=bytes)
    table = app.Table(
        "state", key_type=bytes, value_type=bytes, partitions=settings.partitions,
        options={"driver": "rocksdict", "block_cache_size": 32 << 20, "write_buffer_size": 16 << 20},
    )  # fmt: skip
    noise = os.urandom(state)
    answer = os.urandom(output)

    @app.agent(source, name="table")
    async def consume(events: Any) -> None:
        async for event in events.events():
            before = table.get(event.key)
            count = int.from_bytes(before[:8], "big") if before else 0
            table[event.key] = (count + 1).to_bytes(8, "big") + noise[8:]
            await out.send(key=event.key, value=answer)
            progress.done += 1


async def run(kind: str) -> None:
    settings = load()
    app = make(settings)
    progress = Progress()
    if kind == "trivial":
        trivial(app, settings, progress)
    else:
        sizes = os.environ["BENCH_SIZES"].split(",")
        with_table(app, settings, progress, *map(int, sizes))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    publishing = asyncio.ensure_future(progress.publish(Path(os.environ["BENCH_PROGRESS"])))
    following = asyncio.ensure_future(progress.follow(app))
    await app.start()
    await stop.wait()
    publishing.cancel()
    following.cancel()
    await app.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
        runner.run(run(sys.argv[1]))
