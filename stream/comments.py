"""The comment stage: texts are encoded beside the hot path, so that they delay no other user.

A comment whose vector is not known yet waits, and with it its own user's later events; everyone else goes on. Vectors
are kept by text hash. Texts are encoded one by one: a vector depends on its text alone, and so does the rating that is read out
of a comment without a value, where the bundle can. The executor may be one that steps back behind everything else; where it falls
behind, `urgent` takes what comes further, since events that wait too long end in a worker that reads nothing.
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

from stream.events import SourceEvent
from stream.fatal import fatal

PATIENT = 32
"""Texts that may wait for the executor that steps back."""

Vector = NDArray[np.float32]
Read = tuple[Vector, float]
"""A text's vector and the rating in it (NaN: not asked for)."""


class _Job:
    """A text on its way through an executor, whose queue holds what it was given until its turn comes, cancelled or not: so it
    holds this, from which the text can be taken away."""

    __slots__ = ("patient", "text")

    def __init__(self, text: str, patient: bool) -> None:
        self.text = text
        self.patient = patient


class CommentStage:
    """Holds back events until their comments are encoded. All methods run in the event loop.

    encode: text -> float32 [text width]; read: the same with the rating, for comments without a value; None: they stay
    without. Both are called in `executor`, or in `urgent` while PATIENT texts wait for the former (None: never).
    on_ready: called when held events may go on.
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
        self._patient = 0  # texts that wait for `executor`, or are in it
        self._size = cache
        self._cache: OrderedDict[bytes, Read] = OrderedDict()
        self._waiting: dict[bytes, deque[SourceEvent]] = {}  # user -> its events, a comment to be encoded first
        self._asked: dict[bytes, list[bytes]] = {}  # hash of what is wanted -> users waiting for it
        self._ready: list[SourceEvent] = []
        self._jobs: dict[Future[tuple[Read, float]], _Job] = {}
        self._epoch = 0
        self.on_ready: Callable[[], None] = lambda: None
        self.encoded = 0
        self.seconds = 0.0  # spent encoding
        self.hits = 0
        self.read = 0  # comments whose rating was read

    def admit(self, user: bytes, events: list[SourceEvent]) -> list[SourceEvent]:
        """One user's new events, in order -> those that may be folded now; the others are held."""
        queue = self._waiting.get(user)
        if queue is not None:
            queue.extend(events)
            return []
        for place, event in enumerate(events):
            if not self._attach(event):
                self._waiting[user] = deque(events[place:])
                self._ask(user, event)
                return events[:place]
        return events

    def take_ready(self) -> list[SourceEvent]:
        """Held events that may be folded now, each user's in order."""
        ready, self._ready = self._ready, []
        return ready

    def unfinished(self) -> Iterator[SourceEvent]:
        """Every event that was admitted and not handed on yet."""
        yield from self._ready
        for queue in self._waiting.values():
            yield from queue

    def queues(self) -> Collection[Collection[SourceEvent]]:
        """Of each user that waits, the events, its comment first."""
        return self._waiting.values()

    @property
    def held(self) -> int:
        """Events that wait."""
        return len(self._ready) + sum(map(len, self._waiting.values()))

    def forget(self) -> None:
        """Partitions were revoked: whoever gets them reads the held events again. No text of them is kept; what an executor has
        begun comes to its end."""
        self._epoch += 1
        for future, job in self._jobs.items():
            if future.cancel():
                self._patient -= job.patient
                job.text = ""
        self._jobs.clear()
        self._waiting.clear()
        self._asked.clear()
        self._ready.clear()

    async def drained(self, seconds: float) -> bool:
        """Wait until nothing is held. False: it took longer than `seconds`."""
        end = asyncio.get_running_loop().time() + seconds
        while self.held and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        return not self.held

    def _attach(self, event: SourceEvent) -> bool:
        """True where the event needs no text vector, or has got it."""
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
        """Of the text and of whether its rating is wanted too."""
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
        epoch = self._epoch
        patient = self._patient < PATIENT
        self._patient += patient
        executor = self._executor if patient else self._urgent
        job = _Job(event.text, patient)
        future = executor.submit(self._timed, job, self._wanted(event))
        self._jobs[future] = job

        def tell(done: Future[tuple[Read, float]]) -> None:
            if done.cancelled():  # forgotten, or the worker stops
                return
            with suppress(RuntimeError):  # the loop is closed: it has stopped
                loop.call_soon_threadsafe(self._done, epoch, digest, patient, done.exception(), done)

        future.add_done_callback(tell)

    def _timed(self, job: _Job, wanted: bool) -> tuple[Read, float]:
        text = job.text
        began = time.perf_counter()
        found = self._read(text) if self._read and wanted else (self._encode(text), math.nan)
        return found, time.perf_counter() - began

    def _done(
        self, epoch: int, digest: bytes, patient: bool, error: BaseException | None, done: Future[tuple[Read, float]]
    ) -> None:
        self._jobs.pop(done, None)
        self._patient -= patient
        if error is not None:
            fatal(error)
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
