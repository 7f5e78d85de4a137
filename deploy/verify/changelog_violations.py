"""Reports what is wrong with the records of one changelog partition."""

from __future__ import annotations

from deploy.clients.log_reader import Record
from deploy.verify.report import Kind, Report, Violation
from deploy.verify.source_index import SourceIndex
from deploy.verify.users import User


class ChangelogViolations:
    """Adds violations to the report, each with its position.

    Args:
        source_index: The source records of the partition.
        topic: The changelog topic.
        report: Where to add what was found.
    """

    def __init__(self, source_index: SourceIndex, topic: str, report: Report) -> None:
        self._source_index = source_index
        self._topic = topic
        self._report = report

    def add(self, kind: Kind, message: str, record: Record, key: bytes | None, seq: int = -1) -> None:
        """Report a changelog record. key: The key of its user; None for none."""
        name = self._source_index.keys.name(key)
        self._report.add(Violation(kind, message, name, seq, self._topic, record.partition, record.offset))

    def add_event(self, kind: Kind, message: str, user: User, topic: int, offset: int, seq: int) -> None:
        """Report the source record at `offset` of the topic with index `topic`, which a state names."""
        source_topic = self._source_index.topics[topic]
        self._report.add(Violation(kind, message, user.name, seq, source_topic, self._source_index.partition, offset))

    def add_phantom(self, user: User, topic: int, offset: int, seq: int) -> None:
        self.add_event("phantom", "a state names a record that does not exist", user, topic, offset, seq)
