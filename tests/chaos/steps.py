"""Steps that the trials without a supervisor share: send and wait, read a worker's last line, judge, make an outcome."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

from kafka.structs import TopicPartition

from deploy.verify import Report, Scope, run
from stream.settings import Settings
from tests.chaos.outcomes import Outcome
from tests.worker_process import Events, WorkerProcess


def work(worker: WorkerProcess, events: Events, count: int) -> None:
    """Send and wait until as many more are applied."""
    before = int(worker.applied())
    events.send(count, rate=600)
    worker.wait_applied(before + count, 60)


def send_kind(events: Events, kind: str, count: int) -> Counter[int]:
    """Send events of one kind -> partition: how many."""
    sends = [events.put(*events.one(kind=kind)) for _ in range(count)]
    events.producer.flush()
    return Counter(send.get(10).partition for send in sends)


def says(worker: WorkerProcess, *words: str) -> None:
    """Its last log line is critical and names all of `words`."""
    last = worker.lines()[-1]
    assert last["level"] == "CRITICAL", last
    for word in words:
        assert word in last["message"], last


def loses_only(settings: Settings, tp: TopicPartition, first: int, lost: int, folder: Path) -> Report:
    """`freshet verify` names the range of deleted records of `tp` that begins at `first`, and nothing else; a producer log in
    `folder` tells that they were acknowledged. The report's own `lost` is 0: that was the fault's, and accepted, no worker's."""
    producer_log = folder / "deleted.jsonl"
    fields = {
        "topic": tp.topic,
        "partition": tp.partition,
        "key": "deleted",
        "sha256": "00" * 32,
        "status": "acked",
    }
    lines = (json.dumps(fields | {"id": f"d{offset}", "offset": offset}) for offset in range(first, first + lost))
    producer_log.write_text("\n".join(lines))
    report = run(settings, wait=30, scope=Scope(producer_log=producer_log))
    assert report.kinds == {"lost": 1}, [str(violation) for violation in report.violations[:5]]
    assert f"records {first} to {first + lost - 1} were deleted" in report.violations[0].message
    assert (report.lost, report.double, report.uncovered) == (lost, 0, 0)
    report.lost = 0
    return report


def outcome(fault: int, name: str, seed: int, began: float, report: Report, note: str) -> Outcome:
    """began: by time.monotonic()."""
    return Outcome(
        fault, name, seed, events=report.input, lost=report.lost, double=report.double, uncovered=report.uncovered,
        repeats=report.replays, seconds=round(time.monotonic() - began, 1), note=note,
    )  # fmt: skip
