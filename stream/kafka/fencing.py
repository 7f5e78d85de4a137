"""Takes over partitions of the changelog, and notices if another worker does: see stream.core.fencing_log.

The writer knows the offset of its last record. Its next records follow without a gap unless another writer has written
in between. In that case the writer claims again and reads the records in between. It stops if a newer writer has
claimed the partition. Otherwise it writes again the states that the other writer has overwritten, so that compaction
cannot keep foreign records. A takeover does the same for states that were overwritten earlier, because the owner at
that time may have ended before it wrote them again.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence

from stream.core.errors import BrokerError, FencedError, LeaseError, LossError, TopologyError
from stream.core.fencing_log import (
    CLAIM_KEY,
    FIRST,
    Claim,
    Forged,
    LeftOut,
    LogRecord,
    Written,
    encode,
    epoch_of,
    judge,
    log_forged,
    of_nobody,
    of_user,
    stamp,
)
from stream.core.keys import UTF8
from stream.kafka.producer import Outgoing, RecordBatches
from stream.kafka.state_store import InterestStore
from stream.kafka.truncation import changelog_cut
from stream.process.stopping import stopping

log = logging.getLogger("freshet.fencing")

ReadRange = Callable[[int, int, int], Awaitable[list[LogRecord]]]
FindClaim = Callable[[int], Awaitable[Claim]]
ATTEMPTS = 10
CHUNK = 256  # states that a takeover writes again in one batch


class Fence:
    """Claims the right to write partitions of the changelog, and checks that no other worker has taken it.

    Args:
        store: The table's partitions.
        batches: Returns the object that sends record batches.
        read: (partition, first offset, last offset) -> those records.
        find: Partition -> the claim in force there.
        topics: Source topic -> its current topic id. States folded from a topic with another id are refused.
        partitions: Number of partitions. States that were divided among another number are refused.
        on_left_out: Called with the number of records that were left out.
        key: Form of the users' keys. States under keys of another form are refused.
        worker: The worker's name, 32 hex digits; "": a new one.
    """

    def __init__(
        self,
        store: InterestStore,
        batches: Callable[[], RecordBatches],
        read: ReadRange,
        find: FindClaim,
        topics: Mapping[str, str],
        partitions: int,
        on_left_out: Callable[[LeftOut], None] = lambda records: None,
        key: str = UTF8,
        worker: str = "",
    ) -> None:
        self._store = store
        self._batches = batches
        self._read = read
        self._find = find
        self._topics = dict(topics)
        self._partitions = partitions
        self._on_left_out = on_left_out
        self._key = key
        self._worker = worker or uuid.uuid4().hex
        self._claimed: set[int] = set()
        self._assignment = 0  # number of the assignment
        self._epochs: dict[int, int] = {}
        self._mine: dict[int, set[int]] = {}  # every epoch that we have claimed since we took over
        self._ends: dict[int, int] = {}  # offset of our last record

    def partitions(self) -> list[int]:
        """Return the partitions that this worker has claimed since the last assignment, while they are its own."""
        return sorted(self._claimed)

    def owns(self, partition: int) -> bool:
        """Return whether this worker has claimed the partition since the last assignment, and it is its own still."""
        return partition in self._claimed

    def epoch(self, partition: int) -> int:
        """Return the epoch with which this worker has claimed a partition last."""
        return self._epochs[partition]

    def revoked(self) -> None:
        """Give up all partitions: their folders may close from here on. A takeover that still runs claims nothing more."""
        self._assignment += 1
        self._claimed.clear()

    def stamp(self, partition: int) -> list[tuple[str, bytes]]:
        """Return the headers of a state record for this partition."""
        return stamp(self._epochs[partition])

    def written(self, partition: int) -> int:
        """Return the offset of our last record in a partition; -1 if there is none."""
        return self._ends.get(partition, -1)

    async def take_over(self, partitions: Iterable[int]) -> None:
        """Claim partitions whose states were read back, after reading each up to the claim.

        Raises:
            TopologyError: The states were folded from topics with other names, from another number of partitions, or by
                keys of another form; or the epochs are used up.
            LossError: A source topic was recreated since.
            BrokerError: The claim cannot be written.
            LeaseError: The partitions were given up meanwhile.
        """
        for known in (self._claimed, self._epochs, self._mine, self._ends):
            known.clear()
        wanted, assignment = sorted(partitions), self._assignment
        await self._same_topics(wanted)
        for partition in wanted:
            if stopping.asked:
                return  # a worker that was asked to stop takes nothing over
            await self._take(partition)
            if assignment != self._assignment:
                raise LeaseError(f"partition {partition} was given up while it was claimed")
            self._claimed.add(partition)
        if self._epochs:
            log.info("partitions claimed", extra={"epochs": dict(self._epochs)})

    async def _same_topics(self, partitions: Sequence[int]) -> None:
        """Check that the topics match the claims.

        A partition that was added has no claim to compare with. Partition 0 has had one since the very first start.
        """
        found = {partition: self._store.claim(partition) for partition in partitions}
        if 0 not in partitions and not all(claim.epoch for claim in found.values()):
            found[0] = await self._find(0)
        for partition, claim in found.items():
            self._same_names(partition, claim)
            self._same_ids(partition, claim)
            self._same_count(claim)
            self._same_key(partition, claim)

    def _same_names(self, partition: int, claim: Claim) -> None:
        """Check the topics' names. Old claims contain no topics, and neither do ours if the broker reports no ids."""
        if claim.topics and self._topics and claim.topics.keys() != self._topics.keys():
            raise TopologyError(
                f"partition {partition} of {self._store.changelog_topic} holds states of the topics "
                f"{', '.join(sorted(claim.topics))}, and this worker's are {', '.join(sorted(self._topics))}: another deployment "
                "uses this app_id; choose another app_id, or the prefix of those topics"
            )

    def _same_ids(self, partition: int, claim: Claim) -> None:
        for topic, known in claim.topics.items():
            now = self._topics.get(topic)
            if now is not None and now != known:
                raise LossError(
                    f"topic {topic} was recreated: it has the id {now}, the states of partition {partition} were folded from "
                    f"{known}, and offsets of the two cannot be compared; use another app_id, or restore the old topic"
                )

    def _same_count(self, claim: Claim) -> None:
        if claim.partitions not in (0, self._partitions):
            raise TopologyError(
                f"the topics have {self._partitions} partitions, and had {claim.partitions} when the states were folded: "
                "partitions that are added later separate users from their states; to use that many, choose another prefix"
            )

    def _same_key(self, partition: int, claim: Claim) -> None:
        if claim.form not in ("", self._key):
            raise TopologyError(
                f'key: found "{self._key}", expected "{claim.key}", the form of the users\' keys in partition {partition} of '
                f"{self._store.changelog_topic}: with another form users are on other partitions than their "
                f"states; set FRESHET_KEY={claim.key} again, or choose another app_id and prefix, and start there without states"
            )

    async def _take(self, partition: int) -> None:
        least = 0
        for _ in range(ATTEMPTS):
            epoch = max(self._store.claim(partition).epoch, least) + 1
            if epoch > FIRST:
                raise TopologyError(
                    f"partition {partition} of {self._store.changelog_topic} was claimed with epoch {epoch - 1}, which no "
                    "deployment can reach: something else writes there; use another app_id"
                )
            last = self._store.offset(partition)
            claim, at = await self._claim(partition, epoch)
            if at < 0:  # the broker has the claim but does not report its offset
                least = epoch
                continue
            records = await self._between(partition, last, claim, at)
            self._count(partition, self._store.apply(partition, records))
            if self._store.claim(partition) == claim:
                self._epochs[partition], self._ends[partition] = epoch, at
                self._mine[partition] = {epoch}
                await self._mend(partition)
                return
            least = 0  # another worker's claim came first: the next epoch is above that one
        raise BrokerError(f"partition {partition} of the changelog could not be claimed in {ATTEMPTS} attempts")

    async def _mend(self, partition: int) -> None:
        """Write again the states that another writer has overwritten, before anything new is written.

        Users without a state get a tombstone, so that compaction keeps no record of theirs.
        """
        tp, count = (self._store.changelog_topic, partition), 0
        while (users := self._store.exposed(partition, CHUNK)) and not stopping.asked:
            states = zip(users, self._store.read(partition, users), strict=True)
            again = [Outgoing(user, value, self.stamp(partition)) for user, value in states]
            ends = await self._batches().send({tp: again})
            await self.confirm({partition: again}, {partition: ends[tp]})
            self._store.write(partition, [], self._ends[partition], settled_users=users)
            count += len(again)
        if count:
            _log_again(partition, count)

    async def confirm(self, sent: Mapping[int, Sequence[Outgoing]], ends: Mapping[int, int]) -> dict[int, int]:
        """Check that no other writer has written between our records.

        Args:
            sent: Acknowledged state records by partition.
            ends: The last offset of each partition.
        Returns:
            Our last offset in each partition now.
        Raises:
            FencedError: Another worker has claimed a partition since.
        """
        settled = {}
        for partition, records in sent.items():
            end = ends.get(partition, -1)
            if end != self._ends[partition] + len(records):
                end = await self._settle(partition, records)
            self._ends[partition] = settled[partition] = end
        return settled

    async def _settle(self, partition: int, records: Sequence[Outgoing]) -> int:
        """Claim again: another writer has written in between, or the broker did not report the offsets of our records.

        Returns the offset of our last record.
        """
        newest = {record.key: record.value for record in records if record.key is not None}
        ours = {(record.key, record.value) for record in records}
        before = self._epochs[partition]
        for _ in range(ATTEMPTS):
            epoch = self._epochs[partition] = self._epochs[partition] + 1
            self._mine[partition].add(epoch)
            claim, at = await self._claim(partition, epoch)
            if at < 0:
                continue
            between = await self._between(partition, self._ends[partition], claim, at)
            stale = self._stale(partition, between[:-1], before, ours)
            # as a reader of the log would do: if we end here, the next start reads from after `at`, and must neither miss
            # our records nor forget `stale`
            settled = {
                record.key: record.value for record in between[:-1] if record.key and (record.key, record.value) in ours
            }
            self._store.write(partition, settled.items(), at, claim=claim, exposed_users=stale)
            self._ends[partition], before = at, epoch
            again = [
                Outgoing(key, newest[key] if key in newest else self._store.read(partition, [key])[0], stamp(epoch))
                for key in stale
            ]
            if not again:
                return self._settled(partition, stale, at)
            _log_again(partition, len(again))
            ours.update((record.key, record.value) for record in again)
            tp = (self._store.changelog_topic, partition)
            end = (await self._batches().send({tp: again}))[tp]
            if end == at + len(again):
                return self._settled(partition, stale, end)
        raise BrokerError(
            f"another writer wrote to partition {partition} of the changelog in each of {ATTEMPTS} attempts"
        )

    def _settled(self, partition: int, users: Sequence[bytes], end: int) -> int:
        """Note that these users' states were written again, or deleted again.

        Returns `end`, the offset up to which the changelog is known.
        """
        self._store.write(partition, [], end, settled_users=users)
        return end

    def _stale(
        self,
        partition: int,
        between: Sequence[LogRecord],
        current: int,
        ours: Container[tuple[bytes | None, bytes | None]],
    ) -> list[bytes]:
        """Return the users whose states another writer has overwritten.

        After a forged claim all our records count as overwritten, because a reader that knows no epoch yet may accept
        it. A record under a key that no user can have is not a state and is not written again: there the store has its
        own data.

        Args:
            partition: The partition.
            between: The records to judge.
            current: Our epoch at the beginning of `between`.
            ours: The (key, value) pairs that we have sent.
        Raises:
            FencedError: There is a valid claim that is not ours, no matter which worker it names.
        """
        stale: list[bytes] = []
        fenced, forged, nobodys = 0, 0, 0
        for record in between:
            if record.key == CLAIM_KEY:
                claim, why = judge(record, current)
                if why:
                    log_forged(partition, Forged(record.offset, why))
                    forged += 1
                elif claim.epoch and not (claim.worker == self._worker and claim.epoch in self._mine[partition]):
                    raise FencedError(
                        f"partition {partition} was claimed by another worker: epoch {claim.epoch}, ours {current}"
                    )
                current = max(current, claim.epoch)
            elif record.key is None or not of_user(record.key, self._key):
                log_forged(partition, of_nobody(record))
                nobodys += 1
            else:
                foreign = (
                    epoch_of(record.headers) not in self._mine[partition] or (record.key, record.value) not in ours
                )
                fenced += foreign
                if foreign or forged:
                    stale.append(record.key)
        self._count(partition, LeftOut(fenced, forged + nobodys))
        return list(dict.fromkeys(stale))

    def _count(self, partition: int, found: LeftOut) -> None:
        if found.fenced:
            log.warning(
                "records of another writer left out", extra={"partition": partition, "records": found.fenced}
            )  # fmt: skip
        if any(found):
            self._on_left_out(found)

    async def _claim(self, partition: int, epoch: int) -> tuple[Claim, int]:
        """Write a claim. Return it once it is acknowledged, and its offset; -1 if the broker did not report it."""
        claim = Claim(epoch, self._worker, int(time.time() * 1000), self._topics, self._partitions, self._key)
        tp = (self._store.changelog_topic, partition)
        ends = await self._batches().send({tp: [Outgoing(CLAIM_KEY, encode(claim), stamp(epoch))]})
        return claim, ends[tp]

    async def _between(self, partition: int, last: int, claim: Claim, at: int) -> list[LogRecord]:
        """Return everything after `last` up to our claim at `at`, inclusive. Raises LossError if `at` is not after `last`."""
        if at <= last:
            raise changelog_cut(self._store.changelog_topic, partition, at, last)
        found = [] if at == last + 1 else await self._read(partition, last + 1, at - 1)
        return [*found, Written(at, CLAIM_KEY, encode(claim), stamp(claim.epoch))]


def _log_again(partition: int, count: int) -> None:
    log.warning(
        "states written again: another writer had overwritten them", extra={"partition": partition, "states": count}
    )  # fmt: skip
