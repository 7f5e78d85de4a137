"""The mutants themselves, as far as they can be had without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from stream.kafka.producer import Outgoing, RecordBatches
from stream.settings import Settings
from tests.mutants import skips_record


def test_a_list_that_was_skipped_whole_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A micro-batch may have one record for a partition, and that one is skipped: the worker is to go on, not to stop."""
    settings = Settings()
    changelog = (settings.changelog_topic, 0)
    written: list[bytes | None] = []

    async def send(self: RecordBatches, lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> dict[Any, int]:
        written.extend(record.key for records in lists.values() for record in records)
        return {tp: len(written) - 1 for tp, records in lists.items() if records}

    monkeypatch.setattr(RecordBatches, "send", send)
    skips_record(settings)
    batches = RecordBatches(None, 1.0)
    ends = [asyncio.run(batches.send({changelog: [Outgoing(b"%d" % number, b"")]})) for number in range(1, 201)]
    assert [number for number, end in enumerate(ends, 1) if end == {changelog: -1}] == [100, 200]
    assert written == [b"%d" % number for number in range(1, 201) if number not in (100, 200)]
