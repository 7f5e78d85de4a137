"""What became of each activation of a bundle, by the topic `bundles`: who has loaded or refused it, and where it is served."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from deploy.clients.log_reader import Log, Span, TopicPartition
from stream.core import bundle_log
from stream.core.bundle_log import CURRENT, Activate, Loaded, Refused, Switched
from stream.core.errors import RecordError
from stream.settings import Settings

WORKER = "worker"


class Entry(NamedTuple):
    """A record of the topic. appended: Epoch ms."""

    offset: int
    appended: int
    record: bundle_log.Record


@dataclass
class Followed:
    """One activation.

    Attributes:
        number: Its offset.
        bundle: Hex id.
        time: When it was appended, epoch ms.
        reason: Why, for people; may be empty.
        loaded: Name of a process -> its report, of those that have loaded it.
        refused: Name of a process -> its report, of those that have not.
        switched: Partition -> when its first `switched` for this activation was appended, epoch ms.
    """

    number: int
    bundle: str
    time: int
    reason: str
    loaded: dict[str, Loaded] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    switched: dict[int, int] = field(default_factory=dict)

    def reports(self, process: str = WORKER) -> int:
        """Return how many processes of a kind have loaded or refused it."""
        loaded = sum(one.process == process for one in self.loaded.values())
        return loaded + sum(one.process == process for one in self.refused.values())

    def seconds(self, partitions: int) -> float | None:
        """Return the seconds until the last partition had switched; None if one has not."""
        if len(self.switched) < partitions:
            return None
        return max(0, max(self.switched.values()) - self.time) / 1000


@dataclass
class Activations:
    """All activations, followed through the topic.

    Attributes:
        entries: Number -> activation, in order.
        last: Partition -> its last switch.
        first: What was served before the first activation: the bundle of the first switch that is of none; "" if there is no
            such switch.
    """

    entries: dict[int, Followed] = field(default_factory=dict)
    last: dict[int, Switched] = field(default_factory=dict)
    first: str = ""

    def apply(self, entries: Iterable[Entry]) -> None:
        """Take records in the order of the topic."""
        for offset, appended, record in entries:
            if isinstance(record, Activate):
                self.entries[offset] = Followed(offset, record.bundle, appended, record.reason)
                continue
            of = self.entries.get(record.activation)
            if isinstance(record, Switched):
                known = self.last.get(record.partition)
                if known is not None and record.epoch < known.epoch:
                    continue  # its writer had lost the partition
                self.last[record.partition] = record
                if record.activation == CURRENT:
                    self.first = self.first or record.bundle
                elif of is not None:
                    of.switched.setdefault(record.partition, appended)
            elif of is not None and isinstance(record, Loaded):
                of.loaded[record.worker] = record
            elif of is not None and isinstance(record, Refused):
                of.refused[record.worker] = record

    @property
    def newest(self) -> Followed | None:
        """The newest activation; None if there is none."""
        return next(reversed(self.entries.values()), None)

    def before(self, current: str) -> str:
        """Return the bundle that was in force before the newest activation; "" if there is none, or no other one.

        Args:
            current: The bundle that the file CURRENT names: it was in force before the first activation, unless a `switched`
                with activation -1 names another one.
        """
        newest = self.newest
        if newest is None:
            return ""
        bundles = [self.first or current, *(one.bundle for one in self.entries.values())]
        return next((one for one in reversed(bundles) if one and one != newest.bundle), "")


def read(log: Log, topic: str, since: int = 0) -> tuple[list[Entry], int]:
    """Return the acceptable records of the topic from an offset on, and the offset after the last one.

    Raises:
        BrokerError: The topic cannot be read.
        TopologyError: The topic is missing.
    """
    spans: dict[TopicPartition, Span] = {
        tp: Span(max(since, span.start), span.end) for tp, span in log.spans([topic]).items()
    }
    found = []
    for record in log.records(topic, spans):
        try:
            found.append(Entry(record.offset, record.timestamp, bundle_log.decode(record.key, record.value)))
        except RecordError:
            continue  # no worker follows it either
    return found, max(span.end for span in spans.values())


def followed(log: Log, settings: Settings) -> Activations:
    """Return all activations that are in the topic now. Raises BrokerError and TopologyError as `read`."""
    found = Activations()
    found.apply(read(log, settings.bundles_topic)[0])
    return found


def partitions(log: Log, settings: Settings) -> int:
    """Return the number of partitions of the topic of slates: each of them switches for itself."""
    return len(log.spans([settings.recommendations_topic]))
