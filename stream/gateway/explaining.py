"""Explains answers on request, in the models' thread and a little at a time, so that other answers do not wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final, TypeVar

from stream.core.errors import BundleError
from stream.core.explanations import ExplainedItem, Explanation
from stream.core.fold import PLAIN, UserBatch
from stream.core.messages import Scored
from stream.core.rules import RuleSet
from stream.core.ruling import Ruling, Selections
from stream.core.state import new
from stream.gateway.items import ItemCatalogue, View
from stream.gateway.problems import ProblemError
from stream.gateway.scorer import Ask, Scores
from stream.inference.bundle import Bundle
from stream.inference.explainer import Answered, Explainer, explain_popular
from stream.inference.models import Models

T = TypeVar("T")

MOST_AT_ONCE: Final = 32
"""Answers that are being explained. Each takes some 20 ms of the models' thread, so the last one waits for less than a second."""


class Explaining:
    """Explains the items of answers.

    Args:
        bundle: The bundle. What explanations need of it is read at the first one.
        models: Its models; only `executor` calls them.
        executor: The one thread of the models.
        catalogue: The items' titles.
    """

    def __init__(self, bundle: Bundle, models: Models, executor: Executor, catalogue: ItemCatalogue) -> None:
        self._bundle = bundle
        self._models = models
        self._executor = executor
        self._catalogue = catalogue
        self._explainer: Explainer | None = None
        self._selections = Selections()  # of the models' thread
        self._at_once = 0

    async def scored(self, ask: Ask, scores: Scores, items: Sequence[Scored]) -> list[Scored]:
        """Return items that were scored, with explanations.

        Args:
            ask: What was asked of the scorer.
            scores: What it answered.
            items: Those of its items that the answer has, in order.

        Raises:
            ProblemError: The bundle's scores cannot be explained, or too many answers are being explained.
            StateError: The user's events cannot be read.
        """
        ruling = self._ruling(scores.rules, ask.scene, scores.now_ms, ask.kinds)
        answered = Answered(
            scores.user, items, ask.view.snapshot, ask.k, ask.filter_seen, ruling, ask.diversity, self._title,
        )  # fmt: skip
        return _explained(items, await self._explain(answered))

    async def popular(
        self,
        user: bytes,
        view: View,
        items: Sequence[Scored],
        rules: RuleSet,
        scene: str | None,
        kinds: tuple[str, ...],
    ) -> list[Scored]:
        """Return items that were ranked by popularity, with explanations.

        Args:
            user: The user's key; b"" for nobody.
            view: The items that were ranked.
            items: Those that the answer has, in order.
            rules: The rules in force.
            scene: The scene, for rules.
            kinds: Kinds of rules that were applied.
        """
        ruling = self._ruling(rules, scene, int(time.time() * 1000), kinds)
        nobody = UserBatch(user, 0, new(self._bundle.state_model, self._bundle.hidden))
        k = len(view.snapshot.bias)
        answered = Answered(nobody, items, view.snapshot, k, False, ruling, PLAIN, self._title)
        return _explained(items, await self._run(lambda: explain_popular(answered, self._bundle.popularity)))

    async def _explain(self, answered: Answered) -> list[Explanation]:
        if self._at_once >= MOST_AT_ONCE:
            raise ProblemError(
                "overloaded", f"{MOST_AT_ONCE} answers are being explained", headers={"Retry-After": "1"}
            )
        self._at_once += 1
        try:
            explainer = await self._run(self._open)
            job = await self._run(lambda: explainer.begin(answered))
            while await self._run(job.step):
                pass
        finally:
            self._at_once -= 1
        return job.explanations

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _open(self) -> Explainer:
        if self._explainer is None:
            try:
                self._explainer = Explainer(self._bundle, self._models)
            except BundleError as error:
                raise ProblemError("invalid", str(error), field="explain") from None
        return self._explainer

    def _ruling(self, rules: RuleSet, scene: str | None, now_ms: int, kinds: tuple[str, ...]) -> Ruling | None:
        return Ruling(rules, scene, now_ms, self._selections, kinds) if rules.rules else None

    def _title(self, item: str) -> str:
        message = self._catalogue.message(item)
        return "" if message is None else message.title


def _explained(items: Sequence[Scored], explanations: Sequence[Explanation]) -> list[Scored]:
    """Return items with their explanations. Items beyond the last one have none."""
    found: list[Scored] = [
        ExplainedItem(one.item, one.score, explanation)
        for one, explanation in zip(items, explanations, strict=False)
    ]  # fmt: skip
    return found + list(items[len(found) :])
