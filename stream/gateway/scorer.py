"""Scores for concurrent requests, in batches: one task owns the models, as the worker's pipeline does.

While one batch is computed, the next requests wait together. So there is no waiting time of its own for a batch: a
single request is computed at once, and many at once take few calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from stream.catalogue.catalogue import Snapshot
from stream.core.diversity import Diversity
from stream.core.errors import StateError
from stream.core.features import InputSpec
from stream.core.fold import PLAIN, InterestModels, UserBatch, advance, apply_events, rank
from stream.core.messages import Scored, SourceEvent
from stream.core.rules import KINDS, NO_RULES, RuleSet
from stream.core.ruling import Ruling, Selections
from stream.gateway.items import View
from stream.gateway.problems import ProblemError
from stream.process.progress import Work

BATCH: Final = 64
"""Requests scored together, as many as the score graph takes at once (stream.inference.models.SCORED)."""
MOST_WAITING: Final = 2048


class Scores(NamedTuple):
    """A user's state as it was scored, the best items, and the rules that were in force at that time (epoch ms)."""

    user: UserBatch
    items: list[Scored]
    rules: RuleSet
    now_ms: int


@dataclass(slots=True)
class Ask:
    """What is to be scored.

    Attributes:
        user: The user's key.
        partition: The user's partition.
        record: The state record; None: from zero.
        view: The catalogue.
        k: Number of items.
        filter_seen: Whether items that the user has interacted with are left out.
        scene: The scene, for rules.
        kinds: Kinds of rules that are applied.
        events: Events to be folded first; they are kept nowhere.
        diversity: How the items are re-ranked.
    """

    user: bytes
    partition: int
    record: bytes | None
    view: View
    k: int
    filter_seen: bool
    scene: str | None = None
    kinds: tuple[str, ...] = KINDS
    events: Sequence[SourceEvent] = ()
    diversity: Diversity = PLAIN
    future: asyncio.Future[Scores] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class _How(NamedTuple):
    k: int
    filter_seen: bool
    ruling: Ruling | None
    diversity: Diversity


class Scorer:
    """Computes `Ask`s.

    Args:
        models: The models; only `executor` calls them.
        spec: The form of their inputs.
        state_model: Stamp of the step model.
        hidden: Width of its states.
        topics: The source topics.
        executor: The one thread of the models.
        rules: Returns the rules in force.
        on_batch: Called with the size of each batch and its seconds.
    """

    def __init__(
        self,
        models: InterestModels,
        spec: InputSpec,
        state_model: bytes,
        hidden: int,
        topics: Sequence[str],
        executor: Executor,
        rules: Callable[[], RuleSet] = lambda: NO_RULES,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self._models = models
        self._spec = spec
        self._state_model = state_model
        self._hidden = hidden
        self._topics = tuple(topics)
        self._executor = executor
        self._rules = rules
        self._selections = Selections()
        self._on_batch = on_batch
        self._queue: asyncio.Queue[Ask] = asyncio.Queue()
        self._busy = False

    def start(self) -> None:
        """Begin to compute."""
        self.task = asyncio.create_task(self._run(), name="scorer")

    async def stop(self) -> None:
        """End the task. What still waits is cancelled."""
        if self.task is not None:
            task, self.task = (
                self.task,
                None,
            )  # its error refers to this object: nothing of it is to wait for the collector
            task.cancel()
            await asyncio.wait([task])
        while not self._queue.empty():
            self._queue.get_nowait().future.cancel()

    def work(self) -> dict[str, Work]:
        """Return what there is to do now (stream.process.progress)."""
        return {"scorer": Work("scores to be computed", self._models.ended)} if self._busy else {}

    async def score(self, ask: Ask) -> Scores:
        """Return the scores. Raises StateError for a damaged record, and ProblemError if too much waits."""
        if self._queue.qsize() >= MOST_WAITING:
            raise ProblemError("overloaded", f"{MOST_WAITING} requests wait to be scored", headers={"Retry-After": "1"})
        self._queue.put_nowait(ask)
        return await ask.future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            asks = [await self._queue.get()]
            while len(asks) < BATCH and not self._queue.empty():
                asks.append(self._queue.get_nowait())
            asks = [ask for ask in asks if not ask.future.done()]  # whoever has given up needs no scores
            if not asks:
                continue
            self._busy = True
            began = time.perf_counter()
            found = await loop.run_in_executor(self._executor, self.compute, asks)
            self._busy = False
            for ask, scores in zip(asks, found, strict=True):
                if ask.future.done():
                    continue
                if isinstance(scores, Exception):
                    ask.future.set_exception(scores)
                else:
                    ask.future.set_result(scores)
            self._on_batch(len(asks), time.perf_counter() - began)

    def compute(self, asks: Sequence[Ask]) -> list[Scores | Exception]:
        """Return the scores of each, or why there are none. Runs in the models' thread."""
        found: list[Scores | Exception | None] = [None] * len(asks)
        rules, now = self._rules(), int(time.time() * 1000)
        groups: dict[tuple[int, int, bool, str | None, tuple[str, ...], Diversity], list[tuple[int, UserBatch]]] = {}
        for index, ask in enumerate(asks):
            try:
                user = apply_events(
                    ask.user, ask.partition, ask.record, ask.events, self._topics, self._state_model, self._hidden
                )
            except StateError as error:
                found[index] = error
                continue
            scene = ask.scene if rules.rules else None
            kind = id(ask.view), ask.k, ask.filter_seen, scene, ask.kinds, ask.diversity
            groups.setdefault(kind, []).append((index, user))
        for (_, k, filter_seen, scene, kinds, diversity), users in groups.items():
            ruling = Ruling(rules, scene, now, self._selections, kinds) if rules.rules else None
            how = _How(k, filter_seen, ruling, diversity)
            snapshot = asks[users[0][0]].view.snapshot
            moved = []
            for index, user in users:
                if user.inputs:  # rare: a session, or a state of another step model
                    try:
                        advance([user], self._models, snapshot, self._spec)
                    except FloatingPointError:
                        found[index] = StateError("the step model's result is not finite")
                        continue
                moved.append((index, user))
            try:
                slates = self._rank([user for _, user in moved], snapshot, how)
            except StateError:  # one state whose events cannot be read: each is scored alone
                for index, user in moved:
                    found[index] = self._alone(user, snapshot, how, rules, now)
                continue
            for (index, user), items in zip(moved, slates, strict=True):
                found[index] = Scores(user, items, rules, now)
        return [one if one is not None else StateError("not scored: this is a bug") for one in found]

    def _rank(self, users: list[UserBatch], snapshot: Snapshot, how: _How) -> list[list[Scored]]:
        return rank(
            users,
            self._models,
            snapshot,
            how.k,
            filter_seen=how.filter_seen,
            ruling=how.ruling,
            diversity=how.diversity,
        )

    def _alone(self, user: UserBatch, snapshot: Snapshot, how: _How, rules: RuleSet, now_ms: int) -> Scores | Exception:
        try:
            return Scores(user, self._rank([user], snapshot, how)[0], rules, now_ms)
        except StateError as error:
            return error
