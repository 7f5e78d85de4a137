"""The state of dead letters: which are open, and which were already sent back.

A letter was sent back if a source topic holds a record that names the letter's first place in its header
`original-record`, under a key that the letter's user can have, and if that record is not a dead letter itself. This is
the rule of deploy.dead_letters.redrive, for letters whose correction is not known. A record under any other key may be
forged: its letter stays open, and the place of the record is reported.

There are two passes before the first answer: all dead letters, then the source topics from the oldest chosen letter's
time on. A chosen letter needs about 400 bytes of memory.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from deploy.clients.log_reader import TopicPartition
from deploy.clients.producer import Sent
from deploy.clients.schema import parse
from deploy.dead_letters.reader import Choice, DeadLetterReader, Letter
from deploy.dead_letters.redrive import age_of, carried, place_mark
from stream.core.keys import FORMS
from stream.settings import Settings


class State(StrEnum):
    """The state of one letter."""

    OPEN = "open"
    ELSEWHERE = "open, sent under another key"
    BACK = "sent back"
    REPEATED = "same record as a later letter"

    @property
    def open(self) -> bool:
        """Whether the letter still needs attention."""
        return self in (State.OPEN, State.ELSEWHERE)


class Stand(NamedTuple):
    """The state of a letter. landed: the record that was sent back, if there is one."""

    state: State
    landed: Sent | None


class Standing:
    """Finds out what became of the letters of `choice`, once, when it is created.

    Attributes:
        unseen: Source partitions whose records were deleted after a letter was written. Records that were sent back
            there may no longer be visible.

    Raises:
        BrokerError: The topics cannot be read.
        TopologyError: A topic is missing.
    """

    def __init__(self, settings: Settings, box: DeadLetterReader, choice: Choice) -> None:
        self._settings = settings
        self._newest: dict[bytes, tuple[int, int, int]] = {}
        self._back: dict[bytes, Sent] = {}  # by mark of (origin, key)
        self._any: dict[bytes, Sent] = {}  # by mark of (origin, ""): under any key
        self.unseen: list[TopicPartition] = []
        self._look(box, choice)

    def of(self, letter: Letter) -> Stand:
        """Return the state of a letter of the choice."""
        first = letter.origin(self._settings)
        whole, keys = place_mark(first, b""), _keys(letter, self._settings.key)
        for key in keys:
            if found := self._back.get(place_mark(first, key)):
                return Stand(State.BACK, found)
        elsewhere = self._any.get(whole)
        if elsewhere and not keys:
            return Stand(State.BACK, elsewhere)
        if self._newest.get(whole, age_of(letter)) > age_of(letter):
            return Stand(State.REPEATED, None)
        return Stand(State.ELSEWHERE if elsewhere else State.OPEN, elsewhere)

    def _look(self, box: DeadLetterReader, choice: Choice) -> None:
        failed: set[bytes] = set()
        oldest: dict[str, int] = {}
        for letter in box.read():
            first, source = letter.origin(self._settings), "/".join(letter.source)
            if first != source:
                failed.add(place_mark(source, b""))
            chosen = choice.has(letter)
            if chosen or first != source:  # a letter that failed again replaces the first one, chosen or not
                whole = place_mark(first, b"")
                self._newest[whole] = max(self._newest.get(whole, age_of(letter)), age_of(letter))
            topic = letter.said["topic"]
            if chosen and topic in self._settings.sources:
                oldest[topic] = min(oldest.get(topic, letter.appended_ms), letter.appended_ms)
        if not oldest:
            return
        starts = {
            place: oldest[place[0]] for place in box.log.spans(sorted(oldest))
        }  # a record with a corrected key may be on any partition
        for first, key, landed in carried(self._settings, box.log, starts, failed, self.unseen):
            whole = place_mark(first, b"")
            if whole in self._newest:
                self._any[whole] = landed
                self._back[place_mark(first, key)] = landed


def _keys(letter: Letter, form: str) -> set[bytes]:
    """Return the keys that the letter's user can have: the letter's key and the key of the user in its body.

    Empty if neither is known.
    """
    keys = {letter.key} if letter.key else set()
    try:
        body = parse(letter.value or b"")
    except ValueError:
        return keys
    user = body.get("user") if isinstance(body, dict) else None
    named = FORMS[form].write(user) if isinstance(user, str) and user else None
    return keys | ({named} if named else set())
