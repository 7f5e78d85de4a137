"""`freshet worker` in which something ends, or stands still, that must not: the test of stream.process.supervision and
stream.process.progress.

python -m tests.broken NAME       once the worker is ready, or from its start, the thing of that name happens
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from stream import worker
from stream.assembly import CountingEncoder
from stream.inference.models import Models
from stream.kafka.consumer import SourceConsumer
from stream.kafka.source_fetcher import SourceFetcher
from stream.pipeline.pipeline import Pipeline
from stream.worker import Worker
from tests.patching import patch

Act = Callable[[Any], None]
"""Of a worker that is ready. Any: it reaches into what is optional before, or private to a library."""
AHEAD = 2 * 3600.0  # seconds


def clock() -> None:
    """This machine's clock is two hours ahead."""
    now = time.time
    time.time = lambda: now() + AHEAD


def golden() -> None:
    """A graph does not end."""
    patch(worker, "BUNDLE_LIMIT", 3.0)
    patch(Models, "check_golden", lambda *_: time.sleep(3600))


def memory() -> None:
    """Memory runs out in the middle of a micro-batch."""

    def short(*_: Any) -> Any:
        raise MemoryError

    patch(Pipeline, "_decode", short)


def fetch_stands() -> None:
    """A fetch never returns, though the broker answers."""

    async def stands(*_: Any) -> None:
        await asyncio.sleep(3600)

    patch(SourceFetcher, "_read", stands)


def commit_stands() -> None:
    """Commits are said to be made, and are not."""

    async def nothing(*_: Any, **__: Any) -> bool:
        return False

    patch(SourceConsumer, "force_commit", nothing)


def encoding_stands() -> None:
    """The text of a comment is encoded for ever."""
    patch(CountingEncoder, "encode", lambda *_: time.sleep(3600))
    patch(CountingEncoder, "encode_and_read", lambda *_: time.sleep(3600))


def agent(one: Any) -> None:
    (reference,) = one._parts.app.interest.agent._actors
    reference.actor_task.cancel()


def coordination(one: Any) -> None:
    client = one._parts.consumer._thread.client()
    one._parts.consumer._thread.thread_loop.call_soon_threadsafe(client._coordinator._coordination_task.cancel)


def fetching(one: Any) -> None:
    client = one._parts.consumer._thread.client()
    one._parts.consumer._thread.thread_loop.call_soon_threadsafe(client._fetcher._fetch_task.cancel)


def sending(one: Any) -> None:
    one._parts.app.producer._producer._sender._sender_task.cancel()


def items(one: Any) -> None:
    one._items.task.cancel()


def service(one: Any) -> None:
    for task in asyncio.all_tasks():
        if "Recovery._restart_recovery" in task.get_name():
            task.cancel()


def callback(one: Any) -> None:
    asyncio.get_running_loop().call_soon(one._parts.comments._release, b"nobody", (None, 0.0))


def health(one: Any) -> None:
    one._health._server.shutdown()


def thread(one: Any) -> None:
    threading.Thread(target=one._parts.comments._release, args=(b"nobody", (None, 0.0))).start()


def loop(one: Any) -> None:
    time.sleep(3600)


def consumers_loop(one: Any) -> None:
    one._parts.consumer._thread.thread_loop.call_soon_threadsafe(time.sleep, 3600)


def descriptors(one: Any) -> None:
    """No file can be opened any more, and no connection made; those that there are break."""
    import resource

    # those that are open stay so; whatever is closed, no number below 3 comes free
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for node in list(one._parts.consumer._thread.client()._client._conns.values()):
        one._parts.consumer._thread.thread_loop.call_soon_threadsafe(node.close)


STARTS: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (clock, golden, memory, fetch_stands, commit_stands, encoding_stands)
}
READY: dict[str, Act] = {
    one.__name__: one
    for one in (
        agent, coordination, fetching, sending, items, service, callback, health, thread, loop, consumers_loop, descriptors,
    )
}  # fmt: skip


def once_ready(act: Act) -> None:
    """Called from the event loop, a second after the worker has become ready."""
    look, ready = Worker._look, [0.0]

    def looked(self: Worker, *rest: Any) -> None:
        look(self, *rest)
        if ready[0] == 0.0 and self._parts is not None and not self._health.missing():
            ready[0] = time.monotonic()
        if ready[0] > 0.0 and time.monotonic() - ready[0] > 1.0:
            ready[0] = -1.0
            act(self)

    patch(Worker, "_look", looked)


if __name__ == "__main__":
    from deploy.cli.main import main

    name = sys.argv.pop()
    if name in READY:
        once_ready(READY[name])
    else:
        STARTS[name]()
    sys.argv[1:] = ["worker"]
    main()
