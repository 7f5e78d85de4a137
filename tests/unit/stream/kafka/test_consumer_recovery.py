"""Reading the changelog back while the group rebalances."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.core.fencing_log import LeftOut
from stream.kafka.consumer import SourceConsumer

LOG = TP("app-interest-changelog", 0)


def consumer(
    monkeypatch: pytest.MonkeyPatch, have: dict[TP, int], **after: Any
) -> tuple[SourceConsumer, dict[TP, int]]:
    """A consumer to which `after` happens while it waits for records, and what it seeks."""
    made = SourceConsumer.__new__(SourceConsumer)
    sought: dict[TP, int] = {}

    async def getmany(self: Any, tps: set[TP], timeout: float) -> Any:
        made.__dict__.update(after)
        return {LOG: [SimpleNamespace(offset=7)]}

    async def seek(positions: dict[TP, int]) -> None:
        sought.update(positions)

    monkeypatch.setattr(driver.Consumer, "_getmany", getmany)
    made.__dict__.update(
        sources=frozenset({"clicks"}), epoch=1, flow_active=True, _have=have, _stopping=False, seek_wait=seek
    )
    return made, sought


@pytest.mark.parametrize("after", [{"epoch": 2}, {"flow_active": False}, {"epoch": 2, "flow_active": False}])
def test_a_fetch_that_a_rebalance_overtakes_gives_nothing_and_is_read_again(
    monkeypatch: pytest.MonkeyPatch, after: dict[str, Any]
) -> None:
    made, sought = consumer(monkeypatch, {LOG: 4}, **after)
    assert asyncio.run(made._getmany({LOG}, 1.0)) == {}, (
        "Faust would take it without a look at who wrote it, or drop it"
    )
    assert sought == {LOG: 5}


def test_a_partition_that_is_gone_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made, sought = consumer(monkeypatch, {}, epoch=2)
    assert asyncio.run(made._getmany({LOG}, 1.0)) == {}
    assert sought == {}


@pytest.mark.parametrize(
    ("position", "valid", "active", "ends"),
    [(9, True, True, 8), (8, True, True, 7), (3, True, True, 7), (9, False, True, 7), (9, True, False, 7)],
)
def test_a_changelog_that_ends_with_a_marker_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, position: int, valid: bool, active: bool, ends: int
) -> None:
    """Faust waits for a record at the last offset, and none comes where a marker or an aborted transaction stands there."""
    made, _ = consumer(monkeypatch, {})
    state = SimpleNamespace(position=position, has_valid_position=valid)
    assignment = SimpleNamespace(tps={LOG}, state_value=lambda tp: state)
    client = SimpleNamespace(_subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=assignment)))
    recovery = SimpleNamespace(active_tps={LOG} if active else set(), active_offsets={LOG: 7})
    monkeypatch.setattr("stream.kafka.consumer.apply_changelog", lambda recovery, records: (records, 0, LeftOut()))
    made.__dict__.update(
        app=SimpleNamespace(tables=SimpleNamespace(recovery=recovery)),
        _thread=SimpleNamespace(_consumer=client),
        recovered=0,
    )
    asyncio.run(made._getmany({LOG}, 1.0))
    assert recovery.active_offsets == {LOG: ends}
