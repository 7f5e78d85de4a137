"""Diversity: what re-ranking the best items costs, per user, without Kafka and models.

CPU time of the thread is taken besides wall time, so that other work on the machine shows as a difference.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from stream.core.diversity import Items, Method, reranked

CHOICES = 40
"""Own choices of a user."""
LABELS = 20
MOST = 6
"""Categories of an item."""


@dataclass(frozen=True)
class Plan:
    """users: in one micro-batch, each measured for itself; rounds: how often; width: of an item's vector."""

    users: tuple[int, ...] = (1, 16, 64, 512)
    candidates: int = 100
    k: int = 10
    width: int = 128
    strength: float = 0.3
    rounds: int = 30
    seed: int = 1


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds, in microseconds a user."""

    method: str
    users: int
    wall_us: float
    cpu_us: float


def measure(plan: Plan, say: Callable[[str], None]) -> list[Cost]:
    """Measure every method at every number of users."""
    found = []
    for users in plan.users:
        scores, items = made(plan, users)
        for method in ("dpp", "mmr"):
            found.append(_one(plan, scores, items, method))
            say(f"{method}, {users} users: {found[-1].wall_us:.0f} us a user ({found[-1].cpu_us:.0f} us CPU)")
    return found


def as_json(plan: Plan, costs: list[Cost]) -> dict[str, object]:
    """Return plan and figures as JSON values."""
    return {"plan": asdict(plan), "costs": [asdict(one) for one in costs]}


def made(plan: Plan, users: int) -> tuple[np.ndarray, Items]:
    """Return random candidates of some users."""
    draw = np.random.default_rng(plan.seed)
    scores = -np.sort(-draw.normal(size=(users, plan.candidates)).astype(np.float32), axis=1)
    vectors = draw.normal(size=(users, plan.candidates, plan.width)).astype(np.float32)
    some = draw.random((users, plan.candidates + CHOICES, LABELS)).argsort(2)[:, :, :MOST] + 1
    some[np.arange(MOST) >= draw.integers(1, MOST + 1, some.shape[:2])[:, :, None]] = 0
    categories = some[:, : plan.candidates].astype(np.int32)
    history = some[:, plan.candidates :].reshape(-1, MOST).astype(np.int32)
    return scores, Items(vectors, categories, history, np.repeat(np.arange(users), CHOICES))


def _one(plan: Plan, scores: np.ndarray, items: Items, method: Method) -> Cost:
    wall, cpu = [], []
    for _ in range(plan.rounds):
        began, used = time.perf_counter(), time.thread_time()
        reranked(scores, items, plan.strength, plan.k, method)
        cpu.append(time.thread_time() - used)
        wall.append(time.perf_counter() - began)
    users = len(scores)
    return Cost(method, users, statistics.median(wall) / users * 1e6, statistics.median(cpu) / users * 1e6)
