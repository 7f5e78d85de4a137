"""Decides whether deleted source records had been read.

Records before the log's first offset are proven lost if nothing that the worker wrote reaches them, if later records are
finished, and if a producer log has sends there. The producer log is needed because the log alone does not show whether its
deleted offsets were records, or markers of transactions and aborted records.
"""

from __future__ import annotations

from typing import NamedTuple

from deploy.verify.changelog import Changelog
from deploy.verify.dead_letters import DeadLetters
from deploy.verify.producer_log import ProducerLog
from deploy.verify.report import Report, Violation
from deploy.verify.slates import Slates
from deploy.verify.source_index import SourceIndex
from deploy.verify.source_partition import ABSENT, SourcePartition
from stream.core.state import MAX_RECENT


class Read(NamedTuple):
    """One partition, with everything that was read from it."""

    source_index: SourceIndex
    changelog: Changelog
    slates: Slates
    dead_letters: DeadLetters
    producer_log: ProducerLog | None = None


def deleted_unread(topic: int, source: SourcePartition, committed: int, due: int, read: Read, report: Report) -> int:
    """Return how many records before the log's start were certainly never read, and report them as `lost`.

    If they may have been read, or may not have been records, their range is only noted.

    Args:
        topic: Index of the topic.
        source: Its partition.
        committed: The group's committed offset; NONE if it has committed nothing.
        due: The offset below which everything must be finished.
        read: Everything that was read from the partition.
        report: Where to add what was found.
    """
    begin = source.due[0]
    reached = max(read.changelog.reached[topic], read.dead_letters.reached[topic]) + 1
    if not reached and 0 <= committed < begin:
        reached = committed
    if not 0 < reached < begin:
        return 0  # everything was read, or nothing of this topic was ever due
    count = begin - reached
    sent = read.producer_log.acked(source.topic, reached, begin) if read.producer_log is not None else 0
    doubt = _doubt(topic, source, due, count, sent, read)
    what = f"records {reached} to {begin - 1} were deleted, and no state and no dead letter accounts for any of them"
    position = source.topic, source.partition, reached
    if doubt:
        report.note(Violation("deleted", f"{what}; {doubt}", "", -1, *position))
        return 0
    report.lost += sent
    message = f"{what}: the producer log has {sent} sends there, which were never read"
    report.add(Violation("lost", message, "", -1, *position))
    return sent


def _doubt(topic: int, source: SourcePartition, due: int, count: int, sent: int, read: Read) -> str:
    """Return why this does not prove a loss; "" if it does."""
    if read.changelog.hidden or read.dead_letters.hidden:
        return "an open transaction of another producer hides states or dead letters"
    if read.changelog.gone:
        return "the changelog is compacted or cut: the states that account for them may be gone"
    if read.dead_letters.gone:
        return "dead letters were deleted: those of these records may be among them"
    if source.due[0] > due:
        return "the group has not committed that far: a worker that starts will stop there"
    if not sent and source.state.find(ABSENT) >= 0:
        return "the topic has offsets without a record, from transactions or compaction"
    if read.changelog.hiding[topic] and count <= MAX_RECENT:
        return "they may have been duplicates"
    if not sent:  # only a marker may be gone, and the records around it do not show that
        return (
            "they may have been a transaction's marker or aborted records; only sends in a producer log would show it"
        )
    return ""
