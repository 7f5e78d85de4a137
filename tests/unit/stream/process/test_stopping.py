"""A stop that is asked for is heard, whatever the process does, and never takes longer than its limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

HEAD = """
import sys, time, threading
from stream.observability import logs
from stream.process import fatal, stopping
stopping.LIMIT = 2.0
logs.configure()
stopping.stopping.listen()
fatal.prepare()
print("listens", flush=True)
"""
BUSY = {
    "sleeps": "time.sleep(60)",
    "computes": "while True: pass",
    "logs into a full pipe": "import logging\nwhile True: logging.getLogger().warning('x' * 4096)",
}


def stopped(code: str, number: signal.Signals, early: str = "") -> tuple[int, float, str]:
    """Exit code, seconds from the signal on, standard error; that is read only once the process has ended."""
    child = subprocess.Popen(
        [sys.executable, "-c", early + HEAD + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        assert child.stdout.readline() == "listens\n"
        time.sleep(0.5)
        began = time.monotonic()
        child.send_signal(number)
        code_ = child.wait(50)
        return code_, time.monotonic() - began, child.stderr.read()
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.stdout.close()
        child.stderr.close()


@pytest.mark.parametrize("busy", BUSY)
def test_before_there_is_anything_to_give_up_it_ends_at_once(busy: str) -> None:
    code, seconds, err = stopped(BUSY[busy], signal.SIGTERM)
    assert code == 0
    assert seconds < 25
    if "pipe" not in busy:
        assert [json.loads(line)["message"] for line in err.splitlines()] == ["worker stopped"]


def test_a_thread_of_a_library_that_was_there_before_takes_nothing_away() -> None:
    early = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    code, _, err = stopped("while True: time.sleep(0.1)", signal.SIGTERM, early=early)
    assert (code, json.loads(err)["message"]) == (0, "worker stopped")


def test_sigint_is_a_stop_too() -> None:
    assert stopped("time.sleep(60)", signal.SIGINT)[0] == 0


def test_from_then_on_the_worker_is_told_and_stops_by_itself() -> None:
    code, seconds, err = stopped(
        "asked = threading.Event()\n"
        "stopping.stopping.in_order(asked.set)\n"
        "asked.wait()\n"
        "fatal.leave(0, 'in good order')\n",
        signal.SIGTERM,
    )
    assert (code, json.loads(err)["message"]) == (0, "in good order")
    assert seconds < 10


@pytest.mark.parametrize("busy", BUSY)
def test_what_takes_too_long_is_ended_and_named(busy: str) -> None:
    code, seconds, err = stopped(
        f"stopping.stopping.in_order(lambda: None)\nstopping.stopping.waits_for = 'the disk'\n{BUSY[busy]}",
        signal.SIGTERM,
    )
    assert code == 70
    assert seconds < 30
    if "pipe" not in busy:
        message = json.loads(err.splitlines()[-1])["message"]
        assert (
            "asked to stop, but not stopped within 2 s, waits for the disk; the main thread is at <module>" in message
        )


def test_the_tasks_that_hold_it_up_are_named() -> None:
    code, _, err = stopped(
        """
import asyncio
async def asks():
    await asyncio.sleep(60)
async def run():
    stopping.stopping.loops = {"the main loop": asyncio.get_running_loop(), "another": asyncio.new_event_loop()}
    stopping.stopping.in_order(lambda: None)
    await asks()
asyncio.run(run())
""",
        signal.SIGTERM,
    )
    assert code == 70
    message = json.loads(err.splitlines()[-1])["message"]
    assert "; the main loop has run at run (<string>:" in message
    assert message.endswith("; another has no unfinished task")


def test_no_thread_of_a_library_takes_a_workers_signals() -> None:
    code = """
import os, sys
sys.argv = ["freshet", "worker"]
import deploy.cli.main
assert "numpy" in sys.modules
blocked = 0
for task in os.listdir("/proc/self/task"):
    lines = open(f"/proc/self/task/{task}/status").read().splitlines()
    mask = int(next(line for line in lines if line.startswith("SigBlk")).split()[1], 16)
    blocked += bool(mask >> (15 - 1) & 1 and mask >> (2 - 1) & 1)
print(blocked == len(os.listdir("/proc/self/task")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True\n"


START = """
import sys
at, sys.argv[:] = sys.argv[1], ["freshet", "worker"]
import deploy.cli.signals
import asyncio, threading
from types import SimpleNamespace
from stream import settings, swap, worker
from stream.core.bundle_log import BundleLog
from tests.unit.stream.observability.test_status import BUNDLE

def reached():
    print("listens", flush=True)

def open_for(*given):
    if at == "bundle":
        reached()
        threading.Event().wait(60)
    encoder = SimpleNamespace(item_vectors=None, reads=False)
    return SimpleNamespace(models=SimpleNamespace(provider="cpu"), encoder=encoder, why_cpu="")

class Items:
    def __init__(self, *given, **more): pass
    def tasks(self): return ()
    def work(self): return {}
    async def start(self):
        if at == "items":
            reached()
            await asyncio.to_thread(threading.Event().wait, 60)

class App:
    async def start(self):
        reached()
        await asyncio.sleep(60)

class Bundles(Items):
    log, write = BundleLog(), None
    async def start(self): pass

consumer = SimpleNamespace(thread=lambda: None, thread_loop=asyncio.new_event_loop, hold=lambda: print("held", flush=True))

async def watch(*given):
    await asyncio.sleep(60)

swap.current, swap.load, swap.check_fit = (lambda folder: folder), (lambda folder: BUNDLE), (lambda *given: None)
swap.open_for = open_for
worker.ItemsFollower = worker.RulesFollower = Items
worker.BundlesFollower = worker.BundlesWriter = Bundles
worker.assemble = lambda *given: SimpleNamespace(app=App(), consumer=consumer)
worker.Worker._look = lambda *given: None
worker.Worker._watch = watch
worker.run(settings.load(web_port=0))
"""


@pytest.mark.parametrize(("at", "held"), [("bundle", ""), ("items", ""), ("joins", "held\n")])
def test_a_worker_is_gone_wherever_its_start_is_when_a_stop_is_asked_for(tmp_path: Path, at: str, held: str) -> None:
    """Golden vectors are computed, new items are encoded, the app joins its group: none of them ends by itself here. Once there
    is an app it fetches no more, and what was begun has a few seconds to come to an end."""
    child = subprocess.Popen(
        [sys.executable, "-c", START, at], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"FRESHET_DATA_DIR": str(tmp_path)},
    )  # fmt: skip
    assert child.stdout is not None
    with child:
        try:
            assert child.stdout.readline() == "listens\n"
            began = time.monotonic()
            child.send_signal(signal.SIGTERM)
            out, err = child.communicate(timeout=50)
        finally:
            child.kill()
    assert (child.returncode, out) == (0, held), err
    assert time.monotonic() - began < 30
    assert json.loads(err.splitlines()[-1])["message"] == "worker stopped"
