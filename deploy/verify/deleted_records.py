"""Source records that were deleted: had they been read? What lies before the log's first offset is proven lost where nothing that
the worker wrote reaches into it, later records are finished, and a producer's ledger has sends there: by itself the log does not
tell whether its deleted offsets were records, or markers of transactions and what was aborted."""

from __future__ import annotations

from typing import NamedTuple

from deploy.verify.changelog import Changelog
from deploy.verify.dead_letters import DeadLetters
from deploy.verify.producer_log import ProducerLog
from deploy.verify.report import Report, Violation
from deploy.verify.slates import Slates
from deploy.verify.source_index import ABSENT, SourceIndex, SourcePartition
from stream.core.state import MAX_RECENT


class Read(NamedTuple):
    """One partition, read and followed."""

    source_index: SourceIndex
    changelog: Changelog
    slates: Slates
    dead_letters: DeadLetters
    producer_log: ProducerLog | None = None


def deleted_unread(topic: int, source: SourcePartition, committed: int, due: int, read: Read, report: Report) -> int:
    """How many records before the log's start were certainly never read; they are blamed as `lost`. What may have been, and what
    may be no record, is noted, with its range.

    topic: index; committed: NONE where the group has committed nothing; due: below it everything must be finished.
    """
    begin = source.due[0]
    reached = max(read.changelog.reached[topic], read.dead_letters.reached[topic]) + 1
    if not reached and 0 <= committed < begin:
        reached = committed
    if not 0 < reached < begin:
        return 0  # all of it was read, or nothing of this topic was ever due
    count = begin - reached
    sent = read.producer_log.acked(source.topic, reached, begin) if read.producer_log is not None else 0
    doubt = _doubt(topic, source, due, count, sent, read)
    said = f"records {reached} to {begin - 1} were deleted, and no state and no dead letter reaches into them"
    place = source.topic, source.partition, reached
    if doubt:
        report.note(Violation("deleted", f"{said}; {doubt}", "", -1, *place))
        return 0
    report.lost += sent
    message = f"{said}: {sent} sends of the ledger lay there and were never read"
    report.add(Violation("lost", message, "", -1, *place))
    return sent


def _doubt(topic: int, source: SourcePartition, due: int, count: int, sent: int, read: Read) -> str:
    """Why this is no proof; "" where it is one."""
    if read.changelog.hidden or read.dead_letters.hidden:
        return "an open transaction of another producer hides states or dead letters"
    if read.changelog.gone:
        return "the changelog is compacted or cut: the states that did may be gone"
    if read.dead_letters.gone:
        return "dead letters are gone: theirs may be among them"
    if source.due[0] > due:
        return "the group has not committed so far: a worker that starts stops there"
    if not sent and source.state.find(ABSENT) >= 0:
        return "the topic has offsets without a record: transactions, or it was compacted"
    if read.changelog.hiding[topic] and count <= MAX_RECENT:
        return "they may have been duplicates"
    if not sent:  # a marker may be all that is gone, and the records around it tell nothing of that
        return "they may have been no records, but a transaction's marker, or aborted; a ledger's sends would tell"
    return ""
