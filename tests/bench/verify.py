"""How long `freshet verify` takes, and how much memory: python -m tests.bench.verify [--events N] [--users N] ...

A log of N events is written to an embedded Kafka with the worker's own fold, record codec and slate encoder (no model runs:
h and c are made up), then a `freshet verify --json` of its own process judges it. It must be green.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from aiokafka.partitioner import murmur2 as kafka_hash
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from deploy.clients.arguments import client_arguments
from deploy.embedded_kafka import EmbeddedKafka
from stream.core import state
from stream.core.decoder import EventDecoder
from stream.core.fold import apply_events
from stream.core.messages import Recommendation, Scored
from stream.kafka.producer import Outgoing, RecordBatches
from stream.settings import Settings
from tests.settings import with_topics
from tests.worker_process import environment

MODEL = bytes(range(16))
HIDDEN = 64
Lists = dict[tuple[str, int], list[Outgoing]]


class MadeUp:
    """Micro-batches of events with all that a right worker writes for them."""

    def __init__(self, settings: Settings, users: int, seed: int) -> None:
        self._settings = settings
        self._random = random.Random(seed)
        self._users = users
        self._decoder = EventDecoder(kafka_hash, settings.partitions, settings.rating_scale)
        self._states: dict[bytes, bytes] = {}
        self._encoder = msgspec.json.Encoder()
        self._slates = 0
        self.ends: dict[tuple[str, int], int] = {}
        self.states = 0

    def batches(self, events: int, size: int = 512) -> Iterator[tuple[Lists, Lists, Lists]]:
        """(source records, changelog records, slates) of one micro-batch after the other."""
        while events > 0:
            yield self._batch(min(size, events))
            events -= size

    def _batch(self, size: int) -> tuple[Lists, Lists, Lists]:
        settings = self._settings
        sources: Lists = {}
        groups: dict[bytes, list[Any]] = {}
        now = int(time.time() * 1000)
        for _ in range(size):
            draw = self._random
            behaviour = draw.choices((0, 1, 2), (80, 15, 5))[0]
            user = b"user-%d" % draw.randrange(self._users)
            body = {"user": user.decode(), "item": f"item-{draw.randrange(20_000)}", "time": now}
            body |= ({"scene": "home"}, {"value": draw.randrange(1, 11) / 2}, {"text": "a good one, " * 4})[behaviour]
            partition = (murmur2(user) & 0x7FFFFFFF) % settings.partitions
            tp = settings.sources[behaviour], partition
            offset = self.ends.get(tp, 0)
            self.ends[tp] = offset + 1
            value = json.dumps(body).encode()
            sources.setdefault(tp, []).append(Outgoing(user, value))
            event = self._decoder.decode(behaviour, partition, offset, now, user, value)
            groups.setdefault(user, []).append(event)
        states: Lists = {}
        slates: Lists = {}
        for user, found in groups.items():
            partition = found[0].partition
            batch = apply_events(user, partition, self._states.get(user), found, settings.sources, MODEL, HIDDEN)
            batch.state.h = batch.state.c = np.frombuffer(self._random.randbytes(HIDDEN), np.uint8).astype(np.float16)
            record = self._states[user] = state.encode(batch.state)
            states.setdefault((settings.changelog_topic, partition), []).append(Outgoing(user, record))
            value = self._encoder.encode(self._slate(batch, now))
            slates.setdefault((settings.recommendations_topic, partition), []).append(Outgoing(user, value))
            self.states += 1
        return sources, states, slates

    def _slate(self, batch: Any, now: int) -> Recommendation:
        self._slates += 1
        chain = batch.state.chain.hex()
        topics = self._settings.sources
        first = self._random.randrange(19_000)
        return Recommendation(
            user=batch.user.decode(),
            slate=f"{chain[:16]}-{self._slates:x}",
            seq=batch.state.seq,
            chain=chain,
            items=[Scored(f"item-{first + rank}", round(9 - rank * 0.37, 5)) for rank in range(10)],
            time=now,
            latency_ms=7,
            events=[(topics[event.behaviour], event.partition, event.offset) for event in batch.folded],
            applied={
                f"{topic}/{batch.partition}": offset
                for topic, offset in zip(topics, batch.state.applied, strict=True)
                if offset >= 0
            },
            catalogue=-1,
            bundle="0" * 64,
            strategy="interest",
            replay=False,
        )


async def write(settings: Settings, events: int, users: int, seed: int = 1) -> MadeUp:
    """Make the log; the offsets of everything are committed for the group."""
    made = MadeUp(settings, users, seed)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.brokers, acks=1, max_batch_size=4 << 20, max_request_size=8 << 20
    )
    await producer.start()
    sending = RecordBatches(producer, 60)
    try:
        for lists in made.batches(events):
            for part in lists:
                await sending.send(part)
    finally:
        await producer.stop()
    consumer = KafkaConsumer(group_id=settings.app_id, enable_auto_commit=False, **client_arguments(settings))
    ends = {TopicPartition(*tp): OffsetAndMetadata(end, "", -1) for tp, end in made.ends.items()}
    consumer.assign(list(ends))
    consumer.commit(ends)
    consumer.close()
    return made


def run_verify(settings: Settings, arguments: list[str]) -> dict[str, Any]:
    """The report of `freshet verify`, with wall and CPU seconds and the peak memory of the process in MiB."""
    began = time.monotonic()
    read, out = os.pipe()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "deploy.cli", "verify", "--json", *arguments],
        environment(settings),
        file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)],
    )
    os.close(out)
    with open(read, encoding="utf-8") as answer:
        report: dict[str, Any] = json.loads(answer.read())
    _, _, used = os.wait4(child, 0)
    return report | {
        "wall_seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--keep", type=Path, help="folder of a broker that stays, to verify again by hand")
    parser.add_argument("verify", nargs="*", help="more arguments for freshet verify, after --")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="freshet-bench-") as folder:
        broker = EmbeddedKafka(options.keep or Path(folder) / "kafka")
        broker.start()
        try:
            settings = with_topics(broker.bootstrap, partitions=options.partitions)
            began = time.monotonic()
            made = asyncio.run(write(settings, options.events, options.users))
            print(f"{options.events:,} events, {made.states:,} states written in {time.monotonic() - began:.0f} s")
            report = run_verify(settings, options.verify)
        finally:
            if not options.keep:
                broker.stop()
    print(json.dumps(report, indent=1))
    sys.exit(report["exit_code"])


if __name__ == "__main__":
    main()
