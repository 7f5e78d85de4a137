"""Turns a micro-batch of raw records into durable states and offsets that are safe to commit, in numbered steps.

     1  claim the micro-batch: lease and assignment are still ours
     2  decode and validate; a record that is not acceptable becomes a dead letter; one that is valid except for its
        partition is forwarded once (stream.pipeline.sent_before)
     3  order each user's events; hold back users that wait for a comment to be encoded, add those that no longer wait
     4  read the states, one multi-get per partition
     5  fold the bookkeeping: fences, duplicates, seq, chain
     6  run the recurrent model, one call per wave; poison events become dead letters (stream.pipeline.poison)
     7  send changelog records, dead letters and copies, and wait until they are acknowledged, with no other writer's records
        in between; meanwhile score all users in one call
     8  send slates, and wait until they are acknowledged: none shows a state that is not durable
     9  write RocksDB, one WriteBatch per partition
    10  re-issue some slates that show a withdrawn item (stream.pipeline.reissues)
    11  offsets below the first unfinished event are safe to commit

Any exception ends the process (stream.kafka), so nothing is committed that did not complete step 9.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from heapq import merge
from typing import Final

import msgspec
from faust.types import TP
from msgspec import UNSET

from stream.core import forgetting
from stream.core.errors import RecordError
from stream.core.fold import Catalogue, UserBatch, advance, apply_events, rank
from stream.core.keys import FORMS
from stream.core.messages import Recommendation, Scored, SourceEvent
from stream.core.placements import Placement, Views
from stream.core.rules import RuleSet
from stream.core.ruling import Ruling, Selections
from stream.core.score_tables import epoch_of
from stream.core.state import encode
from stream.kafka.batch import MicroBatch, Record
from stream.kafka.producer import Outgoing
from stream.kafka.standing_slates import Shown, Slot
from stream.observability.metrics import BatchFigures
from stream.pipeline import held_partitions
from stream.pipeline.empty_states import EmptyStates
from stream.pipeline.model_calls import Result, in_time
from stream.pipeline.parts import PipelineParts, Serving
from stream.pipeline.poison import BufferedRecord, advance_isolating
from stream.pipeline.refusal_log import RefusalLog
from stream.pipeline.reissues import ReissueParts, Reissues, shown
from stream.pipeline.slate_reader import SlateReader

Target = tuple[str, int]
Items = Sequence[list[Scored]]
"""One user's items, for each published placement."""
MISPLACED: Final = "mispartitioned"
"""The reason of a record that is valid except for its partition."""


class Pipeline:
    """Processes micro-batches one at a time, in the steps of the module's docstring."""

    def __init__(self, parts: PipelineParts) -> None:
        self._settings = parts.settings
        self._topics = parts.settings.sources
        self._user_of = FORMS[parts.settings.key].read
        self._serving = parts.serving
        self._consumer = parts.consumer
        self._batches = parts.batches
        self._fence = parts.fence
        self._store = parts.store
        self._decoder = parts.decoder
        self._comments = parts.comments
        self._dead_letters = parts.dead_letters
        self._misplaced = parts.misplaced
        self._sent_before = parts.sent_before
        self._rules = parts.rules
        self._selections = Selections()
        self._views: Views[Catalogue] = Views()
        self._announce = parts.announce
        self.turn = asyncio.Lock()
        """Held while a micro-batch is processed, and while another bundle is put in its place."""
        self._executor = parts.executor
        self._metrics = parts.metrics
        self._clock = parts.clock
        self._refusals = RefusalLog()
        self._empty = EmptyStates(parts.store)
        self._encoder = msgspec.json.Encoder()
        self.reissues = self._reissues(parts)
        self._next: dict[TP, int] = {}  # first offset not yet read
        self.newest: dict[TP, int] = {}  # append time (epoch ms) of the newest record finished

    async def process(self, batch: MicroBatch) -> None:
        """Run steps 1 to 11 for one micro-batch."""
        async with self.turn:
            await self._process(batch)

    async def taken_over(self, partitions: Collection[int]) -> None:
        """Say which bundle makes the slates of partitions that were just claimed, before the first of them."""
        async with self.turn:
            await self._announce(partitions, self._serving.activation)

    def use(self, serving: Serving) -> None:
        """Serve another bundle from the next micro-batch on. Call it with `turn` held."""
        self._serving = serving
        self._selections, self._views = Selections(), Views()
        self.reissues.use(serving.published)

    def calls_ended(self) -> int:
        """Return how many graph calls of the bundle in use have ended."""
        return self._serving.models.ended

    async def _process(self, batch: MicroBatch) -> None:
        consumer = self._consumer()
        if not consumer.take(batch):  # 1
            return
        began = time.perf_counter()
        figures = BatchFigures()
        with figures.stage("decode"):
            found, letters = self._decode(batch, figures)  # 2
            if not await self._leave_out(batch, letters, figures):
                consumer.finish({}, frozenset())  # nothing of it is finished: the partitions' new owner reads it again
                return
            groups = self._order(found)  # 3
        with figures.stage("read"):
            user_batches = self._apply_events(groups)  # 4, 5
        catalogue = self._serving.catalogue()
        if user_batches:
            with figures.stage("step"):
                user_batches, figures.unknown_items, poison_events = await advance_isolating(  # 6
                    user_batches, lambda some: self._run(lambda: self._advance(some, catalogue)), self._applied_again
                )
            self._refuse(poison_events, batch, letters, figures)
        records = self._records(user_batches, figures)
        self._add_deletions(records, groups.keys(), figures)
        changelog = asyncio.ensure_future(self._send_changelog(records, letters, figures))  # 7
        rules = self._rules()
        now = self._clock.now_ms()
        with figures.stage("score"):
            slates = await self._run(lambda: self._rank(user_batches, catalogue, rules, now)) if user_batches else []
        ends = await changelog
        await self._confirm(records, ends)
        with figures.stage("slates"):
            slate_ends = await self._batches().send(
                {**self._slates(user_batches, slates, catalogue, rules, figures), **self._audits(user_batches)}
            )  # 8
        acknowledged = self._clock.now() * 1000
        with figures.stage("store"):
            for (topic, partition), written in records.items():  # 9
                pairs = [(record.key, record.value) for record in written if record.key]
                self._store.write(partition, pairs, ends.get((topic, partition), -1))
                self._empty.note(partition, pairs)
            figures.gains = self._serving.prequential.judge(user_batches, catalogue)
            self._note(user_batches, slates, slate_ends)
        for tp, part in batch.parts.items():
            self._next[tp] = part[-1].offset + 1
            self.newest[tp] = part[-1].timestamp
        held = self._comments.held
        limit, size = self._settings.held_events, self._settings.micro_batch
        hold = held_partitions.partitions(self._comments.queues(), held, limit, size, self._topics, self._next)
        self._observe(user_batches, figures, acknowledged, held, began)
        await self.reissues.turn(bool(batch.size), consumer.waits)  # 10
        consumer.finish(self._safe(), hold)  # 11
        self.reissues.schedule()

    def committed(self) -> bool:
        """Return whether there are states to delete, now that offsets were committed."""
        return bool(self._empty)

    def revoked(self) -> None:
        """Forget what was read but not finished after the assignment has ended. The next owner reads it again."""
        self.reissues.forget()
        self._comments.forget()
        self._empty.forget()
        self._next.clear()
        self.newest.clear()

    def _decode(
        self, batch: MicroBatch, figures: BatchFigures
    ) -> tuple[list[SourceEvent], dict[Target, list[Outgoing]]]:
        events: list[SourceEvent] = []
        letters: dict[Target, list[Outgoing]] = {}
        decode = self._decoder.decode
        for behaviour, topic in enumerate(self._topics):
            for tp, records in batch.parts.items():
                if tp.topic != topic:
                    continue
                for record in records:
                    try:
                        events.append(
                            decode(
                                behaviour, tp.partition, record.offset, record.timestamp, record.key, record.value,
                                record.headers,
                            )
                        )  # fmt: skip
                    except RecordError as error:
                        if (sent_on := self._sent_on(topic, tp.partition, record, error)) is not None:
                            target, copy = sent_on
                            letters.setdefault(target, []).append(copy)
                            continue
                        letter = self._dead_letters.letter(topic, tp.partition, record, error)
                        letters.setdefault((self._settings.dead_letters_topic, tp.partition), []).append(letter)
                        figures.dead_letter(behaviour, topic, error.stage, error.reason, error.unit)
                        self._refusals.see(topic, tp.partition, record.offset, error)
        return events, letters

    def _sent_on(
        self, topic: str, partition: int, record: Record, error: RecordError
    ) -> tuple[Target, Outgoing] | None:
        """Return the right place and the copy of a record that is valid except for its partition. None for any other."""
        if self._misplaced is None or error.reason != MISPLACED or record.key is None:
            return None
        copy = self._misplaced.copy(topic, partition, record)
        return None if copy is None else ((topic, self._decoder.partition(record.key)), copy)

    async def _leave_out(self, batch: MicroBatch, letters: dict[Target, list[Outgoing]], figures: BatchFigures) -> bool:
        """Leave out the copies that were forwarded before, and count both. Return False if the assignment has ended."""
        copies = {target: sent for target, sent in letters.items() if target[0] in self._topics}
        if not copies:
            return True
        left_out: dict[str, int] = {}
        if self._sent_before is not None:
            consumer = self._consumer()
            found = await self._sent_before.leave_out(batch.parts, copies, lambda: consumer.is_current(batch))
            if found is None:
                return False
            left_out = found
        for topic, records in left_out.items():
            figures.outcome(self._topics.index(topic), "redelivered", records)
        for target, sent in copies.items():
            if sent:
                figures.outcome(self._topics.index(target[0]), "forwarded", len(sent))
            else:
                del letters[target]
        return True

    def _advance(self, user_batches: Sequence[UserBatch], catalogue: Catalogue) -> int:
        return advance(user_batches, self._serving.models, catalogue, self._serving.spec)

    def _rank(self, user_batches: Sequence[UserBatch], catalogue: Catalogue, rules: RuleSet, now: int) -> list[Items]:
        """Return each user's items, for each published placement."""
        published = self._serving.published
        found = [self._rank_of(user_batches, one, catalogue, rules, now) for one in published]
        return list(zip(*found, strict=True))

    def _rank_of(
        self, user_batches: Sequence[UserBatch], placement: Placement, catalogue: Catalogue, rules: RuleSet, now: int
    ) -> list[list[Scored]]:
        """Return each user's items, for one placement."""
        ruling = Ruling(rules, None, now, self._selections) if rules.rules else None
        return rank(
            user_batches, self._serving.models, self._views.of(catalogue, placement.filtered), placement.size,
            filter_seen=placement.filter_seen, ruling=ruling, diversity=placement.diversity,
        )  # fmt: skip

    def _reissues(self, parts: PipelineParts) -> Reissues:
        def wake() -> None:
            self._consumer().wake()

        def resume(user: bytes, partition: int, record: bytes) -> UserBatch:
            serving = self._serving
            return apply_events(user, partition, record, (), self._topics, serving.state_model, serving.hidden)

        async def ranked(
            user_batches: Sequence[UserBatch], placement: Placement, catalogue: Catalogue, rules: RuleSet, now: int
        ) -> list[list[Scored]]:
            def call() -> list[list[Scored]]:
                self._advance(user_batches, catalogue)  # only states of another step model have inputs
                return self._rank_of(user_batches, placement, catalogue, rules, now)

            return await self._run(call)

        return Reissues(
            ReissueParts(
                settings=parts.settings,
                fence=parts.fence,
                store=parts.store,
                standing=parts.standing,
                reader=SlateReader(parts.settings, parts.standing, wake),
                batches=parts.batches,
                catalogue=lambda: self._serving.catalogue(),
                rules=parts.rules,
                clock=parts.clock,
                metrics=parts.metrics,
                published=parts.serving.published,
                resume=resume,
                rank=ranked,
                slate=lambda user, placement, items, catalogue, rules, now, withdrawn: self._slate(
                    user, items, catalogue, rules, now, False, placement, withdrawn
                ),
                wake=wake,
            )
        )

    def _note(self, user_batches: Sequence[UserBatch], slates: Sequence[Items], ends: Mapping[Target, int]) -> None:
        """Note which slates stand now."""
        noted: dict[int, list[tuple[Slot, Shown | None]]] = {}
        for user_batch, of_user in zip(user_batches, slates, strict=True):
            some = noted.setdefault(user_batch.partition, [])
            if user_batch.forgotten:
                some.append((Slot(user_batch.user), None))
                continue
            for placement, items in zip(self._serving.published, of_user, strict=True):
                some.append((Slot(user_batch.user, placement.name), shown(user_batch, items)))
        for partition, some in noted.items():
            self.reissues.note(partition, some, ends.get((self._settings.recommendations_topic, partition), -1))

    def _applied_again(self, user_batch: UserBatch, without: Collection[SourceEvent]) -> UserBatch:
        """Apply the user batch again from its stored record. `applied` moves past the events `without`, which are left out."""
        serving = self._serving
        record = self._store.read(user_batch.partition, [user_batch.user])[0]
        return apply_events(
            user_batch.user,
            user_batch.partition,
            record,
            user_batch.events,
            self._topics,
            serving.state_model,
            serving.hidden,
            without,
        )

    def _refuse(
        self,
        poison_events: Sequence[tuple[SourceEvent, Exception]],
        batch: MicroBatch,
        letters: dict[Target, list[Outgoing]],
        figures: BatchFigures,
    ) -> None:
        for event, error in poison_events:
            topic = self._topics[event.behaviour]
            part = batch.parts.get(TP(topic, event.partition), ())
            record = next((one for one in part if one.offset == event.offset), None) or BufferedRecord.of(event)
            refusal = RecordError("inference", "inference", "", f"the step model fails on it: {error}")
            letter = self._dead_letters.letter(topic, event.partition, record, refusal)
            letters.setdefault((self._settings.dead_letters_topic, event.partition), []).append(letter)
            figures.dead_letter(event.behaviour, topic, refusal.stage, refusal.reason)
            self._refusals.see(topic, event.partition, event.offset, refusal)

    async def _confirm(self, records: Mapping[Target, list[Outgoing]], ends: dict[Target, int]) -> None:
        """Raise FencedError if another worker has taken over these partitions of the changelog meanwhile."""
        sent = {partition: written for (_, partition), written in records.items()}
        settled = await self._fence.confirm(sent, {target[1]: ends[target] for target in records})
        ends.update((target, settled[target[1]]) for target in records)

    def _order(self, found: Sequence[SourceEvent]) -> dict[bytes, list[SourceEvent]]:
        """Return the events that may be folded now by user, in order. Those released by the comment stage come first."""
        groups: dict[bytes, list[SourceEvent]] = {}
        for event in self._comments.take_ready():
            groups.setdefault(event.user, []).append(event)
        fresh: dict[bytes, list[SourceEvent]] = {}
        for event in found:
            fresh.setdefault(event.user, []).append(event)
        for user, events in fresh.items():
            free = self._comments.admit(user, in_append_order(events))
            if free:
                groups.setdefault(user, []).extend(free)
        return groups

    def _apply_events(self, groups: Mapping[bytes, list[SourceEvent]]) -> list[UserBatch]:
        by_partition: dict[int, list[bytes]] = {}
        for user, events in groups.items():
            by_partition.setdefault(events[0].partition, []).append(user)
        serving = self._serving
        return [
            apply_events(user, partition, record, groups[user], self._topics, serving.state_model, serving.hidden)
            for partition, users in by_partition.items()
            for user, record in zip(users, self._store.read(partition, users), strict=True)
        ]

    async def _run(self, call: Callable[[], Result]) -> Result:
        models = self._serving.models
        return await in_time(self._executor, call, lambda: models.ended, self._settings.inference_timeout)

    def _records(self, user_batches: Sequence[UserBatch], figures: BatchFigures) -> dict[Target, list[Outgoing]]:
        """Return one changelog record per changed state."""
        records: dict[Target, list[Outgoing]] = {}
        topic = self._store.changelog_topic
        stamps = {
            user_batch.partition: self._fence.stamp(user_batch.partition)
            for user_batch in user_batches
            if user_batch.changed
        }
        for user_batch in user_batches:
            if user_batch.changed:
                record = encode(user_batch.state)
                records.setdefault((topic, user_batch.partition), []).append(
                    Outgoing(user_batch.user, record, stamps[user_batch.partition])
                )
                figures.states_written += 1
                figures.state_bytes += len(record)
                figures.changelog_bytes += len(record) + len(user_batch.user)
        return records

    def _add_deletions(
        self, records: dict[Target, list[Outgoing]], busy: Collection[bytes], figures: BatchFigures
    ) -> None:
        """Add a tombstone for each empty state that no event needs any more, except those of `busy` users."""
        committed = self._consumer().committed
        for partition in self._fence.partitions():
            for user in self._empty.due(partition, [committed(topic, partition) for topic in self._topics]):
                if user not in busy:
                    tombstone = Outgoing(user, None, self._fence.stamp(partition))
                    records.setdefault((self._store.changelog_topic, partition), []).append(tombstone)
                    figures.states_deleted += 1

    def _audits(self, user_batches: Sequence[UserBatch]) -> dict[Target, list[Outgoing]]:
        """Return an audit record for each control record, also for one that is read again: its own may be missing."""
        now = self._clock.now_ms()
        found = [
            forgetting.audit(event, user_batch.state.applied, self._topics, self._settings.app_id, now)
            for user_batch in user_batches
            for event in user_batch.events
            if event.forget
        ]
        if not found:
            return {}
        return {(self._settings.forgotten_topic, 0): [Outgoing(key, value) for key, value in found]}

    async def _send_changelog(
        self, records: Mapping[Target, list[Outgoing]], letters: Mapping[Target, list[Outgoing]], figures: BatchFigures
    ) -> dict[Target, int]:
        with figures.stage("changelog"):
            return await self._batches().send({**records, **letters})

    def _slates(
        self,
        user_batches: Sequence[UserBatch],
        slates: Sequence[Items],
        catalogue: Catalogue,
        rules: RuleSet,
        figures: BatchFigures,
    ) -> dict[Target, list[Outgoing]]:
        """Return one slate per affected user and published placement, and a tombstone for a user who was forgotten.

        A slate is flagged `replay` if the user had an event that was folded before.
        """
        lists: dict[Target, list[Outgoing]] = {}
        now = self._clock.now_ms()
        topic = self._settings.recommendations_topic
        for user_batch, of_user in zip(user_batches, slates, strict=True):
            if user_batch.forgotten:
                lists.setdefault((topic, user_batch.partition), []).append(Outgoing(user_batch.user, None))
                continue
            replay = bool(user_batch.redelivered) or not user_batch.folded
            for placement, items in zip(self._serving.published, of_user, strict=True):
                slate = self._slate(user_batch, items, catalogue, rules, now, replay, placement)
                value = self._encoder.encode(slate)
                lists.setdefault((topic, user_batch.partition), []).append(Outgoing(user_batch.user, value))
                figures.slate("interest", replay)
        return lists

    def _slate(
        self,
        user_batch: UserBatch,
        items: list[Scored],
        catalogue: Catalogue,
        rules: RuleSet,
        now: int,
        replay: bool,
        placement: Placement,
        withdrawn: tuple[str, ...] = (),
    ) -> Recommendation:
        state = user_batch.state
        chain = state.chain.hex()
        newest = max((event.append_ms for event in user_batch.folded), default=None)
        return Recommendation(
            user=self._user_of(user_batch.user),
            slate=f"{chain[:16]}-{now:x}",
            seq=state.seq,
            chain=chain,
            items=items,
            time=now,
            latency_ms=-1 if newest is None else max(0, now - newest),
            events=[(self._topics[event.behaviour], event.partition, event.offset) for event in user_batch.folded],
            applied={
                f"{topic}/{user_batch.partition}": offset
                for topic, offset in zip(self._topics, state.applied, strict=True)
                if offset >= 0
            },
            catalogue=catalogue.offset,
            bundle=self._serving.bundle,
            strategy="interest",
            replay=replay,
            rules=rules.offset if rules.rules else UNSET,
            diversity=placement.diversity.strength or UNSET,
            placement=placement.name or UNSET,
            withdrawn=withdrawn,
            tables=epoch_of(catalogue),
        )

    def _safe(self) -> dict[TP, int]:
        """Return the offset to commit per topic-partition. Everything below it is finished."""
        safe = dict(self._next)
        for event in self._comments.unfinished():
            tp = TP(self._topics[event.behaviour], event.partition)
            if event.offset < safe.get(tp, event.offset + 1):
                safe[tp] = event.offset
        return safe

    def _observe(
        self, user_batches: Sequence[UserBatch], figures: BatchFigures, acknowledged: float, held: int, began: float
    ) -> None:
        for user_batch in user_batches:
            for event in user_batch.folded:
                figures.outcome(event.behaviour, "applied")
                if not user_batch.redelivered:
                    figures.latencies[event.behaviour].append(max(0.0, acknowledged - event.append_ms) / 1000)
            for event in user_batch.erased:
                figures.outcome(event.behaviour, "forgotten")
            figures.late += user_batch.late
            figures.refolded += user_batch.refolded
            for behaviour, outcome in user_batch.passed:
                figures.outcome(behaviour, outcome)
        figures.comments_encoded, self._comments.encoded = self._comments.encoded, 0
        figures.comment_cache_hits, self._comments.hits = self._comments.hits, 0
        figures.ratings_read, self._comments.read = self._comments.read, 0
        figures.stages["encode"], self._comments.seconds = self._comments.seconds, 0.0
        figures.held = held
        figures.seconds = time.perf_counter() - began
        self._metrics.observe_batch(figures)


def in_append_order(events: list[SourceEvent]) -> list[SourceEvent]:
    """Merge one user's events of a micro-batch, listed by topic, by append time.

    Events with equal times come in the order clicks, ratings, comments. Events of one topic stay in offset order,
    whatever their append times are.
    """
    first = events[0].behaviour
    if all(event.behaviour == first for event in events):
        return events
    topics: tuple[list[SourceEvent], ...] = ([], [], [])
    for event in events:
        topics[event.behaviour].append(event)
    return list(merge(*topics, key=lambda event: (event.append_ms, event.behaviour)))
