"""Tables: what it costs that the score graph takes neighbours and log-popularity as inputs, without Kafka.

A bundle and the same one as an earlier version exported it, with its tables inside the graph, are scored in turn, so that only
ratios are read. `swapped` is the time of the first call with tables that were never given before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from export.publish import build, publish
from models.network.blend import Blend
from stream.core.score_tables import ScoreTables
from stream.inference.bundle import load
from stream.inference.models import Models, open_models
from tests.bundles import text_onnx, tiny_run
from tests.earlier import earlier

K = 10


@dataclass(frozen=True)
class Plan:
    """width: of an item; users: scored at once; last: choices of each; near: neighbours of an item; rounds: how often."""

    items: int = 10_000
    width: int = 64
    users: tuple[int, ...] = (1, 64, 500)
    last: int = 20
    near: int = 100
    rounds: int = 30
    seed: int = 1


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds, in microseconds a user; the ratios are of the two in the same round."""

    users: int
    inside_us: float
    inputs_us: float
    swapped_us: float
    ratio: float
    cpu_ratio: float


def measure(plan: Plan, say: Callable[[str], None]) -> list[Cost]:
    """Measure every number of users."""
    found = []
    with TemporaryDirectory(prefix="freshet-bench-") as folder:
        blend = Blend(last=plan.last, fade=0.6, neighbour=0.5, prior=0.3)
        run = tiny_run(plan.items, item=plan.width, hidden=256, near=plan.near, blend=blend)
        made = publish(build(run, text=text_onnx()), Path(folder) / "inputs")
        (Path(folder) / "inside").mkdir()
        bundles = [load(earlier(made, Path(folder) / "inside")), load(made)]
        sides = [open_models(bundle, "cpu") for bundle in bundles]
        tables = bundles[1].tables
        assert tables is not None
        for users in plan.users:
            found.append(_one(plan, users, sides, bundles[1].score_items, tables))
            one = found[-1]
            say(
                f"{users} users: {one.inside_us:.0f} us a user with tables inside the graph, {one.inputs_us:.0f} with inputs: "
                f"{one.ratio:.3f} times ({one.cpu_ratio:.3f} times the CPU time); just swapped {one.swapped_us:.0f}"
            )
    return found


def as_json(plan: Plan, costs: list[Cost]) -> dict[str, object]:
    """Return plan and figures as JSON values."""
    return {"plan": asdict(plan), "costs": [asdict(one) for one in costs]}


def _one(plan: Plan, users: int, sides: list[Models], items: Any, tables: ScoreTables) -> Cost:
    draw = np.random.default_rng(plan.seed)
    h = np.tanh(draw.normal(size=(users, 256))).astype(np.float16)
    bias = np.zeros(plan.items + 1, np.float32)
    bias[0] = -np.inf
    owner, age = np.divmod(np.arange(users * plan.last), plan.last)
    recent = np.stack((owner, draw.integers(1, plan.items + 1, len(owner)), age), axis=1)
    hidden, count = recent[:, :2].copy(), np.full(users, 50)
    taken: list[list[tuple[float, float]]] = [[], [], []]
    for number in range(plan.rounds + 1):
        for at, (models, given) in enumerate(
            ((sides[0], None), (sides[1], tables), (sides[1], replace(tables, epoch=number)))
        ):
            began, used = time.perf_counter(), time.process_time()
            models.score(h, items, bias, hidden, recent, count, K, given)
            if number:  # the first call allocates
                taken[at].append((time.perf_counter() - began, time.process_time() - used))
        sides[1].score(h[:1], items, bias, hidden[:1], recent[:0], count[:1], K, tables)  # bound again
    inside, inputs, swapped = ([wall for wall, _ in one] for one in taken)
    ratios = [
        statistics.median(new[part] / old[part] for old, new in zip(taken[0], taken[1], strict=True)) for part in (0, 1)
    ]
    return Cost(users, *(statistics.median(one) / users * 1e6 for one in (inside, inputs, swapped)), *ratios)
