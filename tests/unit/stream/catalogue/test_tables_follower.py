"""The tables follower: what it uses when it starts in the middle of what is written, and that it goes on with whole epochs."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from stream.catalogue import consumer
from stream.catalogue.catalogue import Catalogue
from stream.catalogue.consumer import TablesFollower
from stream.catalogue.tables import EpochTables, RefusedTable
from stream.core.errors import LossError
from stream.core.tables import row_key
from stream.settings import Settings
from tests.unit.stream.catalogue.test_catalogue import Tower
from tests.unit.stream.catalogue.test_consumer import FETCH, Log
from tests.unit.stream.catalogue.test_tables import Record, history, tabled_bundle, written

PLACE = TopicPartition("tables", 0)


class TablesLog(Log):
    """The tables topic. told: the ends that it names, one after the other; the last one stays."""

    def __init__(self, records: list[Record], *told: int) -> None:
        super().__init__(*[3] * len(records))
        self.records = records
        self.told = list(told) or [len(records)]

    def assign(self, tps: list[TopicPartition]) -> None:
        assert tps == [PLACE]

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {PLACE: 0}

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {PLACE: self.told.pop(0) if len(self.told) > 1 else self.told[0]}

    async def getmany(
        self, tp: TopicPartition, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0.001)
        first, self.at = self.at, min(len(self.records), self.at + FETCH)
        found = [
            SimpleNamespace(offset=offset, key=key, value=value) for offset, key, value in self.records[first : self.at]
        ]
        return {PLACE: found} if found else {}


def follow(
    monkeypatch: pytest.MonkeyPatch, log: TablesLog, more: list[Record] | None = None
) -> tuple[list[int], list[RefusedTable], Catalogue]:
    """Start a follower, and let it go on with more records -> the epochs that were used, what was refused, the catalogue."""
    epochs: list[int] = []
    refused: list[RefusedTable] = []
    catalogue = Catalogue(tabled_bundle(), Tower())

    def used(epoch: EpochTables) -> None:
        tables = catalogue.snapshot.tables
        assert tables is not None
        assert tables.epoch == epoch.closed.epoch
        epochs.append(epoch.closed.epoch)

    async def run() -> None:
        monkeypatch.setattr(consumer, "groupless_consumer", lambda *of, **arguments: log)
        followed = TablesFollower(Settings(), catalogue, refused.append, used)
        await followed.start()
        assert followed.task is not None
        log.records = log.records + (more or [])
        await asyncio.wait([followed.task], timeout=0.5)
        assert not followed.task.done()
        await followed.stop()

    asyncio.run(run())
    return list(dict.fromkeys(epochs)), refused, catalogue


def test_it_starts_with_the_last_epoch_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stream.catalogue.consumer")
    whole = written(history(3, 6))
    epochs, refused, _ = follow(monkeypatch, TablesLog(whole))
    assert (epochs, refused) == ([6], [])
    assert "tables loaded: epoch 6" in caplog.text


def test_it_reads_on_if_its_start_ends_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetches are larger than what the topic had at the start: the next epoch may be there in part, and is read to its end."""
    made = history(3, 7)
    whole, first = written(made), len(written(made[:6]))
    epochs, refused, _ = follow(monkeypatch, TablesLog(whole, first, len(whole)))
    assert epochs in ([6], [7], [6, 7])
    assert (epochs[-1], refused) == (7, [])


def test_it_goes_on_epoch_by_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = history(5, 9)
    whole, first = written(made), len(written(made[:2]))
    epochs, refused, catalogue = follow(monkeypatch, TablesLog(whole[:first]), whole[first:])
    assert epochs[0] == 2
    assert (epochs, refused) == (sorted(epochs), [])
    assert catalogue.snapshot.tables is not None
    assert catalogue.snapshot.tables.epoch == 9


def test_without_an_epoch_the_bundles_own_are_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stream.catalogue.consumer")
    epochs, refused, catalogue = follow(monkeypatch, TablesLog([]))
    assert (epochs, refused) == ([], [])
    assert catalogue.snapshot.tables is not None
    assert catalogue.snapshot.tables.epoch == 0
    assert "tables loaded: no epoch, so the bundle's own are used" in caplog.text


def test_rows_that_nothing_closes_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written(history(3, 2))
    epochs, refused, _ = follow(monkeypatch, TablesLog([*whole, (len(whole), row_key("z"), b"{")]))
    assert epochs == []
    assert [one.reason for one in refused] == ["malformed_json", "incomplete"]


def test_a_log_that_is_cut_off_ends_it_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        log = TablesLog(written(history(3, 2)))
        monkeypatch.setattr(consumer, "groupless_consumer", lambda *of, **arguments: log)
        followed = TablesFollower(Settings(), Catalogue(tabled_bundle(), Tower()))
        await followed.start()
        assert followed.task is not None
        await followed._cut.note(PLACE, 1, 4)
        with pytest.raises(LossError, match="tables"):
            async with asyncio.timeout(2):
                await followed.task
        await followed.stop()

    asyncio.run(run())
