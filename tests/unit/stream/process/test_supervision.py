"""What ends unasked ends the process: each way in which a task, a service, a callback or a thread can end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from mode import Service

from stream.core.errors import FreshetError
from stream.process import supervision

EMPTY: dict[str, object] = {}


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    found: list[BaseException] = []

    def fatal(error: BaseException) -> None:
        found.append(error)

    monkeypatch.setattr(supervision, "fatal", fatal)
    monkeypatch.setattr(supervision, "OURS", (__name__,))
    for name in ("crash", "_execute_task", "_gather_futures"):
        monkeypatch.setattr(Service, name, getattr(Service, name))
    monkeypatch.setattr(threading, "excepthook", lambda ended: None)
    return found


def served(
    work: Callable[[], Awaitable[None]], act: Callable[[asyncio.Future[Any]], object], stopping: bool = False
) -> None:
    """A service with one task; `act` is done to it."""

    async def run() -> None:
        supervision.guard_services(lambda: stopping)
        service = Service()
        await service.start()
        task = service.add_future(work())
        await asyncio.sleep(0.01)
        act(task)
        await asyncio.sleep(0.05)
        await service.stop()

    asyncio.run(run())


async def lasts() -> None:
    await asyncio.sleep(10)


async def forgets() -> None:
    """Goes on at the first cancellation, as what awaits asyncio.wait_for may."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(10)
    await asyncio.sleep(10)


async def returns() -> None:
    await asyncio.sleep(0)


async def raises() -> None:
    raise ValueError("broken")


async def awaits_what_is_cancelled() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(10))
    asyncio.get_running_loop().call_later(0.02, inner.cancel)
    await inner


def nothing(task: asyncio.Future[Any]) -> None:
    pass


def test_a_service_whose_task_raises_ends_it_with_the_error(ends: list[BaseException]) -> None:
    served(raises, nothing)
    assert [str(error) for error in ends] == ["broken"]


@pytest.mark.parametrize("work", [returns, awaits_what_is_cancelled])
def test_a_service_whose_task_ends_or_is_cancelled_from_within_ends_it(
    ends: list[BaseException], work: Callable[[], Awaitable[None]]
) -> None:
    served(work, nothing)
    (error,) = ends
    assert isinstance(error, FreshetError)
    assert work.__name__ in str(error)
    assert "nobody asked it" in str(error)


def test_a_service_that_is_stopped_ends_nothing(ends: list[BaseException]) -> None:
    served(lasts, nothing)
    assert ends == []


@pytest.mark.parametrize("work", [returns, raises])
def test_nothing_is_unasked_while_the_worker_stops(
    ends: list[BaseException], work: Callable[[], Awaitable[None]]
) -> None:
    served(work, nothing, stopping=True)
    assert ends == []


@pytest.mark.parametrize(
    ("done", "message"),
    [
        (lambda task: task.cancel(), "the task fetching was cancelled"),
        (lambda task: task.set_result(None), "the task fetching has ended"),
        (lambda task: task.set_exception(ValueError("broken")), "broken"),
    ],
)
def test_a_client_s_task_that_is_done_ends_it(
    ends: list[BaseException], done: Callable[[asyncio.Future[None]], object], message: str
) -> None:
    async def run() -> None:
        task: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        supervision.look([("fetching", task), ("none yet", None)], [])
        assert ends == []
        done(task)
        supervision.look([("fetching", task)], [])

    asyncio.run(run())
    assert [str(error).partition(",")[0] for error in ends] == [message]


def test_a_thread_that_has_ended_ends_it(ends: list[BaseException]) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    supervision.look([], [("health", thread), ("none yet", None)])
    assert [str(error).partition(",")[0] for error in ends] == ["the thread health has ended"]


def test_an_exception_in_a_thread_ends_it(ends: list[BaseException]) -> None:
    supervision.guard_threads(lambda: False)
    thread = threading.Thread(target=lambda: EMPTY["x"])
    thread.start()
    thread.join()
    assert [repr(error) for error in ends] == ["KeyError('x')"]


def in_a_loop(act: Callable[[asyncio.AbstractEventLoop], object]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        supervision.guard_loop(loop, lambda: False)
        act(loop)
        await asyncio.sleep(0.05)

    asyncio.run(run())


def test_an_exception_in_a_callback_ends_it(ends: list[BaseException]) -> None:
    in_a_loop(lambda loop: loop.call_soon(lambda: EMPTY["x"]))
    assert [repr(error) for error in ends] == ["KeyError('x')"]


def test_an_exception_in_a_task_that_nobody_asks_ends_it(ends: list[BaseException]) -> None:
    in_a_loop(lambda loop: loop.create_task(raises()))
    assert [str(error) for error in ends] == ["broken"]


def test_what_a_lost_connection_leaves_behind_is_only_logged(
    ends: list[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def lost() -> None:
        raise KafkaConnectionError("gone")

    in_a_loop(lambda loop: loop.create_task(lost()))
    assert ends == []
    assert "never retrieved" in caplog.text


def test_a_stop_cancels_a_task_until_it_has_ended(ends: list[BaseException]) -> None:
    async def run() -> None:
        supervision.guard_services(lambda: False)
        service = Service()
        await service.start()
        task = service.add_future(forgets())
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await service.stop()
        assert task.done()

    asyncio.run(run())
    assert ends == []
