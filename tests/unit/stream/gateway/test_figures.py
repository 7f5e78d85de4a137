"""Live figures: of the slates of the last seconds, and of a file that another program keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from deploy.demo.hit_rate import HitRate
from deploy.demo.page import write_figures
from deploy.demo.progress import Figures as Measured
from stream.gateway.figures import HitRateFile, SlateFigures


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def slate(latency: int = 5, events: int = 1, **more: Any) -> bytes:
    found = {"user": "a", "latency_ms": latency, "events": [["clicks", 0, n] for n in range(events)], "replay": False}
    return json.dumps(found | more).encode()


def test_events_and_quantiles_of_the_last_ten_seconds() -> None:
    clock = Clock()
    figures = SlateFigures(clock)
    figures.begin()
    for second in range(30):
        for number in range(10):
            figures.add(slate(latency=1000 if second < 15 else number, events=2))
        clock.now += 1
    found = figures.answer()
    assert (found.window_seconds, found.counted_seconds) == (10, 10)
    assert found.events_per_second == 20
    assert (found.p50_ms, found.p99_ms) == (4, 9)
    clock.now += 60
    found = figures.answer()
    assert (found.events_per_second, found.p99_ms) == (0, UNSET)


def test_what_shows_no_new_event_of_a_user_does_not_count() -> None:
    clock = Clock()
    figures = SlateFigures(clock)
    figures.begin()
    for value in (b"", b"{}", b"\xff", b"[1]", slate(placement="cart"), slate(latency=-1, events=0, replay=True)):
        figures.add(value)
    figures.add(slate(placement="default"))
    clock.now += 2
    found = figures.answer()
    assert (found.events_per_second, found.p50_ms) == (0.5, 5)


def test_there_is_no_rate_before_a_second_is_counted_and_none_while_nobody_follows() -> None:
    clock = Clock()
    figures = SlateFigures(clock)
    assert figures.answer().counted_seconds == 0
    figures.begin()
    figures.add(slate())
    clock.now += 0.5
    assert (figures.answer().counted_seconds, figures.answer().events_per_second) == (0.5, UNSET)
    clock.now += 0.5
    assert figures.answer().events_per_second == 1
    figures.end()
    assert (figures.answer().counted_seconds, figures.answer().events_per_second) == (0, UNSET)


def test_the_demos_hit_rate_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert HitRateFile(None).read() == (UNSET, "")
    assert HitRateFile(file).read() == (UNSET, "")
    measured = Measured(5, 9, 1.0, 2.0, 3.0, (4.0, 5.0))
    write_figures(file, measured)
    assert not file.exists()  # nothing is counted yet
    write_figures(file, Measured(9, 9, 1.0, 2.0, 3.0, (4.0, 5.0), HitRate(4, 0.5, 0.25, -0.1, 0.6)))
    found, _ = HitRateFile(file).read()
    assert found is not UNSET
    assert (found.counted, found.freshet, found.popularity, found.low, found.high, found.final) == (
        4, 0.5, 0.25, -0.1, 0.6, True,
    )  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"{", b'{"counted": -1}', b"\xff\xfe", b"[]", b" " * 70_000, b"[" * 5000])
def test_a_malformed_file_is_no_hit_rate_and_is_named_once(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "figures.json"
    path.write_bytes(content)
    file = HitRateFile(path)
    for _ in range(3):
        found, problem = file.read()
        assert found is UNSET
        assert problem
    answer = SlateFigures().answer(*file.read())
    assert answer.hit_rate_error == problem
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert problem in vars(caplog.records[0]).values()


def test_a_folder_is_no_hit_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert HitRateFile(tmp_path).read() == (UNSET, "it is no regular file")
    assert len(caplog.records) == 1


def test_a_pipe_is_no_hit_rate_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert HitRateFile(tmp_path / "pipe").read() == (UNSET, "it is no regular file")


@pytest.mark.parametrize(
    "value", [b'{"latency_ms":1,"events":[],"x":' + b"[" * 5000, b'{"latency_ms":1' + b"0" * 40 + b',"events":[]}']
)
def test_a_record_that_no_worker_writes_counts_nothing(value: bytes) -> None:
    clock = Clock()
    figures = SlateFigures(clock)
    figures.begin()
    figures.add(value)
    clock.now += 1
    assert figures.answer().events_per_second == 0
