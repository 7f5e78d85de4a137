"""Send dead letters back to their source topics, each only once, even if the command is repeated.

A record that goes back carries the position of the first record that failed (header `original-record`, see
stream.core.origin). Before anything is sent, the source topics are read from the oldest dead letter's time on. A dead letter
is left out if its origin is already there under the key that it would be sent with. The key matters because an id is
unique within one user only: a record that another program wrote under another key with this header does not hold a
dead letter back. A record that was sent back and is a dead letter itself does not count either, because it was not applied.

There are three passes, so that a million dead letters need only about 200 bytes each: the dead letters (what could be
sent, and where to look), the source topics (what is there), and the dead letters again (send).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

from deploy.clients.log_reader import Log, Span, TopicPartition
from deploy.clients.murmur2 import murmur2
from deploy.clients.producer import Sent
from deploy.dead_letters.corrections import Acceptance, Correction, Problem, corrected
from deploy.dead_letters.reader import Choice, DeadLetter, DeadLetterReader, Source
from stream.core.origin import ORIGINAL_RECORD_HEADER, origin
from stream.settings import Settings

CLOCKS_MS = 60_000
"""How far the brokers' clocks may differ. The search begins this much earlier than a dead letter's record."""

NOTHING = (-1, -1, -1)
IN_FLIGHT = 500  # maximum number of records that are sent and not acknowledged yet


class Status(StrEnum):
    """What became of one dead letter."""

    SENT = "sent"
    READY = "would be sent"
    BACK = "already sent back"
    REPEATED = "same record as a later letter"
    WRONG = "still unacceptable"
    TRUNCATED = "truncated"


REFUSED = (Status.WRONG, Status.TRUNCATED)


class Outgoing(NamedTuple):
    """A record to send back to its source topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Outcome(NamedTuple):
    """What became of one dead letter.

    Attributes:
        dead_letter: The dead letter.
        status: What became of it.
        landed: Where the record is now, known for SENT and BACK.
        problems: Why it was refused, if it was.
    """

    dead_letter: DeadLetter
    status: Status
    landed: Sent | None
    problems: list[Problem]


class Sender(Protocol):
    """The part of deploy.clients.producer.Producer that this module uses."""

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Any) -> Any: ...

    def position(self, future: Any) -> Sent: ...


@dataclass
class Plan:
    """What to send, after the first two passes.

    Attributes:
        newest: Mark of (origin, key) -> the dead letter that would be sent for it, or NOTHING.
        back: The same mark -> where the dead letter was already sent back to.
        unseen: Source partitions whose records were deleted since. Records that were sent back there may no longer be
            visible.
        chosen: Number of dead letters that were chosen.
    """

    newest: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)
    back: dict[bytes, Sent] = field(default_factory=dict)
    unseen: list[TopicPartition] = field(default_factory=list)
    chosen: int = 0

    @property
    def anything(self) -> bool:
        """Whether there is anything to send."""
        return any(age != NOTHING and mark not in self.back for mark, age in self.newest.items())


class Redrive:
    """Sends a choice of dead letters back.

    Args:
        settings: Settings of the deployment.
        reader: Reader of the dead letters.
        choice: Which dead letters to send.
        corrections: Corrections by source. If given, only these dead letters are sent.
        again: Also send dead letters that were already sent back.
    """

    def __init__(
        self,
        settings: Settings,
        reader: DeadLetterReader,
        choice: Choice,
        corrections: Mapping[Source, Correction] | None = None,
        again: bool = False,
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._choice = choice
        self._corrections = corrections
        self._again = again
        self._acceptance = Acceptance(settings)

    def plan(self) -> Plan:
        """Do the first two passes. They send nothing."""
        plan = Plan()
        failed: set[bytes] = set()  # records that were sent back and are dead letters again
        starts: dict[TopicPartition, int] = {}
        for dead_letter in self._reader.read():
            if dead_letter.origin(self._settings) != "/".join(dead_letter.source):
                failed.add(position_mark("/".join(dead_letter.source), b""))
            if not self._chosen(dead_letter):
                continue
            plan.chosen += 1
            out, _, problems = self._ready(dead_letter)
            if out.key is None or out.topic not in self._settings.sources:
                continue
            mark = self._mark(dead_letter, out)
            newest = plan.newest.setdefault(mark, NOTHING)
            if not problems:
                plan.newest[mark] = max(newest, age_of(dead_letter))
            where = (out.topic, murmur2(out.key) % self._settings.partitions)
            starts[where] = min(starts.get(where, dead_letter.appended_ms), dead_letter.appended_ms)
        if not self._again:
            self._look(plan, starts, failed)
        return plan

    def run(self, plan: Plan, producer: Sender | None, rate: float = 0.0) -> Iterator[Outcome]:
        """Do the third pass, and yield every dead letter's outcome once it is acknowledged.

        Args:
            plan: Result of the first two passes.
            producer: Sends the records; None sends nothing.
            rate: Maximum number of records per second; 0 for no limit.
        """
        waiting: deque[tuple[DeadLetter, Any]] = deque()
        pace = Pace(rate)

        def landed(count: int) -> Iterator[Outcome]:
            while len(waiting) > count and producer is not None:
                dead_letter, future = waiting.popleft()
                yield Outcome(dead_letter, Status.SENT, producer.position(future), [])

        for dead_letter in self._reader.read():
            if not self._chosen(dead_letter):
                continue
            outcome, out = self._outcome(plan, dead_letter)
            if outcome.status is not Status.READY or producer is None:
                yield outcome
                continue
            pace.wait()
            waiting.append((dead_letter, producer.send(*out)))
            yield from landed(min(IN_FLIGHT, int(rate)) if rate else IN_FLIGHT)
        yield from landed(0)

    def _chosen(self, dead_letter: DeadLetter) -> bool:
        return self._choice.has(dead_letter) and (self._corrections is None or dead_letter.source in self._corrections)

    def _outcome(self, plan: Plan, dead_letter: DeadLetter) -> tuple[Outcome, Outgoing]:
        out, status, problems = self._ready(dead_letter)
        mark = self._mark(dead_letter, out)
        if found := plan.back.get(mark):
            return Outcome(dead_letter, Status.BACK, found, []), out
        if problems:
            return Outcome(dead_letter, status, None, problems), out
        if plan.newest.get(mark) != age_of(dead_letter):
            return Outcome(dead_letter, Status.REPEATED, None, []), out
        return Outcome(dead_letter, Status.READY, None, []), out

    def _ready(self, dead_letter: DeadLetter) -> tuple[Outgoing, Status, list[Problem]]:
        """Return the record to send, its status if it is refused, and what is wrong with it."""
        out = outgoing(self._settings, dead_letter, (self._corrections or {}).get(dead_letter.source))
        if dead_letter.fields["truncated"] == "true" and out.value == dead_letter.value:
            return out, Status.TRUNCATED, [Problem("", "only a part of it was kept: provide the whole value")]
        return out, Status.WRONG, self._acceptance.problems(*out[:3], after_ms=dead_letter.appended_ms)

    def _mark(self, dead_letter: DeadLetter, out: Outgoing) -> bytes:
        return position_mark(dead_letter.origin(self._settings), out.key or b"")

    def _look(self, plan: Plan, starts: dict[TopicPartition, int], failed: set[bytes]) -> None:
        """Find what was already sent back, in the source topics from `starts` (append times, epoch ms) on."""
        for first, key, landed in carried(self._settings, self._reader.log, starts, failed, plan.unseen):
            found = position_mark(first, key)
            if found in plan.newest:
                plan.back[found] = landed


def carried(
    settings: Settings, log: Log, starts: Mapping[TopicPartition, int], failed: set[bytes], unseen: list[TopicPartition]
) -> Iterator[tuple[str, bytes, Sent]]:
    """Yield (first position, key, current position) of every record in the source partitions that was sent back.

    Args:
        settings: Settings of the deployment.
        log: Reads the topics.
        starts: Source partition -> append time (epoch ms) to read from.
        failed: Marks (without a key) of the positions of records to leave out, because they are dead letters again.
        unseen: Receives the partitions whose records since the start time were partly deleted.
    """
    if not starts:
        return
    ends = log.spans(sorted({topic for topic, _ in starts}))
    offsets = log.at({tp: max(0, start - CLOCKS_MS) for tp, start in starts.items()})
    for tp, offset in sorted(offsets.items()):
        span = ends.get(tp)
        if span is None:
            continue
        if 0 < span.start >= offset:
            unseen.append(tp)
        for record in log.records(tp[0], {tp: Span(max(offset, span.start), span.end)}):
            if not record.headers:
                continue
            first = origin(record.headers, settings.sources)
            if first and position_mark(f"{tp[0]}/{record.partition}/{record.offset}", b"") not in failed:
                yield first, record.key or b"", Sent(tp[0], record.partition, record.offset)


def outgoing(settings: Settings, dead_letter: DeadLetter, correction: Correction | None = None) -> Outgoing:
    """Return a dead letter as a record for its source topic, with its key, its headers and the position of its first record."""
    key, value = corrected(dead_letter, correction)
    others = [
        (name, value or b"") for name, value in dead_letter.headers if name != ORIGINAL_RECORD_HEADER
    ]  # kafka-python sends no null
    return Outgoing(
        dead_letter.fields["topic"],
        key,
        value,
        [(ORIGINAL_RECORD_HEADER, dead_letter.origin(settings).encode()), *others],
    )


class Pace:
    """Limits sending to `rate` records per second; 0: no limit."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next = 0.0

    def wait(self) -> None:
        """Wait until the next record may be sent. Lost time is not made up for."""
        if not self._gap:
            return
        now = self._clock()
        if now < self._next:
            self._sleep(self._next - now)
        self._next = max(now, self._next) + self._gap


def position_mark(position: str, key: bytes) -> bytes:
    """Return a 16-byte hash of a position and a key."""
    return blake2b(key, digest_size=16, salt=blake2b(position.encode(), digest_size=16).digest()).digest()


def age_of(dead_letter: DeadLetter) -> tuple[int, int, int]:
    """Return a sort key that grows with time and differs between any two dead letters."""
    return dead_letter.failed_ms, dead_letter.position.partition, dead_letter.position.offset
