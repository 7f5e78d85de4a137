"""A process in which a library keeps Python from running ends all the same; one that is slow, or was stopped, does not."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import subprocess
import sys
import sysconfig
import time
from typing import Any

import pytest

from stream.process.watchdog import Guard
from stream.settings import load

LIMIT = 4.0
HEAD = f"""
import ctypes, threading, time
from stream.process import watchdog
from stream.process.progress import LoopWatch
watchdog.EVERY = 0.0
def hold(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
guard = watchdog.Guard()
guard.arm({LIMIT})
LoopWatch(1000.0, {{}}, guard.beat).start()
print("watched", flush=True)
"""
HOLDS = "hold(60)"
"""As RocksDB's binding does on a disk that hangs: no other thread of Python runs."""


def started(code: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", HEAD + code], stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "watched\n"
    return child


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error. Raises subprocess.TimeoutExpired where it does not end."""
    try:
        _, err = child.communicate(timeout=45)
        return child.returncode, err or ""
    finally:
        child.kill()
        child.wait()


def test_a_process_that_holds_python_ends_within_the_limit_and_says_where() -> None:
    began = time.monotonic()
    code, err = ended(started(HOLDS))
    assert code == 1
    assert LIMIT - 1 < time.monotonic() - began < 40
    assert err.startswith("Timeout (0:00:04)!\n")
    assert "in hold\n" in err
    assert "(most recent call first)" in err


@pytest.mark.parametrize(
    "code",
    ["for _ in range(6): hold(1.0)", "end = time.monotonic() + 6\nwhile time.monotonic() < end: pass"],
    ids=["holds it in steps", "computes"],
)
def test_one_that_gets_on_in_steps_does_not_end(code: str) -> None:
    assert ended(started(code + "\nprint('through')")) == (0, "")


def test_one_that_was_stopped_for_less_than_the_limit_goes_on() -> None:
    child = started("for _ in range(14): time.sleep(0.5)")
    for _ in range(2):
        child.send_signal(signal.SIGSTOP)
        time.sleep(LIMIT / 2)
        child.send_signal(signal.SIGCONT)
        time.sleep(LIMIT / 4)
    assert ended(child) == (0, "")


def test_a_log_that_nobody_reads_does_not_hold_the_end_back() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    try:
        assert ended(started(HOLDS, writer))[0] == 1
    finally:
        os.close(reader)
        os.close(writer)


class Armed:
    """What faulthandler was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.limits: list[float] = []
        self.fails = False
        self.now = 0.0
        monkeypatch.setattr(faulthandler, "dump_traceback_later", self.later)

    def later(self, limit: float, **more: Any) -> None:
        assert more["exit"] is True
        if self.fails:
            raise RuntimeError("unable to start watchdog thread")
        self.limits.append(limit)


def test_it_is_put_off_as_often_as_needed_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    armed = Armed(monkeypatch)
    guard = Guard(lambda: armed.now)
    guard.beat()
    assert armed.limits == [], "not armed yet"
    guard.arm(60.0)
    for _ in range(100):
        armed.now += 1.0
        guard.beat()
    assert armed.limits == [60.0] * 21


def test_without_a_thread_it_is_tried_again_at_the_next_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    armed = Armed(monkeypatch)
    guard = Guard(lambda: armed.now)
    armed.fails = True
    guard.arm(60.0)
    guard.beat()
    assert armed.limits == []
    armed.fails = False
    guard.beat()
    assert armed.limits == [60.0]


def test_a_python_that_waits_by_the_wall_clock_is_not_trusted_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A clock that is set, or a machine that slept, would end a worker that is well."""
    armed = Armed(monkeypatch)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
    guard = Guard(lambda: armed.now)
    with caplog.at_level(logging.WARNING):
        guard.arm(60.0)
        guard.arm(60.0)
        armed.now += 100
        guard.beat()
    assert armed.limits == []
    (message,) = caplog.messages
    assert "wall clock" in message


@pytest.mark.parametrize(
    "values",
    [{}, {"stall_timeout": 10, "session_timeout": 1, "rebalance_timeout": 1, "inference_timeout": 0.5, "heartbeat_interval": 0.3},
     {"session_timeout": 300, "rebalance_timeout": 600}, {"stall_timeout": 3600}],
)  # fmt: skip
def test_the_limit_is_longer_than_any_other(values: dict[str, Any]) -> None:
    settings = load(**values)
    assert settings.hang_limit >= 2 * settings.stall_limit
    assert settings.hang_limit > 2 * settings.session_timeout, "one that was stopped so long has no partitions any more"
    assert settings.hang_limit >= 60.0, "a stop may take 30 s"


WORKER = """
import asyncio, ctypes, sys, time
from types import SimpleNamespace
from stream import settings, swap, worker
from stream.process import watchdog
from tests.unit.stream.observability.test_status import BUNDLE
settings.Settings.hang_limit = property(lambda self: 4.0)
watchdog.EVERY = 0.0
worker.BUNDLE_LIMIT = 2.0
def hold(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
swap.current, swap.load = (lambda folder: folder), (lambda folder: BUNDLE)
def open_for(*given):
    if sys.argv[1] == "bundle":
        hold(60)
    encoder = SimpleNamespace(item_vectors=None, reads=False)
    return SimpleNamespace(models=SimpleNamespace(provider="cpu"), encoder=encoder, why_cpu="")
swap.open_for = open_for
class Items:
    def __init__(self, *given, **more): pass
    def tasks(self): return ()
    def work(self): return {}
    async def start(self):
        for _ in range(12):
            await asyncio.sleep(0.5)
        print("through", flush=True)
        hold(60)
worker.ItemsFollower = worker.RulesFollower = Items
worker.run(settings.load(rating_scale=(1, 5), web_port=0))
"""


@pytest.mark.parametrize(("where", "message"), [("bundle", ""), ("work", "through\n")])
def test_a_worker_is_watched_from_its_bundle_on(where: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, where], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (1, message), done.stderr
    assert "Timeout (0:00:04)!\n" in done.stderr
    assert "in hold\n" in done.stderr
