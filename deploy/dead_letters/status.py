"""The state of dead letters: which are open, and which were already sent back.

A dead letter was sent back if a source topic holds a record that names the dead letter's first position in its
header `original-record`, under a key that the dead letter's user can have, and if that record is not a dead letter
itself. This is the rule of deploy.dead_letters.redrive, for dead letters whose correction is not known. A record under
any other key may be forged: its dead letter stays open, and the position of the record is reported.

There are two passes before the first answer: all dead letters, then the source topics from the oldest chosen dead
letter's time on. A chosen dead letter needs about 400 bytes of memory.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from deploy.clients.log_reader import TopicPartition
from deploy.clients.producer import Sent
from deploy.clients.schema import parse
from deploy.dead_letters.reader import Choice, DeadLetter, DeadLetterReader
from deploy.dead_letters.redrive import age_of, carried, position_mark
from stream.core.keys import FORMS
from stream.settings import Settings


class State(StrEnum):
    """The state of one dead letter."""

    OPEN = "open"
    ELSEWHERE = "open, sent under another key"
    BACK = "sent back"
    REPEATED = "same record as a later letter"

    @property
    def open(self) -> bool:
        """Whether the dead letter still needs attention."""
        return self in (State.OPEN, State.ELSEWHERE)


class DeadLetterStatus(NamedTuple):
    """The state of a dead letter. landed: the record that was sent back, if there is one."""

    state: State
    landed: Sent | None


class DeadLetterStatuses:
    """Finds out what became of the dead letters of `choice`, once, when it is created.

    Attributes:
        unseen: Source partitions whose records were deleted after a dead letter was written. Records that were sent back
            there may no longer be visible.

    Raises:
        BrokerError: The topics cannot be read.
        TopologyError: A topic is missing.
    """

    def __init__(self, settings: Settings, reader: DeadLetterReader, choice: Choice) -> None:
        self._settings = settings
        self._newest: dict[bytes, tuple[int, int, int]] = {}
        self._back: dict[bytes, Sent] = {}  # by mark of (origin, key)
        self._any: dict[bytes, Sent] = {}  # by mark of (origin, ""): under any key
        self.unseen: list[TopicPartition] = []
        self._look(reader, choice)

    def of(self, dead_letter: DeadLetter) -> DeadLetterStatus:
        """Return the state of a dead letter of the choice."""
        first = dead_letter.origin(self._settings)
        whole, keys = position_mark(first, b""), _keys(dead_letter, self._settings.key)
        for key in keys:
            if found := self._back.get(position_mark(first, key)):
                return DeadLetterStatus(State.BACK, found)
        elsewhere = self._any.get(whole)
        if elsewhere and not keys:
            return DeadLetterStatus(State.BACK, elsewhere)
        if self._newest.get(whole, age_of(dead_letter)) > age_of(dead_letter):
            return DeadLetterStatus(State.REPEATED, None)
        return DeadLetterStatus(State.ELSEWHERE if elsewhere else State.OPEN, elsewhere)

    def _look(self, reader: DeadLetterReader, choice: Choice) -> None:
        failed: set[bytes] = set()
        oldest: dict[str, int] = {}
        for dead_letter in reader.read():
            first, source = dead_letter.origin(self._settings), "/".join(dead_letter.source)
            if first != source:
                failed.add(position_mark(source, b""))
            chosen = choice.has(dead_letter)
            if chosen or first != source:  # a dead letter that failed again replaces the first one, chosen or not
                whole = position_mark(first, b"")
                self._newest[whole] = max(self._newest.get(whole, age_of(dead_letter)), age_of(dead_letter))
            topic = dead_letter.fields["topic"]
            if chosen and topic in self._settings.sources:
                oldest[topic] = min(oldest.get(topic, dead_letter.appended_ms), dead_letter.appended_ms)
        if not oldest:
            return
        starts = {
            tp: oldest[tp[0]] for tp in reader.log.spans(sorted(oldest))
        }  # a record with a corrected key may be on any partition
        for first, key, landed in carried(self._settings, reader.log, starts, failed, self.unseen):
            whole = position_mark(first, b"")
            if whole in self._newest:
                self._any[whole] = landed
                self._back[position_mark(first, key)] = landed


def _keys(dead_letter: DeadLetter, form: str) -> set[bytes]:
    """Return the keys that the dead letter's user can have: the dead letter's key and the key of the user in its body.

    Empty if neither is known.
    """
    keys = {dead_letter.key} if dead_letter.key else set()
    try:
        body = parse(dead_letter.value or b"")
    except ValueError:
        return keys
    user = body.get("user") if isinstance(body, dict) else None
    named = FORMS[form].write(user) if isinstance(user, str) and user else None
    return keys | ({named} if named else set())
