"""Real tally processes for the tests: start, kill, stop, and what the topic `tables` holds."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from deploy.clients import admin
from stream.core import tables
from stream.core.tables import EpochClosed, TableRow
from stream.settings import Settings
from tests.worker_process import WorkerProcess, environment, read_all


class TallyProcess(WorkerProcess):
    """One `freshet tally` with its own folder and log."""

    def __init__(self, settings: Settings, folder: Path, name: str = "t1", **more: Any) -> None:
        super().__init__(settings, folder, name)
        self.tally_dir = folder / f"tally-{name}"
        self._environment = environment(settings, **{"tally_dir": self.tally_dir, "web_port": 0} | more)
        self.command = ["deploy.cli", "tally"]

    def port(self) -> int:
        return next((line["port"] for line in self.lines() if line.get("message") == "tally starts"), 0)

    def once(self, seconds: float = 120) -> TallyProcess:
        """Count to the present end, publish, and end."""
        self.command = ["deploy.cli", "tally", "--once"]
        self.start()
        try:
            code = self.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.awaited("ended")) from None
        assert code == 0, self.tail()
        return self


def elsewhere(settings: Settings) -> Settings:
    """Another deployment on the same source topics, so that its tally counts from the beginning."""
    other = settings.model_copy(update={"app_id": settings.app_id + "-other"})
    admin.create(other)  # it has a changelog of its own, and ends without
    return other


def epoch_of(settings: Settings) -> tuple[dict[str, TableRow], EpochClosed | None]:
    """The rows and the closing record of the newest epoch."""
    rows: dict[str, TableRow] = {}
    closed = None
    for record in read_all(settings, settings.tables_topic):
        item = tables.item_of(record.key)
        if item is None:
            closed = tables.decode_closed(record.value)
        elif record.value is None:
            del rows[item]
        else:
            rows[item] = tables.decode_row(record.key, record.value)
    return rows, closed


def closings(settings: Settings) -> list[EpochClosed]:
    """All closing records that are left, in order."""
    return [
        tables.decode_closed(record.value)
        for record in read_all(settings, settings.tables_topic)
        if record.key == tables.CLOSED_KEY
    ]
