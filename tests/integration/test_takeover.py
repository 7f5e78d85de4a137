"""Partitions move between workers that come and go as asked: each is claimed once a move, and nothing is fenced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos.trial import Traffic
from tests.worker_process import WorkerProcess, until

pytestmark = pytest.mark.integration


def test_one_claim_a_move_and_nothing_fenced(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    settings = world(partitions=2)
    first = WorkerProcess(settings, tmp_path, "w1", bundles=bundles).start().wait_ready()
    second = WorkerProcess(settings, tmp_path, "w2", bundles=bundles)
    sending = Traffic(settings, tmp_path / "ledger.jsonl", 0, 200, users=60)
    sending.start()
    try:
        for _ in range(2):
            second.start().wait_ready()
            until(lambda: second.applied() > 100, 60, "the second worker works")
            assert second.metric("freshet_fenced_records_total") == 0
            assert second.terminate() == 0
            until(lambda: first.metric("freshet_partitions_assigned") == 6, 30, "the first worker owns all again")
        claims = [line for line in first.lines() if line["message"] == "partitions claimed"]
        assert len(claims) == first.metric("freshet_rebalances_total") == 5
        assert first.metric("freshet_fenced_records_total") == 0
    finally:
        sending.stop()
        first.close()
        second.close()
