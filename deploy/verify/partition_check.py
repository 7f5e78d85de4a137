"""Checks one partition after the other. A user's events, states, slates and dead letters all have the same partition number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.clients.log_reader import Log, Span, TopicPartition
from deploy.verify.accepted_settings import Accepts
from deploy.verify.bundle_switches import BundleRecords, BundleSwitches
from deploy.verify.changelog import Changelog
from deploy.verify.dead_letters import DeadLetters
from deploy.verify.deleted_records import Read, deleted_unread
from deploy.verify.keys import Keys
from deploy.verify.local_store import LocalStore, local_stores
from deploy.verify.moved_records import Moves
from deploy.verify.outcomes import Outcomes
from deploy.verify.producer_log import ProducerLog
from deploy.verify.report import Report
from deploy.verify.scope import MARGIN_MS, Scope
from deploy.verify.slates import Slates
from deploy.verify.source_index import SourceIndex
from deploy.verify.source_partition import NONE
from deploy.verify.undecided import Undecided
from deploy.verify.validator import Validator
from deploy.verify.withdrawn import WithdrawnItems
from stream.settings import Settings

if TYPE_CHECKING:
    from deploy.verify.recompute import Recomputation


@dataclass(frozen=True)
class PartitionCheck:
    """The check of one partition, with what it needs of the whole deployment.

    Attributes:
        log: Where the records come from.
        settings: Settings of the deployment.
        scope: What to check.
        accepts: The settings by which workers accepted records.
        count: Number of partitions of each topic.
        due: (from, to) of the source records to check.
        committed: The group's committed offsets.
        limits: Offsets below which a record must be finished.
        sources: The offsets of the source topics.
        states: The offsets of the changelog.
        outputs: The offsets of the slates and dead letters.
        undecided: What lies behind open transactions.
        report: Where to add what was found.
        recomputation: Computes states and slates again; None if that was not requested.
        withdrawn: Checks the standing slates.
        bundles: What the topic of bundles holds.
    """

    log: Log
    settings: Settings
    scope: Scope
    accepts: Accepts
    count: int
    due: dict[TopicPartition, tuple[int, int]]
    committed: dict[TopicPartition, int]
    limits: dict[TopicPartition, int]
    sources: dict[TopicPartition, Span]
    states: dict[TopicPartition, Span]
    outputs: dict[TopicPartition, Span]
    undecided: Undecided
    report: Report
    recomputation: Recomputation | None
    withdrawn: WithdrawnItems
    bundles: BundleRecords

    def run(self, partition: int, moves: Moves) -> None:
        """Read one partition and count its source records. Nothing stays but what was forwarded to another partition."""
        report = self.report
        read = self._read(partition)
        moves.see(read.source_index)
        outcomes = Outcomes(read, moves, report)
        for source, index, offset in read.source_index.to_check():
            outcomes.count(source, index, offset, self.limits[source.topic, partition])
        self._count_deleted(partition, read)
        report.users += sum(user.row != NONE for user in read.source_index.users)
        if self.recomputation is not None:
            spans = _of({**self.states, **self.outputs}, partition)
            self.recomputation.collect(read.source_index, self.count, spans, spans, self.accepts.envelope)

    def _count_deleted(self, partition: int, read: Read) -> None:
        """Count the source records that were deleted before anyone could check them."""
        for topic, source in enumerate(read.source_index.sources):
            if source.first == 0 or source.narrowed:
                continue
            tp = source.topic, partition
            unread = 0
            if not self.scope.ranged:
                committed = self.committed.get(tp, NONE)
                unread = deleted_unread(topic, source, committed, self.limits[tp], read, self.report)
            self.report.unverifiable += source.first - unread

    def _read(self, partition: int) -> Read:
        producer_log = self._producer_log(partition)
        stores = local_stores(self.scope.data_dirs, partition)
        source_index = self._source_index(partition, producer_log)
        changelog = self._changelog(source_index, stores)
        spans = self._output_spans(source_index)
        slates = self._slates(source_index, changelog, spans)
        dead_letters = self._dead_letters(source_index, spans)
        for local_store in stores:
            if not changelog.hidden:  # what the store has read back lies there, too
                local_store.check(source_index, changelog, self.settings.changelog_topic, self.report)
        if producer_log is not None:
            ends = {tp: span.end for tp, span in self.log.spans(self.settings.sources).items()}
            producer_log.check(source_index, ends, self.report)
        return Read(source_index, changelog, slates, dead_letters, producer_log)

    def _producer_log(self, partition: int) -> ProducerLog | None:
        if self.scope.producer_log is None:
            return None
        settings = self.settings
        return ProducerLog(self.scope.producer_log, settings.sources, partition, self.count, Keys(settings.key))

    def _source_index(self, partition: int, producer_log: ProducerLog | None) -> SourceIndex:
        settings, accepts = self.settings, self.accepts
        spans = _of(self.sources, partition)
        first = {tp: span.start for tp, span in spans.items()}
        view = self.scope.view(self.due, spans)
        validator = Validator(self.count, accepts.rating_scale, accepts.oldest, accepts.envelope, settings.key)
        source_index = SourceIndex(settings.sources, view, validator, partition, first, self.due, producer_log)
        source_index.timed = bool(accepts.published.times)
        source_index.read(self.log, view)
        return source_index

    def _changelog(self, source_index: SourceIndex, stores: list[LocalStore]) -> Changelog:
        topic = self.settings.changelog_topic
        changelog = Changelog(source_index, topic, self.count, self.report, stores)
        changelog.hidden = (topic, source_index.partition) in self.undecided.hidden
        changelog.read(self.log, _of(self.states, source_index.partition))
        return changelog

    def _slates(self, source_index: SourceIndex, changelog: Changelog, spans: dict[TopicPartition, Span]) -> Slates:
        topic = self.settings.recommendations_topic
        limit, number = self.scope.swap_limit, source_index.partition
        switches = BundleSwitches(self.bundles, changelog, number, limit, self.settings, self.report)
        slates = Slates(source_index, changelog, topic, self.count, self.report, self.accepts.published, switches)
        slates.read(self.log, spans)
        slates.hidden = (topic, source_index.partition) in self.undecided.hidden
        self.withdrawn.check(slates, changelog, spans)
        return slates

    def _dead_letters(self, source_index: SourceIndex, spans: dict[TopicPartition, Span]) -> DeadLetters:
        topic = self.settings.dead_letters_topic
        dead_letters = DeadLetters(source_index, topic, self.settings.items_topic, self.report)
        dead_letters.read(self.log, spans)
        dead_letters.hidden = (topic, source_index.partition) in self.undecided.hidden
        return dead_letters

    def _output_spans(self, source_index: SourceIndex) -> dict[TopicPartition, Span]:
        """Return the spans of slates and dead letters to read.

        If the range leaves records out, they begin a little before the oldest record to check.
        """
        spans = _of(self.outputs, source_index.partition)
        if not self.scope.ranged:
            return spans
        if source_index.since == NONE:
            return {tp: Span(span.end, span.end) for tp, span in spans.items()}
        starts = self.log.at(dict.fromkeys(spans, source_index.since - MARGIN_MS))
        return {tp: Span(min(max(starts[tp], span.start), span.end), span.end) for tp, span in spans.items()}


def _of(spans: dict[TopicPartition, Span], partition: int) -> dict[TopicPartition, Span]:
    """Return the spans of one partition number."""
    return {tp: span for tp, span in spans.items() if tp[1] == partition}
