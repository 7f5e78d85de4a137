"""The comment stage holds back a comment and its user's later events, nobody else's, and keeps every order."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from stream.core.messages import CLICK, COMMENT, NAN, SourceEvent
from stream.pipeline.comments import PATIENT, CommentStage


class Later:
    """An executor that runs nothing until told."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Future[Any], Callable[..., Any], tuple[object, ...]]] = []

    def submit(self, call: Callable[..., Any], *given: object) -> Future[Any]:
        future: Future[Any] = Future()
        self.jobs.append((future, call, given))
        return future

    def run(self) -> None:
        jobs, self.jobs = self.jobs, []
        for future, call, given in jobs:
            if future.set_running_or_notify_cancel():
                future.set_result(call(*given))


def event(user: bytes, offset: int, text: str = "") -> SourceEvent:
    return SourceEvent(COMMENT if text else CLICK, 0, offset, 0, user, "i", 0, NAN, "", text, "", b"")


def stage(cache: int = 10) -> tuple[CommentStage, Later, list[str]]:
    texts: list[str] = []

    def encode(text: str) -> np.ndarray:
        texts.append(text)
        return np.full(3, len(text), np.float32)

    later = Later()
    return CommentStage(encode, later, cache), later, texts  # type: ignore[arg-type]


def offsets(events: list[SourceEvent]) -> list[int]:
    return [e.offset for e in events]


async def batch() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_comment_waits_and_its_user_with_it() -> None:
    async def check() -> None:
        comments, later, _ = stage()
        woken: list[int] = []
        comments.on_ready = lambda: woken.append(1)
        assert offsets(comments.admit(b"u", [event(b"u", 0), event(b"u", 1, "nice"), event(b"u", 2)])) == [0]
        assert comments.admit(b"u", [event(b"u", 3)]) == []
        assert offsets(comments.admit(b"v", [event(b"v", 4)])) == [4]
        assert sorted(offsets(list(comments.unfinished()))) == [1, 2, 3]
        later.run()
        await batch()
        assert woken == [1]
        ready = comments.take_ready()
        assert offsets(ready) == [1, 2, 3]
        assert ready[0].vector is not None
        assert ready[0].vector.tolist() == [4, 4, 4]
        assert comments.held == 0

    asyncio.run(check())


def test_a_known_text_does_not_wait() -> None:
    async def check() -> None:
        comments, later, texts = stage()
        comments.admit(b"u", [event(b"u", 0, "same")])
        comments.admit(b"v", [event(b"v", 1, "same")])
        later.run()
        await batch()
        assert offsets(comments.take_ready()) == [0, 1]
        assert offsets(comments.admit(b"w", [event(b"w", 2, "same")])) == [2]
        assert texts == ["same"]

    asyncio.run(check())


def test_two_comments_of_one_user_are_encoded_in_turn_without_a_cache() -> None:
    async def check() -> None:
        comments, later, _ = stage(cache=0)
        comments.admit(b"u", [event(b"u", 0, "one"), event(b"u", 1, "three"), event(b"u", 2)])
        later.run()
        await batch()
        assert offsets(comments.take_ready()) == [0]
        later.run()
        await batch()
        assert offsets(comments.take_ready()) == [1, 2]

    asyncio.run(check())


def test_after_a_rebalance_nothing_of_the_old_assignment_comes_out() -> None:
    async def check() -> None:
        comments, later, _ = stage()
        comments.admit(b"u", [event(b"u", 0, "old")])
        comments.forget()
        assert comments.held == 0
        later.run()
        await batch()
        assert comments.take_ready() == []

    asyncio.run(check())


def test_a_rating_is_read_for_comments_without_a_value_only() -> None:
    async def check() -> None:
        asked: list[str] = []

        def read(text: str) -> tuple[np.ndarray, float]:
            asked.append(text)
            return np.full(3, len(text), np.float32), 4.5

        later = Later()
        comments = CommentStage(lambda text: np.full(3, len(text), np.float32), later, 10, read)  # type: ignore[arg-type]
        given = event(b"v", 1, "fine")
        given.value = 2.0
        comments.admit(b"u", [event(b"u", 0, "fine")])
        comments.admit(b"v", [given])
        comments.admit(b"w", [event(b"w", 2)])
        later.run()
        await batch()
        first, second = sorted(comments.take_ready(), key=lambda one: one.offset)
        assert first.read == 4.5
        assert math.isnan(first.value), "what the producer sent stays as it was"
        assert math.isnan(second.read)
        assert second.value == 2.0
        assert first.vector is not None
        assert second.vector is not None
        assert first.vector.tolist() == second.vector.tolist()
        assert asked == ["fine"]
        assert comments.read == 1
        (again,) = comments.admit(b"x", [event(b"x", 3, "fine")])
        assert again.read == 4.5
        assert asked == ["fine"]
        assert comments.read == 2

    asyncio.run(check())


def test_without_a_reader_nothing_is_read() -> None:
    async def check() -> None:
        comments, later, _ = stage()
        comments.admit(b"u", [event(b"u", 0, "fine")])
        later.run()
        await batch()
        (one,) = comments.take_ready()
        assert math.isnan(one.read)
        assert comments.read == 0

    asyncio.run(check())


def test_texts_that_wait_at_the_stop_are_given_up_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> Future:  # type: ignore[type-arg]
        comments, later, _ = stage()
        comments.admit(b"a", [event(b"a", 0, "good")])
        comments.admit(b"b", [event(b"b", 1, "dull")])
        (waiting, *_), (running, *_) = later.jobs
        waiting.cancel()
        return running

    running = asyncio.run(check())
    running.set_result((np.zeros(3, np.float32), math.nan))  # its loop is closed
    assert not caplog.records


def test_texts_beyond_those_that_may_wait_are_urgent() -> None:
    async def check() -> None:
        patient, urgent = Later(), Later()
        comments = CommentStage(lambda text: np.zeros(3, np.float32), patient, 100, None, urgent)  # type: ignore[arg-type]
        for number in range(PATIENT + 2):
            comments.admit(b"u%d" % number, [event(b"u%d" % number, number, f"text {number}")])
        assert (len(patient.jobs), len(urgent.jobs)) == (PATIENT, 2)
        urgent.run()
        await batch()
        assert offsets(comments.take_ready()) == [PATIENT, PATIENT + 1]
        patient.run()
        await batch()
        assert len(comments.take_ready()) == PATIENT
        assert comments.held == 0
        comments.admit(b"v", [event(b"v", 100, "one more")])
        assert (len(patient.jobs), len(urgent.jobs)) == (1, 0)

    asyncio.run(check())


@pytest.mark.parametrize("at_it", [False, True])
def test_a_text_that_has_waited_too_long_is_urgent_and_so_is_what_comes_next(
    monkeypatch: pytest.MonkeyPatch, at_it: bool
) -> None:
    """On a busy machine the executor that steps back may get no time at all."""
    monkeypatch.setattr("stream.pipeline.comments.PATIENCE", 0.01)

    async def check() -> None:
        patient, urgent = Later(), Later()
        comments = CommentStage(lambda text: np.zeros(3, np.float32), patient, 100, None, urgent)  # type: ignore[arg-type]
        comments.admit(b"u", [event(b"u", 0, "first"), event(b"u", 1, "second"), event(b"u", 2)])
        (stuck, _, _) = patient.jobs[0]
        if at_it:
            stuck.set_running_or_notify_cancel()
        while not urgent.jobs:
            await asyncio.sleep(0.001)
        urgent.run()
        await batch()
        assert offsets(comments.take_ready()) == [0]
        assert (len(patient.jobs), len(urgent.jobs)) == (1, 1)  # it is not asked for the second
        assert stuck.cancelled() is not at_it
        if at_it:
            stuck.set_result(((np.zeros(3, np.float32), math.nan), 0.5))
            await batch()
            assert comments.take_ready() == []  # it counts once
        urgent.run()
        await batch()
        assert offsets(comments.take_ready()) == [1, 2]
        assert comments.held == 0

    asyncio.run(check())


def test_what_is_forgotten_is_not_encoded() -> None:
    async def check() -> None:
        comments, later, texts = stage()
        comments.admit(b"u", [event(b"u", 0, "a secret")])
        comments.forget()
        later.run()
        await batch()
        assert texts == []
        assert comments.held == 0
        comments.admit(b"u", [event(b"u", 0, "a secret")])
        later.run()
        await batch()
        assert offsets(comments.take_ready()) == [0]

    asyncio.run(check())


class Text(str):
    """One that can be watched: whether anybody still holds it."""


def test_what_is_forgotten_leaves_no_text_behind() -> None:
    """Texts that wait for an executor are dropped at once; the one that is in it runs to its end."""

    async def check() -> None:
        began, go_on = threading.Event(), threading.Event()
        texts: list[str] = []

        def encode(text: str) -> np.ndarray:
            texts.append(str(text))
            began.set()
            go_on.wait(10)
            return np.zeros(3, np.float32)

        with ThreadPoolExecutor(1) as patient, ThreadPoolExecutor(1) as urgent:
            try:
                comments = CommentStage(encode, patient, 100, None, urgent)
                comments.admit(b"r", [event(b"r", 0, "patient")])
                assert await asyncio.to_thread(began.wait, 10)
                watched = []
                for number in range(PATIENT + 5):
                    text = Text(f"text {number} of a user")
                    watched.append(weakref.ref(text))
                    comments.admit(b"u%d" % number, [event(b"u%d" % number, number, text)])
                del text
                end = time.monotonic() + 10
                while len(texts) < 2 and time.monotonic() < end:  # of the urgent ones, the first is in its executor
                    await asyncio.sleep(0.01)
                assert texts == ["patient", f"text {PATIENT - 1} of a user"]
                assert None not in [one() for one in watched]
                comments.forget()
                gc.collect()
                assert [number for number, one in enumerate(watched) if one() is not None] == [PATIENT - 1]
                assert comments.admit(b"u0", [event(b"u0", 0, "text 0 of a user")]) == [], "it is asked for again"
            finally:
                go_on.set()
            while not (ready := comments.take_ready()) and time.monotonic() < end:
                await asyncio.sleep(0.01)
            assert offsets(ready) == [0]
        assert texts == ["patient", f"text {PATIENT - 1} of a user", "text 0 of a user"]
        await batch()
        assert not comments._patient
        assert not comments._jobs

    asyncio.run(check())


def test_held_events_get_the_vectors_of_another_bundle_in_their_order() -> None:
    async def check() -> None:
        comments, later, _ = stage()
        assert comments.admit(b"u", [event(b"u", 1, "nice"), event(b"u", 2), event(b"u", 3, "dull one")]) == []
        later.run()
        await batch()
        assert comments.admit(b"v", [event(b"v", 4, "so so"), event(b"v", 5)]) == []
        assert offsets(list(comments.unfinished())) == [1, 2, 3, 4, 5]  # 1 and 2 are ready, 3 to 5 wait
        running = later.jobs[:]
        woken: list[int] = []
        comments.on_ready = lambda: woken.append(1)
        comments.use(lambda text: np.full(5, -len(text), np.float32), None, same=False)
        assert comments.take_ready() == []
        for future, call, given in running:  # the texts of the old bundle end only now: their vectors count for nothing
            if future.set_running_or_notify_cancel():
                future.set_result(call(*given))
        later.jobs = [job for job in later.jobs if job not in running]
        await batch()
        assert (offsets(comments.take_ready()), woken) == ([], [])
        while comments.held and later.jobs:
            later.run()
            await batch()
        ready = comments.take_ready()
        assert [one.offset for one in ready if one.user == b"u"] == [1, 2, 3]
        assert [one.offset for one in ready if one.user == b"v"] == [4, 5]
        assert {one.offset: one.vector[0] for one in ready if one.vector is not None} == {1: -4, 3: -8, 4: -5}
        assert all(one.vector is None or one.vector.shape == (5,) for one in ready)
        (again,) = comments.admit(b"w", [event(b"w", 6, "nice")])
        assert again.vector is not None
        assert again.vector[0] == -4, "the cache has the new vector"

    asyncio.run(check())


def test_held_events_keep_the_vectors_of_a_bundle_with_the_same_encoder() -> None:
    async def check() -> None:
        comments, later, texts = stage()
        comments.admit(b"u", [event(b"u", 1, "nice")])
        later.run()
        await batch()
        comments.admit(b"v", [event(b"v", 2, "dull")])
        comments.use(lambda text: np.full(3, -1, np.float32), None, same=True)
        (ready,) = comments.take_ready()
        assert ready.vector is not None
        assert ready.vector[0] == 4
        later.run()
        await batch()
        (ready,) = comments.take_ready()
        assert ready.vector is not None
        assert ready.vector[0] == -1, "what is asked from here on is the new bundle's"
        assert texts == ["nice"]

    asyncio.run(check())
