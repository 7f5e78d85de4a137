"""Where source partitions begin after they were assigned, and which committed offsets are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from faust.types import TP
from msgspec.structs import replace

from stream.kafka.broker_offsets import BrokerOffsets
from stream.kafka.losses import Losses, changelog_empty, offset_gone, records_gone
from stream.kafka.partition_listener import PartitionListener
from stream.kafka.source_thread import SourceThread
from stream.kafka.truncation import CommitMetadata, Found, changelog_cut, source_cut, source_moved


class StartOffsets:
    """Finds and commits the offsets at which source partitions begin.

    Args:
        thread: The consumer's thread.
        broker: The offsets that the logs have.
        listener: The owner of the table's partitions.
        losses: Decides about records and states that are gone.
        read: Faust's position in each partition; None where nothing was committed.
        committed: Faust's committed offset of each partition.
        group_id: The group's id.
        changelog: Partition number -> that partition of the changelog.
    Attributes:
        at_start: By source partition, the offsets that were there when this assignment began. A worker may have read them
            before. Partitions that no worker has owned are left out.
    """

    def __init__(
        self,
        thread: SourceThread,
        broker: BrokerOffsets,
        listener: PartitionListener,
        losses: Losses,
        *,
        read: Mapping[TP, int | None],
        committed: dict[TP, int | None],
        group_id: str,
        changelog: Callable[[int], TP],
    ) -> None:
        self._thread = thread
        self._broker = broker
        self._listener = listener
        self._losses = losses
        self._read = read
        self._committed = committed
        self._group_id = group_id
        self._changelog = changelog
        self.at_start: Mapping[TP, range] = {}

    async def begin(self, sources: Sequence[TP]) -> dict[TP, int]:
        """Seek to the start position in each source partition, check it, and commit it where it is new.

        It is committed before the claim, which records that a worker has begun here: see `seek`.

        Returns:
            The start offset of each partition.
        Raises:
            LossError: Records or states are gone.
            CommitFailedError: The partitions are no longer ours.
        """
        known = {tp: self._read.get(tp) for tp in sources}
        starts = await self.seek(sources)
        await self._check_empty(sources)
        accepted = await self._check_cut(sources)
        back = {tp: CommitMetadata(starts[tp]) for tp, offset in known.items() if offset is None or starts[tp] < offset}
        begun = back | accepted
        await self._commit(
            {tp: (starts[tp], replace(one, read=max(one.read, starts[tp]))) for tp, one in begun.items()}
        )
        return starts

    async def seek(self, sources: Iterable[TP]) -> dict[TP, int]:
        """Seek to the start position in each source partition.

        That is the committed offset, or the log's start if there is none.

        Returns:
            The start offset of each partition.
        Raises:
            LossError: A committed offset is outside the log, or it is missing for a partition that a worker has owned.
                So there are records that no worker will ever read.
        """
        committed = {tp: self._read.get(tp) for tp in sources}
        starts: dict[TP, int] = {}
        logs = await self._broker.logs(committed)
        for tp, log in logs.items():
            offset = committed[tp]
            starts[tp] = log.start if offset is None else offset
            if offset is None and log.start > 0 and self._listener.is_claimed(tp.partition):
                self._losses.lose(offset_gone(tp, log))
            if not log.start <= starts[tp] <= log.stop:
                self._losses.lose(records_gone(tp, starts[tp], log), max(0, log.start - starts[tp]))
                starts[tp] = log.start
        # Faust has already sought the committed offsets, except those that are 0
        wanted = {tp: offset for tp, offset in starts.items() if not offset or offset != committed[tp]}
        if wanted:
            await self._thread.seek_wait(wanted)
        self.at_start = {
            tp: range(starts[tp], log.stop) for tp, log in logs.items() if self._listener.is_claimed(tp.partition)
        }
        return starts

    async def _check_empty(self, sources: Iterable[TP]) -> None:
        """Report a loss if a changelog partition is empty but source offsets are committed.

        Every owner writes a claim, so a changelog without records belongs to a group that has committed nothing.
        """
        committed = {tp: offset for tp in sources if (offset := self._committed.get(tp))}
        changelogs = {self._changelog(tp.partition) for tp in committed}
        ends = await self._broker.ends(*changelogs) if changelogs else {}
        for tp, offset in sorted(committed.items()):
            changelog = self._changelog(tp.partition)
            if not ends.get(changelog):
                self._losses.lose(changelog_empty(changelog, tp, offset), 0)

    async def _check_cut(self, sources: Iterable[TP]) -> dict[TP, CommitMetadata]:
        """Check committed offsets: the source log has the records before them, and the changelog has the states.

        If a worker has begun a partition, a worker must have committed its offset, too.

        Returns:
            For each partition that fails a check whose loss is accepted: what to commit with the offset, so that the
            same loss is not reported again.
        """
        sources = [tp for tp in sources if self._committed.get(tp)]
        if not sources:
            return {}
        in_group = await self._in_thread(self._thread.truncations.take_over(sources))
        found = {TP(*partition): one for partition, one in in_group.items()}
        accepted = self._check_sources(found)
        ends = await self._check_changelogs(found)
        for tp, one in found.items():
            end = ends.get(self._changelog(tp.partition)) or 0
            if end <= one.noted.written:
                accepted[tp] = replace(accepted.get(tp, one.noted), written=end - 1)
        return accepted

    def _check_sources(self, found: Mapping[TP, Found]) -> dict[TP, CommitMetadata]:
        """Check who committed each offset, and that the source's log was not truncated. Returns what was accepted."""
        accepted: dict[TP, CommitMetadata] = {}
        for tp, one in sorted(found.items()):
            if one.foreign:
                if self._listener.is_claimed(tp.partition):
                    self._losses.lose(source_moved(tp.topic, tp.partition, self._group_id, one))
                accepted[tp] = CommitMetadata(one.offset)
            if (end := one.cut()) >= 0:
                self._losses.lose(source_cut(tp.topic, tp.partition, end, one.read), one.read - end)
                accepted[tp] = CommitMetadata(one.offset, written=one.noted.written)
        return accepted

    async def _check_changelogs(self, found: Mapping[TP, Found]) -> Mapping[TP, int]:
        """Check that each changelog partition has the last state that was written. Returns where they end."""
        written: dict[TP, int] = {}  # once for each changelog partition, from whichever source's offset has it
        for tp, one in sorted(found.items()):
            changelog = self._changelog(tp.partition)
            written[changelog] = max(written.get(changelog, -1), one.noted.written)
        ends = await self._broker.ends(*written) if written else {}
        for changelog, last in sorted(written.items()):
            end = ends.get(changelog) or 0
            if 0 < end <= last:  # `_check_empty` reports an empty one
                self._losses.lose(changelog_cut(changelog.topic, changelog.partition, end, last), last + 1 - end)
        return ends

    async def _commit(self, offsets: Mapping[TP, tuple[int, CommitMetadata]]) -> None:
        """Commit the offsets at which we begin. Raises CommitFailedError if the partitions are no longer ours."""
        if not offsets:
            return
        await self._in_thread(self._thread.truncations.commit(offsets))
        self._committed.update((tp, offset) for tp, (offset, _) in offsets.items())

    async def _in_thread(self, call: Any) -> Any:
        """Run a coroutine in the consumer's thread."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._thread.thread_loop))
