"""What a worker accepted, record by record. The settings that decide this may have been changed while the log grew.

A change is given as POSITION=VALUE. VALUE held before POSITION, which is the topic/partition/offset of the first record
for which the next value held, or the time when it was appended. A time holds for every partition for which no offset is given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from deploy.clients.log_reader import TopicPartition
from stream.core import times
from stream.core.errors import DataError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Setting(Generic[Value]):
    """One setting over the length of the log.

    Attributes:
        now: The value since the last change.
        offsets: (behaviour, partition) -> (offset, value before it), ascending.
        times: (epoch ms, value before it), ascending, for the other partitions.
    """

    now: Value
    offsets: dict[tuple[int, int], list[tuple[int, Value]]] = field(default_factory=dict)
    times: list[tuple[int, Value]] = field(default_factory=list)

    def at(self, behaviour: int, partition: int, offset: int, append_ms: int) -> Value:
        """Return the value that held when a worker read this record."""
        if not self.offsets and not self.times:
            return self.now
        changes = self.offsets.get((behaviour, partition))
        where = append_ms if changes is None else offset
        return next((value for until, value in changes or self.times if where < until), self.now)

    def values(self) -> list[Value]:
        """Return every value that ever held."""
        changes = [change for one in (*self.offsets.values(), self.times) for change in one]
        return [self.now, *(value for _, value in changes)]


@dataclass(frozen=True)
class Accepts:
    """The settings by which workers accepted records.

    Attributes:
        rating_scale: (min, max), both inclusive.
        oldest: Epoch ms. An earlier `time` was not accepted.
        envelope: The envelope that events were taken out of.
        published: The placements of which an event must have a slate each.
    """

    rating_scale: Setting[tuple[float, float]]
    oldest: Setting[int]
    envelope: Setting[str]
    published: Setting[tuple[str, ...]]


def setting(
    option: str,
    now: Value,
    before: Sequence[str],
    parse: Callable[[str], Value],
    topics: Sequence[str],
    partitions: Collection[TopicPartition],
) -> Setting[Value]:
    """Read a setting's changes from the command line.

    Args:
        option: Name of the option, for error messages.
        now: The value since the last change.
        before: POSITION=VALUE of each earlier value, see above.
        parse: Reads a VALUE; raises ValueError.
        topics: The source topics.
        partitions: All partitions of these topics.

    Raises:
        DataError: A change is malformed.
    """
    found: Setting[Value] = Setting(now)
    for change in before:
        position, equals, text = change.partition("=")
        if not equals:
            raise DataError(f"{option} {change}: expected POSITION=VALUE, such as {topics[0]}/0/1234=VALUE")
        try:
            value = parse(text)
        except ValueError as error:
            raise DataError(f"{option} {change}: {error}") from None
        topic, _, rest = position.rpartition("/")[0].rpartition("/")
        offset = position.rpartition("/")[2]
        if topic and f"{rest}{offset}".isascii() and rest.isdecimal() and offset.isdecimal():
            if (topic, int(rest)) not in partitions:
                raise DataError(f"{option} {change}: not a partition of a source topic")
            found.offsets.setdefault((topics.index(topic), int(rest)), []).append((int(offset), value))
        else:
            found.times.append((_moment(f"{option} {change}", position), value))
    for changes in (*found.offsets.values(), found.times):
        changes.sort(key=lambda one: one[0])
    return found


def _moment(option: str, text: str) -> int:
    """Return a time as epoch ms.

    Args:
        option: The whole option, for error messages.
        text: The time.

    Raises:
        DataError: The text is not a time.
    """
    try:
        return times.moment(text, "expected topic/partition/offset, or a time (ISO 8601 or epoch ms), before the =")
    except ValueError as error:
        raise DataError(f"{option}: {error}") from None
