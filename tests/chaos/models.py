"""Faults 23, 25 and 26: damaged bundles, a GPU that is not there, slow models and bursts."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from stream.inference import runtime
from stream.inference.bundle import CURRENT, MANIFEST
from stream.inference.bundle import current as current_bundle
from stream.settings import Settings
from tests.chaos.trial import Trial
from tests.contract.test_bundle import graph, npy, renamed, replace, resealed, to_nan
from tests.mutants import POISON, SLOW
from tests.worker_process import WorkerProcess, until

# 23


def to_outside(model: onnx.ModelProto) -> None:
    """Weights in a file outside of the bundle."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../weights.bin")


def other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21


def step(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], Path]:
    return lambda folder: resealed(folder, **graph(folder, "step.onnx", change))


def on_file(name: str, change: Callable[[bytes], bytes | None]) -> Callable[[Path], Path]:
    def damage(folder: Path) -> Path:
        content = change((folder / name).read_bytes())
        if content is None:
            (folder / name).unlink()
        else:
            replace(folder / name, content)
        return folder

    return damage


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def removed(folder: Path) -> Path:
    shutil.rmtree(folder)
    return folder


KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "graph cut": (on_file("score.onnx", lambda content: content[: len(content) // 2]), "score.onnx: "),
    "another hash": (on_file("text.onnx", flipped), "text.onnx: its sha256 is"),
    "a file is missing": (on_file("tokenizer.json", lambda content: None), "tokenizer.json: cannot be read"),
    "manifest cut": (on_file(MANIFEST, lambda content: content[:-20]), f"{MANIFEST}: "),
    "wrong shape": (lambda folder: resealed(folder, items_npy=npy(np.zeros((51, 17), np.float32))), "items.npy: "),
    "wrong output": (step(renamed), "step.onnx: outputs"),
    "wrong opset": (step(other_opset), "step.onnx: "),
    "NaN weights": (step(to_nan), "step.onnx: "),
    "external data with ../": (step(to_outside), "step.onnx: keeps a tensor in external data"),
    "CURRENT names nothing": (removed, "not a bundle folder"),
}  # fmt: skip


def damaged_bundle(settings: Settings, bundles: Path, folder: Path, seed: int, *, kinds: int = 4) -> None:
    """Fault 23: a worker does not start on a damaged bundle, and names the file. Workers that run are not disturbed when their
    folder is damaged; killed, they come back once it is whole again."""
    own = folder / "bundles"
    shutil.copytree(bundles, own)
    trial = Trial(23, "damaged bundle", seed, settings, own, folder, workers=2, allowed=(-9, 65))
    with trial:
        chosen = trial.draw.sample(sorted(KINDS), kinds)
        for number, name in enumerate(chosen):
            refused(settings, bundles, folder / f"bundle{number}", name)
        file = trial.draw.choice(sorted(path for path in current_bundle(own).iterdir() if path.is_file()))
        whole = file.read_bytes()
        replace(file, flipped(whole))
        trial.works(300)
        assert not trial.exits, trial.exits
        worker = trial.one()
        trial.kill(worker)
        until(lambda: trial.exits, 60, f"the killed worker refuses to start:\n{worker.tail()}")
        assert trial.exits[0] == (worker.name, 65)
        assert f"{file.name}: " in worker.log.read_text().splitlines()[-1], worker.tail()
        replace(file, whole)
        trial.wait_ready()
        trial.works(100)
        trial.note = (
            f"{', '.join(chosen)}: each exit 65 naming the file; {file.name} changed under two running workers: not disturbed, "
            "a killed one exits 65 until it is whole again"
        )


def refused(settings: Settings, bundles: Path, folder: Path, name: str) -> None:
    """A worker on a bundle that is damaged in this way ends with 65 and one line that names the file."""
    change, message = KINDS[name]
    good = current_bundle(bundles)
    copy = folder / good.name
    shutil.copytree(good, copy, copy_function=os.link)
    bad = change(copy)
    (folder / CURRENT).write_text(bad.name + "\n")
    worker = WorkerProcess(settings, folder, "refused", bundles=folder).start()
    try:
        assert worker.wait(60) == 65, f"{name}: {worker.tail()}"
    finally:
        worker.close()
    lines = worker.log.read_text().splitlines()
    assert len(lines) == 1, f"{name}: {lines}"
    assert message in json.loads(lines[0])["message"], f"{name}: {lines[0]}"


# 25


def no_gpu(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 25: without a usable GPU `cuda` refuses to start and says why; `auto` says so and works on the CPU."""
    if runtime.resolve("auto") == "cuda":
        pytest.skip("there is a GPU here")
    refusing = WorkerProcess(settings, folder, "refusing", bundles=bundles, provider="cuda").start()
    try:
        assert refusing.wait(60) == 69, refusing.tail()
    finally:
        refusing.close()
    line = refusing.log.read_text().splitlines()[-1]
    assert "provider cuda: " in line, line
    with Trial(25, "no GPU", seed, settings, bundles, folder, workers=2, provider="auto") as trial:
        for worker in trial.workers:
            assert worker.metric("freshet_provider_info", provider="cpu", policy="auto") == 1
            assert any("provider auto runs on the CPU" in one["message"] for one in worker.lines()), worker.tail()
        trial.pause(2, 4)
        trial.works(300)
        why = line.split("provider cuda: ")[1].rstrip('"}')
        trial.note = f"cuda: exit 69 ({why[:80]}); auto: warned, freshet_provider_info says cpu, all served"


# 26


def slow_down(trial: Trial, seconds: float) -> None:
    """Every model call takes so much longer, from now on."""
    for worker in trial.workers:
        file = worker.data_dir / SLOW
        if seconds:
            file.with_suffix(".new").write_text(str(seconds))
            file.with_suffix(".new").replace(file)
        else:
            file.unlink(missing_ok=True)


def rebalances(trial: Trial) -> dict[str, float]:
    """Worker -> how many it has seen."""
    return {worker.name: worker.metric("freshet_rebalances_total") for worker in trial.workers}


def settled(trial: Trial) -> dict[str, float]:
    """The rebalances of the start are over and counted (twice a second) -> how many each worker saw."""
    trial.works(600)
    return rebalances(trial)


def undisturbed(trial: Trial, before: dict[str, float]) -> None:
    """Nobody was put out of the group, and nobody ended."""
    after = rebalances(trial)
    assert after == before, f"rebalances {before} -> {after}, exits {trial.exits}"


def drained(trial: Trial, seconds: float = 90) -> float:
    """Wait until less than a second's records wait -> the seconds that it took."""
    began = time.monotonic()
    until(lambda: trial.metric("freshet_lag_records") < trial.traffic.rate, seconds, "the lag drains")
    return time.monotonic() - began


def slow_models(settings: Settings, bundles: Path, folder: Path, seed: int, *, seconds: float = 2.0) -> None:
    """Fault 26: every model call takes 2 s longer for a while: nobody is put out of the group, the lag drains."""
    with Trial(26, "slow models", seed, settings, bundles, folder, mutant="slows", allowed=()) as trial:
        before = settled(trial)
        slow_down(trial, seconds)
        trial.pause(8, 12)
        most = trial.metric("freshet_lag_records")
        slow_down(trial, 0)
        took = drained(trial)
        undisturbed(trial, before)
        trial.note = f"each call +{seconds:g} s: up to {most:.0f} records behind, drained in {took:.1f} s; no rebalance"


def burst(settings: Settings, bundles: Path, folder: Path, seed: int, *, factor: int = 10) -> None:
    """Fault 26: ten times the traffic for some seconds: memory bounded, nobody put out of the group, the lag drains."""
    with Trial(26, "burst", seed, settings, bundles, folder, allowed=()) as trial:
        before = settled(trial)
        held, sent, began = trial.memory, trial.traffic.sent, time.monotonic()
        usual = trial.traffic.rate
        trial.traffic.rate = usual * factor
        trial.pause(5, 8)
        trial.traffic.rate = usual
        rate = (trial.traffic.sent - sent) / (time.monotonic() - began)
        assert rate > 3 * usual, f"only {rate:.0f} events a second were sent"
        most = trial.metric("freshet_lag_records")
        took = drained(trial)
        undisturbed(trial, before)
        grown = trial.memory - held
        assert grown < 300, f"{grown:.0f} MiB more than before"
        trial.note = (
            f"{rate:.0f} events/s instead of {usual:.0f}: {most:.0f} records behind at its end, drained in {took:.1f} s; memory "
            f"{grown:+.0f} MiB, no rebalance"
        )


def stuck_model(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 26: model calls that take longer than inference_timeout end the worker with 70; started again, it goes on."""
    with Trial(26, "stuck models", seed, settings, bundles, folder, mutant="slows", allowed=(70,)) as trial:
        slow_down(trial, 3 * settings.inference_timeout)
        until(lambda: len(trial.exits) >= 1 + trial.draw.randrange(2), 60, "a worker stops")
        slow_down(trial, 0)
        trial.wait_ready()
        trial.works(300, 60)
        criticals = [
            line for worker in trial.workers for line in worker.log.read_text().splitlines() if '"CRITICAL"' in line
        ]
        assert criticals
        assert all("a model call took longer than" in line for line in criticals), criticals
        trial.note = (
            f"calls of {3 * settings.inference_timeout:g} s: {len(trial.exits)} times exit 70, named; then it went on"
        )


def poison_events(settings: Settings, bundles: Path, folder: Path, seed: int, *, seconds: float = 1.0) -> None:
    """Fault 26: a micro-batch is searched for the events that the model fails on while each call takes 1 s longer, so long
    that it takes more than the session timeout in all; nobody is put out of the group."""
    with Trial(26, "slow search", seed, settings, bundles, folder, mutant="slows", allowed=()) as trial:
        before = settled(trial)
        slow_down(trial, seconds)
        for _ in range(2 + trial.draw.randrange(2)):
            topic, message = trial.traffic.events.one(user=f"user{trial.draw.randrange(200)}", kind="click")
            send(trial, topic, message | {"item": POISON})
            trial.poison_events += 1
        began = time.monotonic()
        until(
            lambda: trial.metric("freshet_dead_letters_total") == trial.poison_events,
            120,
            "the poison events are found",
        )
        longest = time.monotonic() - began
        slow_down(trial, 0)
        took = drained(trial)
        assert longest > settings.session_timeout, "too quick to show anything"
        undisturbed(trial, before)
        trial.note = (
            f"{trial.poison_events} events that the model fails on, each call +{seconds:g} s: found after {longest:.1f} s, "
            f"session timeout {settings.session_timeout:g} s; no rebalance, lag drained in {took:.1f} s"
        )


def send(trial: Trial, topic: str, message: dict[str, Any]) -> None:
    """An event that is not in the producer log."""
    value = json.dumps(message).encode()
    trial.traffic.events.producer.send(topic, key=message["user"].encode(), value=value)
