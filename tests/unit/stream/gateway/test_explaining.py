"""Explanations on request in a gateway: only then is anything paid, and others are scored in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.core.diversity import Diversity
from stream.core.errors import BundleError
from stream.core.explanations import MOST_EXPLAINED, ExplainedItem
from stream.core.messages import Scored
from stream.core.rules import KINDS, NO_RULES
from stream.gateway import explaining
from stream.gateway.explaining import MOST_AT_ONCE, Explaining
from stream.gateway.items import ItemCatalogue
from stream.gateway.problems import ProblemError
from stream.gateway.scorer import Ask, Scorer
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import Models, open_models
from tests.unit.stream.gateway.test_scoring import TOPICS, item, record


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return load(current(bundles))


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> Models:
    return open_models(bundle, "cpu")


@pytest.fixture
def catalogue(bundle: Bundle) -> ItemCatalogue:
    found = ItemCatalogue(bundle, lambda texts: np.zeros((len(texts), bundle.item_dim), np.float32))
    found.apply([(number, *item(f"item-{number}")) for number in range(1, 51)])
    return found


Use = Callable[[Scorer, Explaining], Awaitable[Any]]


def run(bundle: Bundle, models: Models, catalogue: ItemCatalogue, use: Use) -> Any:
    executor = ThreadPoolExecutor(1)

    async def inside() -> Any:
        scorer = Scorer(models, bundle.spec, bundle.state_model, bundle.hidden, TOPICS, executor)
        scorer.start()
        try:
            return await use(scorer, Explaining(bundle, models, executor, catalogue))
        finally:
            await scorer.stop()

    return asyncio.run(inside())


def ask(bundle: Bundle, models: Models, catalogue: ItemCatalogue) -> Ask:
    state = record(bundle, models, catalogue, *(f"item-{1 + n % 9}" for n in range(64)))
    return Ask(b"ann", 0, state, catalogue.view(), 5, True, diversity=Diversity(0.5))


def test_others_are_scored_while_an_answer_is_explained(
    bundle: Bundle, models: Models, catalogue: ItemCatalogue
) -> None:
    async def use(scorer: Scorer, made: Explaining) -> list[str]:
        first = ask(bundle, models, catalogue)
        scores = await scorer.score(first)
        order: list[str] = []

        async def explain() -> None:
            items = await made.scored(first, scores, scores.items)
            assert [(one.item, one.score) for one in items] == [(one.item, one.score) for one in scores.items]
            for one in items:
                assert isinstance(one, ExplainedItem)
                parts = one.explanation.parts  # type: ignore[union-attr]
                total = parts.interest + parts.neighbours + parts.popularity + parts.rules
                assert total == pytest.approx(one.score, abs=1e-4)
            order.append("explained")

        async def score() -> None:
            await scorer.score(ask(bundle, models, catalogue))
            order.append("scored")

        await asyncio.gather(explain(), score())
        return order

    assert run(bundle, models, catalogue, use) == ["scored", "explained"]


def test_too_many_at_once_are_refused(bundle: Bundle, models: Models, catalogue: ItemCatalogue) -> None:
    async def use(scorer: Scorer, made: Explaining) -> list[Any]:
        one = ask(bundle, models, catalogue)
        scores = await scorer.score(one)
        many = [made.scored(one, scores, scores.items[:1]) for _ in range(MOST_AT_ONCE + 2)]
        found = await asyncio.gather(*many, return_exceptions=True)
        assert len(await made.scored(one, scores, scores.items)) == 5
        return found

    found = run(bundle, models, catalogue, use)
    refused = [one for one in found if isinstance(one, ProblemError)]
    assert [one.problem.status for one in refused] == [503, 503]
    assert all(len(one) == 1 for one in found if isinstance(one, list))


def test_a_bundle_that_cannot_be_explained(
    bundle: Bundle, models: Models, catalogue: ItemCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = 0

    def refuse(*_: Any) -> Any:
        nonlocal opened
        opened += 1
        raise BundleError("score.onnx: its scores cannot be explained")

    monkeypatch.setattr(explaining, "Explainer", refuse)

    async def use(scorer: Scorer, made: Explaining) -> None:
        one = ask(bundle, models, catalogue)
        scores = await scorer.score(one)
        assert opened == 0  # nobody has asked for an explanation
        with pytest.raises(ProblemError, match="cannot be explained") as raised:
            await made.scored(one, scores, scores.items)
        assert (raised.value.problem.status, raised.value.problem.field) == (400, "explain")
        assert len(await made.popular(b"", catalogue.view(), catalogue.view().popular(), NO_RULES, None, KINDS)) == 50

    run(bundle, models, catalogue, use)


def test_items_beyond_the_last_explained_one_have_none(
    bundle: Bundle, models: Models, catalogue: ItemCatalogue
) -> None:
    async def use(scorer: Scorer, made: Explaining) -> list[Scored]:
        items = [Scored("item-1", 1000.0)] * (MOST_EXPLAINED + 3)
        return await made.popular(b"", catalogue.view(), items, NO_RULES, None, KINDS)

    found = run(bundle, models, catalogue, use)
    assert len(found) == MOST_EXPLAINED + 3
    assert [isinstance(one, ExplainedItem) for one in found].count(True) == MOST_EXPLAINED
