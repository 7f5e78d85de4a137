"""Texts: what the text term adds to scoring, without Kafka. Both bundles are scored in turn, so that only ratios are read.

CPU time of the process is taken besides wall time, so that other work on the machine shows as a difference.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from export.publish import build, publish
from models.network.blend import Blend
from models.network.projection import fit_projection
from models.training.run import Run
from stream.inference.bundle import load
from stream.inference.models import Models, open_models
from tests.bundles import text_onnx, tiny_run

K = 10


@dataclass(frozen=True)
class Plan:
    """widths: item widths, and as wide projected texts; users: scored at once; last: choices of each; rounds: how often."""

    items: int = 10_000
    widths: tuple[int, ...] = (64, 128)
    users: tuple[int, ...] = (1, 64, 500)
    last: int = 20
    rounds: int = 30
    seed: int = 1


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds, in microseconds a user; the ratio is that of the two in the same round."""

    width: int
    users: int
    plain_us: float
    texts_us: float
    plain_cpu_us: float
    texts_cpu_us: float
    ratio: float
    cpu_ratio: float


def measure(plan: Plan, say: Callable[[str], None]) -> list[Cost]:
    """Measure every width at every number of users."""
    found = []
    with TemporaryDirectory(prefix="freshet-bench-") as folder:
        for width in plan.widths:
            plain = _run(plan, width)
            known = np.arange(plan.items + 1) > 0
            with_texts = replace(
                plain,
                blend=replace(plain.blend, text=20.0, text_new=40.0),
                new=~known,
                projection=fit_projection(plain.text, known, width),
            )
            sides = [_opened(run, Path(folder) / f"{width}-{run.text_width}") for run in (plain, with_texts)]
            for users in plan.users:
                found.append(_one(plan, width, users, sides))
                one = found[-1]
                say(
                    f"width {width}, {users} users: {one.plain_us:.0f} us a user, with texts {one.texts_us:.0f}: "
                    f"{one.ratio:.2f} times ({one.cpu_ratio:.2f} times the CPU time)"
                )
    return found


def as_json(plan: Plan, costs: list[Cost]) -> dict[str, object]:
    """Return plan and figures as JSON values."""
    return {"plan": asdict(plan), "costs": [asdict(one) for one in costs]}


def _run(plan: Plan, width: int) -> Run:
    blend = Blend(last=plan.last, fade=0.6, neighbour=0.5, prior=0.3)
    return tiny_run(plan.items, item=width, hidden=256, near=100, blend=blend)


def _opened(run: Run, folder: Path) -> tuple[Models, np.ndarray]:
    bundle = load(publish(build(run, text=text_onnx()), folder))
    return open_models(bundle, "cpu"), bundle.score_items


def _one(plan: Plan, width: int, users: int, sides: list[tuple[Models, np.ndarray]]) -> Cost:
    draw = np.random.default_rng(plan.seed)
    h = np.tanh(draw.normal(size=(users, 256))).astype(np.float16)
    bias = np.zeros(plan.items + 1, np.float32)
    bias[0] = -np.inf
    owner, age = np.divmod(np.arange(users * plan.last), plan.last)
    recent = np.stack((owner, draw.integers(1, plan.items + 1, len(owner)), age), axis=1)
    hidden, count = recent[:, :2].copy(), np.full(users, 50)
    taken: list[tuple[list[float], list[float]]] = [([], []), ([], [])]
    for number in range(plan.rounds + 1):
        for at, (models, items) in enumerate(sides):
            began, used = time.perf_counter(), time.process_time()
            models.score(h, items, bias, hidden, recent, count, K)
            if number:  # the first call allocates
                taken[at][1].append((time.process_time() - used) / users * 1e6)
                taken[at][0].append((time.perf_counter() - began) / users * 1e6)
    (plain, plain_cpu), (texts, texts_cpu) = taken
    return Cost(
        width,
        users,
        *(statistics.median(one) for one in (plain, texts, plain_cpu, texts_cpu)),
        *(
            statistics.median(a / b for a, b in zip(two, one, strict=True))
            for one, two in ((plain, texts), (plain_cpu, texts_cpu))
        ),
    )
