"""Loading a bundle beside one in use, and what a process serves when it starts."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from stream.core.bundle_log import CURRENT, Activation
from stream.core.errors import BundleError
from stream.inference import loading
from stream.inference.loading import Loaded, Loader, first
from stream.inference.serving import Threads
from stream.settings import Settings
from tests.unit.stream.observability.test_status import BUNDLE

A, B = Activation(7, "a" * 64), Activation(3, "b" * 64)
OPENED: Any = object()


def chosen(monkeypatch: pytest.MonkeyPatch, usable: set[str], candidates: list[Activation]) -> tuple[Loaded, list[Any]]:
    def prove(settings: Settings, activation: Activation, threads: Threads) -> Loaded:
        if activation.bundle == "hangs":
            threading.Event().wait(2)
        if activation.bundle not in usable:
            raise BundleError("gone")
        return Loaded(activation, BUNDLE, OPENED)

    monkeypatch.setattr(loading, "prove", prove)
    return first(Settings(), candidates, Threads(), lambda: (BUNDLE, OPENED), 0.2)


def test_the_newest_activation_that_can_be_used_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, refused = chosen(monkeypatch, {A.bundle, B.bundle}, [A, B])
    assert (loaded.activation, refused) == (A, [])
    loaded, refused = chosen(monkeypatch, {B.bundle}, [A, B])
    assert (loaded.activation, [(one.activation, one.reason) for one in refused]) == (B, [(A, "gone")])


def test_without_one_the_bundle_of_current_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, refused = chosen(monkeypatch, set(), [A, B])
    assert (loaded.activation, len(refused)) == (Activation(CURRENT, BUNDLE.id), 2)
    loaded, refused = chosen(monkeypatch, set(), [])
    assert (loaded.activation.number, refused) == (CURRENT, [])


def test_a_graph_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, refused = chosen(monkeypatch, {B.bundle}, [Activation(9, "hangs"), B])
    assert loaded.activation == B
    assert refused[0].reason == "golden.npz: not computed within 0.2 s: a graph does not end"


def test_a_call_that_does_not_end_gives_its_thread_up() -> None:
    async def check() -> None:
        loader, hangs = Loader(limit=0.2), threading.Event()
        try:
            with pytest.raises(BundleError, match=r"not loaded within 0\.2 s"):
                await loader.run(lambda: hangs.wait(5))
            assert await loader.run(lambda: 3) == 3, "the next one has a thread of its own"
            await loader.free()
        finally:
            hangs.set()
            loader.stop()

    asyncio.run(check())


def test_an_error_of_a_call_is_its_own() -> None:
    def fails() -> None:
        raise BundleError("no")

    async def check() -> None:
        loader = Loader()
        with pytest.raises(BundleError, match=r"^no$"):
            await loader.run(fails)
        loader.stop()

    asyncio.run(check())
