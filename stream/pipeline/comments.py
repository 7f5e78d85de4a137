"""The comment stage: texts are encoded outside the hot path, so that they delay no other user.

A comment whose vector is not known yet waits, and so do the later events of its user; all other users go on. Vectors
are cached by text hash. Texts are encoded one by one, so a vector depends only on its text. The same holds for the
rating that is read from a comment without a value, if the bundle can do so.

The executor may run at a low priority. On a busy machine it may get no time at all. So a text that has waited for
PATIENCE goes to `urgent`, and for some time all new texts do. If events waited too long, the worker would stop reading.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from stream.core.messages import SourceEvent
from stream.process.fatal import fatal

PATIENT = 32
"""Texts that may wait for the low-priority executor."""
PATIENCE = 1.0
"""Seconds that a text may wait for it."""
HASTE = 10.0
"""Seconds for which it gets no new texts after one has waited too long."""

Vector = NDArray[np.float32]
Read = tuple[Vector, float]
"""A text's vector and the rating in it (NaN: not requested)."""
Encoding = Future[tuple[Read, float]]
"""What an executor works on. Its result also has the seconds that it took."""


class _Job:
    """A text on its way through an executor.

    The executor's queue keeps its arguments until their turn, even if they are cancelled. So it gets this object, from
    which the text can be removed.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class CommentStage:
    """Holds back events until their comments are encoded. All methods run in the event loop.

    Args:
        encode: Text -> float32 [text width].
        executor: Runs `encode` and `read`.
        cache: Number of vectors to keep.
        read: Like `encode`, but also returns the rating, for comments without a value. None: they stay without one.
        urgent: Runs `encode` and `read` if `executor` is behind. None: `executor` runs them all.
    Attributes:
        on_ready: Called when held events may go on.
    """

    def __init__(
        self,
        encode: Callable[[str], Vector],
        executor: Executor,
        cache: int,
        read: Callable[[str], Read] | None = None,
        urgent: Executor | None = None,
    ) -> None:
        self._encode = encode
        self._read = read
        self._executor = executor
        self._urgent = urgent or executor
        self._patient: dict[Encoding, asyncio.TimerHandle] = {}  # in `executor` -> when to lose patience
        self._others: set[Encoding] = set()  # in `urgent`
        self._hasty = -math.inf  # time until which all texts go to `urgent`, by the loop's clock
        self._size = cache
        self._cache: OrderedDict[bytes, Read] = OrderedDict()
        self._waiting: dict[bytes, deque[SourceEvent]] = {}  # user -> its events; the first is a comment to be encoded
        self._asked: dict[bytes, list[bytes]] = {}  # hash of what is requested -> users waiting for it
        self._ready: list[SourceEvent] = []
        self._jobs: dict[Future[tuple[Read, float]], _Job] = {}
        self._epoch = 0
        self._model = 0  # number of the encoder in use
        self.on_ready: Callable[[], None] = lambda: None
        self.encoded = 0
        self.seconds = 0.0  # spent encoding
        self.hits = 0
        self.read = 0  # comments whose rating was read

    def admit(self, user: bytes, events: list[SourceEvent]) -> list[SourceEvent]:
        """Take one user's new events in order. Return those that may be folded now, and hold the others."""
        queue = self._waiting.get(user)
        if queue is not None:
            queue.extend(events)
            return []
        for index, event in enumerate(events):
            if not self._attach(event):
                self._waiting[user] = deque(events[index:])
                self._ask(user, event)
                return events[:index]
        return events

    def take_ready(self) -> list[SourceEvent]:
        """Return the held events that may be folded now, each user's in order."""
        ready, self._ready = self._ready, []
        return ready

    def unfinished(self) -> Iterator[SourceEvent]:
        """Yield every event that was admitted and is not passed on yet."""
        yield from self._ready
        for queue in self._waiting.values():
            yield from queue

    def queues(self) -> Collection[Collection[SourceEvent]]:
        """Return the events of each waiting user, its comment first."""
        return self._waiting.values()

    @property
    def held(self) -> int:
        """Number of events that wait."""
        return len(self._ready) + sum(map(len, self._waiting.values()))

    def forget(self) -> None:
        """Forget all held events after partitions were revoked: the next owner reads them again.

        No text of them is kept. Encodings that an executor has begun still finish.
        """
        self._epoch += 1
        self._waiting.clear()
        self._asked.clear()
        self._ready.clear()
        for timer in self._patient.values():
            timer.cancel()
        for future in self._jobs:
            self._cancel(future)

    def use(self, encode: Callable[[str], Vector], read: Callable[[str], Read] | None, *, same: bool) -> None:
        """Encode with another bundle from here on. Held events get its vectors; their order stays.

        Args:
            encode: As for CommentStage.
            read: Likewise.
            same: Whether it gives the same vectors and ratings: then what was encoded stays.
        """
        self._encode, self._read = encode, read
        if same:
            return
        held: dict[bytes, list[SourceEvent]] = {}
        for event in self.unfinished():
            held.setdefault(event.user, []).append(event)
        self.forget()
        self._model += 1
        self._cache.clear()
        for user, events in held.items():
            for event in events:
                event.vector, event.read = None, math.nan
            self._ready += self.admit(user, events)
        if self._ready:
            self.on_ready()

    async def drained(self, seconds: float) -> bool:
        """Wait until nothing is held. Return False if that takes longer than `seconds`."""
        end = asyncio.get_running_loop().time() + seconds
        while self.held and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        return not self.held

    def _attach(self, event: SourceEvent) -> bool:
        """Return True if the event needs no text vector, or has one now."""
        if not event.text or event.vector is not None:
            return True
        digest = self._digest(event)
        found = self._cache.get(digest)
        if found is None:
            return False
        self._cache.move_to_end(digest)
        self.hits += 1
        self._give(event, found)
        return True

    def _give(self, event: SourceEvent, found: Read) -> None:
        event.vector, event.read = found
        self.read += not math.isnan(event.read)

    def _wanted(self, event: SourceEvent) -> bool:
        return self._read is not None and math.isnan(event.value)

    def _digest(self, event: SourceEvent) -> bytes:
        """Return a hash of the text and of whether its rating is requested, too."""
        kind = b"read" if self._wanted(event) else b""
        return blake2b(event.text.encode(), digest_size=16, person=kind).digest()

    def _ask(self, user: bytes, event: SourceEvent) -> None:
        digest = self._digest(event)
        users = self._asked.get(digest)
        if users is not None:
            users.append(user)
            return
        self._asked[digest] = [user]
        loop = asyncio.get_running_loop()
        if len(self._patient) >= PATIENT or loop.time() < self._hasty:
            self._submit(self._urgent, digest, event)
        else:
            future = self._submit(self._executor, digest, event)
            self._patient[future] = loop.call_later(PATIENCE, self._hurry, future, digest, event)

    def _hurry(self, future: Encoding, digest: bytes, event: SourceEvent) -> None:
        """Give a text that has waited too long to `urgent`. If `executor` already encodes it, the first result counts."""
        if self._urgent is not self._executor:
            self._cancel(future)
            self._hasty = asyncio.get_running_loop().time() + HASTE
            self._submit(self._urgent, digest, event)

    def _submit(self, executor: Executor, digest: bytes, event: SourceEvent) -> Encoding:
        loop, job = asyncio.get_running_loop(), _Job(event.text)
        epoch, model = self._epoch, self._model

        def tell(done: Encoding) -> None:
            with suppress(RuntimeError):  # the loop is closed: it has stopped
                loop.call_soon_threadsafe(self._done, epoch, model, digest, done)

        future = executor.submit(self._timed, job, self._wanted(event))
        self._jobs[future] = job
        future.add_done_callback(tell)
        return future

    def _timed(self, job: _Job, wanted: bool) -> tuple[Read, float]:
        text = job.text
        began = time.perf_counter()
        found = self._read(text) if self._read and wanted else (self._encode(text), math.nan)
        return found, time.perf_counter() - began

    def _cancel(self, future: Encoding) -> None:
        if future.cancel():
            self._jobs[future].text = ""

    def _done(self, epoch: int, model: int, digest: bytes, done: Encoding) -> None:
        self._jobs.pop(done, None)
        if timer := self._patient.pop(done, None):
            timer.cancel()
        if done.cancelled():  # forgotten, given to the other executor, or the worker stops
            return
        if error := done.exception():
            fatal(error)
        if model != self._model:
            return  # of a bundle that is no longer served
        found, seconds = done.result()
        self.seconds += seconds
        self.encoded += 1
        if self._size:
            self._cache[digest] = found
            if len(self._cache) > self._size:
                self._cache.popitem(last=False)
        if epoch != self._epoch:
            return
        for user in self._asked.pop(digest, ()):
            self._release(user, found)
        if self._ready:
            self.on_ready()

    def _release(self, user: bytes, found: Read) -> None:
        queue = self._waiting[user]
        self._give(queue[0], found)
        while queue and self._attach(queue[0]):
            self._ready.append(queue.popleft())
        if queue:
            self._ask(user, queue[0])
        else:
            del self._waiting[user]
