"""The items follower on a real Kafka: complete before it is ready, then live within seconds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from deploy.clients.arguments import client_arguments
from stream.catalogue.catalogue import Catalogue
from stream.catalogue.consumer import ItemsFollower
from stream.core.errors import BrokerError, TopologyError
from stream.inference.bundle import current, load
from stream.inference.text_encoder import Encoder, open_encoder
from stream.settings import Settings
from stream.settings import load as load_settings

pytestmark = pytest.mark.integration
WAIT = 20.0


@pytest.fixture(scope="module")
def encoder(bundles: Path) -> Encoder:
    return open_encoder(load(current(bundles)), "cpu")


def send(settings: Settings, *messages: tuple[str | None, Any]) -> None:
    """(key, dict, bytes or None) to the items topic, acknowledged."""
    producer = KafkaProducer(**client_arguments(settings), acks="all")
    for key, value in messages:
        raw = json.dumps(value).encode() if isinstance(value, dict) else value
        producer.send(settings.items_topic, key=None if key is None else key.encode(), value=raw).get(timeout=30)
    producer.close()


def item(name: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return name, {"item": name, "title": f"Title of {name}", **more}


def catalogue_of(bundles: Path, encoder: Encoder) -> Catalogue:
    return Catalogue(load(current(bundles)), encoder.item_vectors)


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not met():
            await asyncio.sleep(0.02)


def test_all_there_at_start_then_live(world: Callable[..., Settings], bundles: Path, encoder: Encoder) -> None:
    settings = world(partitions=2)
    send(
        settings,
        *(item(f"item-{row}") for row in range(1, 51)),
        item("new-1", text="about boats"),
        ("item-7", None),
        ("item-8", {"item": "item-9", "title": "key and body disagree"}),
        item("item-9", available=False),
    )

    async def follow() -> None:
        rejected: list[tuple[int, str]] = []
        shown: list[int] = []
        catalogue = catalogue_of(bundles, encoder)
        items = ItemsFollower(
            settings,
            catalogue,
            on_rejected=lambda offset, key, value, error: rejected.append((offset, error.reason)),
            on_snapshot=lambda snapshot: shown.append(snapshot.offset),
        )
        await items.start()
        try:
            snapshot = catalogue.snapshot
            assert snapshot.live == 49
            assert snapshot.offset == 53
            assert rejected == [(52, "key_mismatch")]
            assert snapshot.bias[snapshot.row("item-7")] < 0
            assert snapshot.bias[snapshot.row("new-1")] == 0

            await asyncio.to_thread(send, settings, item("new-2"))
            await until(lambda: catalogue.snapshot.row("new-2") > 0)
            await asyncio.to_thread(send, settings, ("new-2", None), ("item-1", b"{"))
            await until(lambda: catalogue.snapshot.offset == 56)
            assert catalogue.snapshot.row("new-2") == 0
            await until(lambda: len(rejected) > 1)  # told once the snapshot is there
            assert rejected[1:] == [(56, "malformed_json")]
            await until(lambda: shown[-1:] == [56])
            assert items.task is not None
            assert not items.task.done()
        finally:
            await items.stop()
            await items.stop()

    asyncio.run(follow())


def test_an_empty_topic_is_complete_at_once(world: Callable[..., Settings], bundles: Path, encoder: Encoder) -> None:
    async def follow() -> None:
        catalogue = catalogue_of(bundles, encoder)
        items = ItemsFollower(world(partitions=1), catalogue)
        await items.start()
        await items.stop()
        assert catalogue.snapshot.offset == -1

    asyncio.run(follow())


def test_transactions_that_were_aborted_are_not_read(
    world: Callable[..., Settings], bundles: Path, encoder: Encoder
) -> None:
    settings = world(partitions=1)
    confluent = pytest.importorskip("confluent_kafka")
    producer = confluent.Producer({"bootstrap.servers": settings.brokers, "transactional.id": settings.prefix})
    producer.init_transactions(WAIT)
    for name, commit in (("item-1", True), ("item-2", False), ("item-3", True), ("item-4", False)):
        producer.begin_transaction()
        producer.produce(settings.items_topic, json.dumps(item(name)[1]), name)
        producer.flush(WAIT)
        (producer.commit_transaction if commit else producer.abort_transaction)(WAIT)

    async def follow() -> None:
        catalogue = catalogue_of(bundles, encoder)
        items = ItemsFollower(settings, catalogue)
        async with asyncio.timeout(WAIT):  # the last records are an aborted one and its marker: the end is still found
            await items.start()
        await items.stop()
        assert catalogue.snapshot.live == 2
        assert catalogue.snapshot.bias[[1, 3]].tolist() == [0, 0]

    asyncio.run(follow())


def test_a_failing_text_tower_ends_the_task(world: Callable[..., Settings], bundles: Path) -> None:
    settings = world(partitions=1)

    def fails(texts: list[str]) -> Any:
        raise RuntimeError("no memory for this text")

    async def follow() -> None:
        items = ItemsFollower(settings, Catalogue(load(current(bundles)), fails))
        await items.start()
        await asyncio.to_thread(send, settings, item("new-1"))
        assert items.task is not None
        done, _ = await asyncio.wait([items.task], timeout=WAIT)
        assert done
        assert "no memory" in str(items.task.exception())
        await items.stop()

    asyncio.run(follow())


def test_a_missing_topic_is_named(world: Callable[..., Settings], bundles: Path, encoder: Encoder) -> None:
    settings = world(partitions=1).model_copy(update={"prefix": "nothing-here-"})

    async def follow() -> None:
        await ItemsFollower(settings, catalogue_of(bundles, encoder)).start()

    with pytest.raises(TopologyError, match=r"nothing-here-items is missing"):
        asyncio.run(follow())


def test_a_broker_that_does_not_answer(bundles: Path, encoder: Encoder) -> None:
    async def follow() -> None:
        await ItemsFollower(load_settings(brokers="127.0.0.1:1"), catalogue_of(bundles, encoder)).start()

    with pytest.raises(BrokerError):
        asyncio.run(follow())
