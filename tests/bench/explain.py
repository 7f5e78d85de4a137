"""Explanations: what an explained answer costs beside a plain one, without Kafka, on an untrained bundle of real size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from export.publish import build, publish
from stream.core.diversity import Diversity
from stream.core.fold import UserBatch, advance, apply_events, rank
from stream.core.messages import NAN, SOURCE_TOPICS, SourceEvent
from stream.gateway.items import ItemCatalogue
from stream.inference.bundle import Bundle, load
from stream.inference.explainer import Answered, Explainer
from stream.inference.models import Models, open_models
from tests.bench.world import real_run
from tests.bundles import text_onnx


@dataclass(frozen=True)
class Plan:
    """items: of the catalogue; events: of the user; k: items of an answer; strengths: of the re-ranking; rounds: how often."""

    items: int = 10_000
    events: tuple[int, ...] = (5, 64)
    k: tuple[int, ...] = (10, 100)
    strengths: tuple[float, ...] = (0.0, 0.5)
    rounds: int = 30
    seed: int = 1


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds, in milliseconds: a plain answer, its explanation, the CPU time of that, and its longest step."""

    events: int
    k: int
    strength: float
    answer_ms: float
    explain_ms: float
    cpu_ms: float
    step_ms: float


def measure(plan: Plan, say: Callable[[str], None]) -> list[Cost]:
    """Measure every number of events and items at every strength."""
    with TemporaryDirectory(prefix="freshet-bench-") as folder:
        bundle = load(publish(build(real_run(plan.items), text=text_onnx()), Path(folder)))
        models = open_models(bundle, "cpu")
        began = time.perf_counter()
        explainer = Explainer(bundle, models)
        say(f"opened in {1000 * (time.perf_counter() - began):.0f} ms, once")
        catalogue = _catalogue(bundle)
        found = []
        for events in plan.events:
            user = _user(bundle, models, catalogue, events, plan.seed)
            for k in plan.k:
                for strength in plan.strengths:
                    one = _one(plan, explainer, catalogue, user, k, Diversity(strength))
                    say(
                        f"{events} events, {k} items, strength {strength:g}: answer {one.answer_ms:.1f} ms, explanation "
                        f"{one.explain_ms:.1f} ms ({one.cpu_ms:.1f} ms CPU), longest step {one.step_ms:.1f} ms"
                    )
                    found.append(one)
    return found


def as_json(plan: Plan, costs: list[Cost]) -> dict[str, object]:
    """Return plan and figures as JSON values."""
    return {"plan": asdict(plan), "costs": [asdict(one) for one in costs]}


def _catalogue(bundle: Bundle) -> ItemCatalogue:
    catalogue = ItemCatalogue(bundle, lambda texts: np.zeros((len(texts), bundle.item_dim), np.float32))
    catalogue.apply(
        [
            (n, item.encode(), f'{{"item": "{item}", "title": "Title {n}", "categories": ["c{n % 20}"]}}'.encode())
            for n, item in enumerate(bundle.item_ids)
        ]
    )
    return catalogue


def _user(bundle: Bundle, models: Models, catalogue: ItemCatalogue, events: int, seed: int) -> UserBatch:
    draw = np.random.default_rng(seed)
    items = draw.choice(bundle.item_ids, events, replace=False).tolist()
    clicks = [SourceEvent(0, 0, n, 0, b"u", item, 1000 * n, NAN, "", "", "", b"{}") for n, item in enumerate(items)]
    user = apply_events(b"u", 0, None, clicks, SOURCE_TOPICS, bundle.state_model, bundle.hidden)
    advance([user], models, catalogue.snapshot, bundle.spec)
    return user


def _one(
    plan: Plan, explainer: Explainer, catalogue: ItemCatalogue, user: UserBatch, k: int, diversity: Diversity
) -> Cost:
    snapshot, models = catalogue.snapshot, explainer.models
    answers, walls, cpus, steps = [], [], [], []

    def title(item: str) -> str:
        message = catalogue.message(item)
        return "" if message is None else message.title

    for _ in range(plan.rounds):
        began = time.perf_counter()
        items = rank([user], models, snapshot, k, filter_seen=True, diversity=diversity)[0]
        answers.append(time.perf_counter() - began)
        began, used = time.perf_counter(), time.thread_time()
        job = explainer.begin(Answered(user, items, snapshot, k, True, None, diversity, title))
        longest, more, since = 0.0, True, time.perf_counter()
        while more:
            more = job.step()
            longest, since = max(longest, time.perf_counter() - since), time.perf_counter()
        cpus.append(time.thread_time() - used)
        walls.append(time.perf_counter() - began)
        steps.append(longest)
    answer, wall, cpu, step = (1000 * statistics.median(one) for one in (answers, walls, cpus, steps))
    return Cost(user.state.recent_count, k, diversity.strength, answer, wall, cpu, step)
