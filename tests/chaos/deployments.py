"""Faults 33 and 34: two deployments meet in what each takes for its own, the app_id or a data folder."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

from deploy.clients import admin
from deploy.verify import Report, Scope, run
from stream.settings import Settings
from tests.chaos.outcomes import record
from tests.chaos.steps import outcome, work
from tests.worker_process import Events, WorkerProcess, slates


def same_app_id(settings: Settings, bundles: Path, folder: Path, seed: int, *, running: bool) -> None:
    """Fault 33: a worker of other topics is started with the app_id of a deployment that runs or is stopped. It ends with 78 and
    names both; not one of its events is in a state, and the deployment goes on as if nothing had been."""
    began, draw = time.monotonic(), random.Random(seed)
    other = settings.model_copy(update={"prefix": f"other-{settings.prefix}"})
    admin.create(other)
    count, strange, more = draw.randrange(100, 300), draw.randrange(100, 300), draw.randrange(100, 300)
    ours, theirs = Events(settings, seed=seed), Events(other, seed=seed + 1)
    worker = WorkerProcess(settings, folder, bundles=bundles)
    stranger = WorkerProcess(other, folder, "other", bundles=bundles, accept_loss=draw.random() < 0.5)
    try:
        for events in (ours, theirs):
            events.send_items()
        work(worker.start().wait_ready(), ours, count)
        if not running:
            assert worker.terminate() == 0
        theirs.send(strange)
        assert stranger.start().wait(60) == 78, stranger.tail()
        last_line = stranger.tail(1)
        for name in (settings.sources[0], other.sources[0], settings.app_id):
            assert name in last_line, last_line
        assert not slates(other), "events of other topics are in states"
        if running:
            assert worker.runs()
        else:
            worker.start()
        work(worker.wait_ready(), ours, more)
        assert worker.terminate() == 0
        report = _green(settings, worker, count + more)
    finally:
        for events in (ours, theirs):
            events.close()
        for process in (worker, stranger):
            process.close()
    note = (
        f"{strange} events wait in the topics of another prefix; its worker, given the app_id of a deployment that "
        f"{'runs' if running else 'is stopped'}: 78, both named, nothing taken in; the deployment went on"
    )
    name = f"same app_id, another prefix, the first worker {'running' if running else 'stopped'}"
    record(outcome(33, name, seed, began, report, note))


def folder_of_another_cluster(
    settings: Settings, other: Settings, bundles: Path, folder: Path, seed: int, *, killed: bool
) -> None:
    """Fault 34: a worker gets a data folder that was filled from another cluster (or under another app_id), with the same names
    of topics. What the folder holds is read back from this cluster's changelog; every state goes on."""
    began, draw = time.monotonic(), random.Random(seed)
    here, there = draw.randrange(300, 600), draw.randrange(60, 200)
    ours, theirs = Events(settings, seed=seed), Events(other, seed=seed + 1)
    worker = WorkerProcess(settings, folder, bundles=bundles)
    stranger = WorkerProcess(other, folder, "other", bundles=bundles)
    try:
        for process, events, count in ((worker, ours, here), (stranger, theirs, there)):
            events.send_items()
            work(process.start().wait_ready(), events, count)
            assert process.kill() if killed else process.terminate() == 0
        shutil.rmtree(worker.data_dir)
        shutil.copytree(stranger.data_dir, worker.data_dir)
        work(worker.start().wait_ready(), ours, 200)
        dropped = [line for line in worker.lines() if "read back from the changelog" in line["message"]]
        assert len(dropped) == settings.partitions, worker.tail()
        assert worker.terminate() == 0
        report = _green(settings, worker, here + 200)
    finally:
        for events in (ours, theirs):
            events.close()
        for process in (worker, stranger):
            process.close()
    elsewhere = "cluster" if settings.brokers != other.brokers else "app_id"
    note = (
        f"folder with {there} events of another {elsewhere} under a worker whose changelog holds {here}: "
        f"{len(dropped)} partitions named, dropped and read back, 200 more events, verify green with the folder"
    )
    record(outcome(34, f"data folder of another {elsewhere}", seed, began, report, note))


def _green(settings: Settings, worker: WorkerProcess, applied: int) -> Report:
    report = run(settings, wait=30, scope=Scope(data_dirs=(worker.data_dir,)))
    assert report.exit_code == 0, [str(violation) for violation in report.violations[:5]]
    assert (report.applied, report.lost, report.double, report.uncovered) == (applied, 0, 0, 0)
    return report
