"""Scores in batches, and views of the catalogue, on a real but tiny bundle."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from stream.catalogue.catalogue import Catalogue
from stream.core import state as interest
from stream.core.errors import StateError
from stream.core.fold import advance, apply_events, rank
from stream.core.messages import SourceEvent
from stream.gateway.items import ItemCatalogue
from stream.gateway.scorer import Ask, Scorer, Scores
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import Models, open_models

TOPICS = ("clicks", "ratings", "comments")


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return load(current(bundles))


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> Models:
    return open_models(bundle, "cpu")


def item(name: str, **more: object) -> tuple[bytes, bytes]:
    return name.encode(), json.dumps({"item": name, "title": name} | more).encode()


@pytest.fixture
def catalogue(bundle: Bundle) -> ItemCatalogue:
    found = ItemCatalogue(bundle, lambda texts: np.zeros((len(texts), bundle.item_dim), np.float32))
    records = [item(f"item-{n}") for n in range(1, 51)]
    found.apply([(offset, *record) for offset, record in enumerate(records)])
    return found


def event(number: int, name: str) -> SourceEvent:
    return SourceEvent(0, 0, number, 0, b"ann", name, 1000 * number, float("nan"), "", "", "", b"{}")


def record(bundle: Bundle, models: Models, catalogue: Catalogue, *names: str) -> bytes:
    events = [event(number, name) for number, name in enumerate(names)]
    user = apply_events(b"ann", 0, None, events, TOPICS, bundle.state_model, bundle.hidden)
    advance([user], models, catalogue.snapshot, bundle.spec)
    return interest.encode(user.state)


def scorer(bundle: Bundle, models: Models, sizes: list[int]) -> Scorer:
    return Scorer(
        models, bundle.spec, bundle.state_model, bundle.hidden, TOPICS, ThreadPoolExecutor(1),
        on_batch=lambda n, _: sizes.append(n)
    )  # fmt: skip


def test_requests_at_the_same_time_are_scored_together_and_as_a_worker_does(
    bundle: Bundle, models: Models, catalogue: ItemCatalogue
) -> None:
    states = [record(bundle, models, catalogue, f"item-{n}", f"item-{n + 1}") for n in range(1, 40)]
    sizes: list[int] = []

    async def run() -> list[Scores]:
        made = scorer(bundle, models, sizes)
        made.start()
        view = catalogue.view()
        found = await asyncio.gather(
            *(made.score(Ask(b"ann", 0, one, view, 5 + n % 2, True)) for n, one in enumerate(states))
        )
        await made.stop()
        return found

    found = asyncio.run(run())
    assert sum(sizes) == len(states)
    assert max(sizes) > 10
    for n, one in enumerate(states):
        user = apply_events(b"ann", 0, one, (), TOPICS, bundle.state_model, bundle.hidden)
        expected = rank([user], models, catalogue.snapshot, 5 + n % 2, filter_seen=True)[0]
        assert [scored.item for scored in found[n].items] == [scored.item for scored in expected]
        for scored, same in zip(found[n].items, expected, strict=True):  # batches of another size round differently
            assert scored.score == pytest.approx(same.score, abs=1e-4)
        assert not found[n].user.refolded


def test_a_damaged_state_fails_alone(bundle: Bundle, models: Models, catalogue: ItemCatalogue) -> None:
    good = record(bundle, models, catalogue, "item-1")
    view = catalogue.view()

    async def run() -> list[Scores | Exception]:
        made = scorer(bundle, models, [])
        return made.compute([Ask(b"a", 0, one, view, 3, True) for one in (good, b"damaged", good)])

    found = asyncio.run(run())
    assert isinstance(found[1], StateError)
    assert [len(one.items) for one in (found[0], found[2]) if isinstance(one, Scores)] == [3, 3]


def test_a_state_of_another_step_model_is_folded_again(
    bundle: Bundle, models: Models, catalogue: ItemCatalogue
) -> None:
    state = interest.decode(record(bundle, models, catalogue, "item-1", "item-2"))
    state.model, state.h, state.c = bytes(16), np.zeros(4, np.float16), np.zeros(4, np.float16)

    async def run() -> Scores | Exception:
        ask = Ask(b"ann", 0, interest.encode(state), catalogue.view(), 5, True)
        return scorer(bundle, models, []).compute([ask])[0]

    found = asyncio.run(run())
    assert isinstance(found, Scores)
    assert found.user.refolded
    same = apply_events(
        b"ann", 0, record(bundle, models, catalogue, "item-1", "item-2"), (), TOPICS, bundle.state_model, bundle.hidden
    )
    expected = rank([same], models, catalogue.snapshot, 5, filter_seen=True)[0]
    assert [one.item for one in found.items] == [one.item for one in expected]


def test_scenes_leave_items_out_and_only_those(bundle: Bundle, catalogue: ItemCatalogue) -> None:
    catalogue.apply([(60, *item("item-1", scenes=["home"])), (61, *item("item-2", scenes=["home", "cart"]))])
    popular = {
        scene: [one.item for one in catalogue.view(scene).popular()] for scene in (None, "home", "cart", "elsewhere")
    }
    assert popular[None][:3] == popular["home"][:3] == ["item-1", "item-2", "item-3"]
    assert popular["cart"][:2] == ["item-2", "item-3"]
    assert popular["elsewhere"][0] == "item-3"
    assert catalogue.view("home") is catalogue.view("home")
    assert catalogue.view("one") is catalogue.view("another")  # no item names them: one view for all
    catalogue.apply([(62, b"item-1", None)])
    assert catalogue.view("home").popular()[0].item == "item-2"
    assert catalogue.message("item-1") is None


def test_similar_items_and_counts(catalogue: ItemCatalogue) -> None:
    view = catalogue.view()
    row = view.snapshot.row("item-7")
    found = view.similar(row, 5)
    vectors = view.snapshot.items / np.maximum(np.linalg.norm(view.snapshot.items, axis=1, keepdims=True), 1e-12)
    scores = vectors @ vectors[row]
    scores[[0, row]] = -np.inf
    best = np.argsort(-scores)[:5]
    assert [one.item for one in found] == [view.snapshot.item(int(one)) for one in best]
    assert found[0].score == pytest.approx(float(scores[best[0]]), abs=1e-4)
    assert [one.item for one in view.counts(["item-9", "nobody", "item-2"])] == ["item-2", "item-9"]
    some = view.only(["item-3", "nobody"])
    assert [one.item for one in some.popular()] == ["item-3"]
