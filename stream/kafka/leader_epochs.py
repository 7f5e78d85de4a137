"""Leader epochs: checks whether a log is still the one that was read before.

An unclean election (among replicas that have missed records) truncates a log: acknowledged records are gone, and other
records get their offsets. A consumer that checks only offsets reads on as if nothing had happened. Kafka's solution
(KIP-320) is the epoch of the leader that wrote a record. Epoch E of a log ends at the last record of E, so a reader
that has read E beyond that point has read records that no longer exist. aiokafka does not check this, so this module
does, once for each new epoch.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from aiokafka.errors import KafkaError, NoError, OffsetOutOfRangeError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.types import Array, Int16, Int32, Int64, Schema, String
from aiokafka.structs import TopicPartition

_HEAD: Final = struct.Struct(">qiib")  # base offset, length of what follows, leader epoch, version of the format
_BEFORE: Final = 12  # bytes that the length does not include
_VERSION: Final = 2  # version of the format; older ones have no leader epoch
NOBODY: Final = -1  # as replica: a consumer; as current epoch: any


class _EndsResponse(Response):
    API_KEY = 23
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topics", Array(("topic", String("utf-8")), ("partitions", Array(
            ("error_code", Int16), ("partition", Int32), ("leader_epoch", Int32), ("end_offset", Int64),
        )))),
    )  # fmt: skip


class _EndsRequestStruct(RequestStruct):
    API_KEY = 23  # OffsetForLeaderEpoch
    API_VERSION = 3
    RESPONSE_TYPE = _EndsResponse
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("topics", Array(("topic", String("utf-8")), ("partitions", Array(
            ("partition", Int32), ("current_leader_epoch", Int32), ("leader_epoch", Int32),
        )))),
    )  # fmt: skip


class _EndsRequest(Request[_EndsRequestStruct]):
    API_KEY = 23

    def __init__(self, epochs: Mapping[TopicPartition, int]) -> None:
        self._topics: dict[str, list[tuple[int, int, int]]] = {}
        for (topic, partition), epoch in epochs.items():
            self._topics.setdefault(topic, []).append((partition, NOBODY, epoch))

    def build(self, request_struct_class: type[_EndsRequestStruct]) -> _EndsRequestStruct:
        return request_struct_class(NOBODY, list(self._topics.items()))


class Epochs:
    """The leader epochs in which one client has read the source topics. Use it in the thread of that client.

    Args:
        client: An AIOKafkaClient.
        sources: Names of the topics.
        cut: Called with a partition whose log is truncated, the offset where the log now ends the epoch, and the offset
            up to which it was read. It may end the process or return.
    """

    def __init__(
        self, client: Any, sources: frozenset[str], cut: Callable[[TopicPartition, int, int], Awaitable[None]]
    ) -> None:
        self._client = client
        self._sources = sources
        self._cut = cut
        self._began: dict[TopicPartition, list[tuple[int, int]]] = {}  # (first offset, epoch), both rising
        self._reached: dict[TopicPartition, int] = {}  # position of the last fetch: everything before it was handed out

    def watch(self) -> None:
        """Check every fetch from now on, before any other code sees it."""
        send = self._client.send

        async def looked(node: int, request: Any, **more: Any) -> Any:
            response = await send(node, request, **more)
            if isinstance(request, FetchRequest):
                await self._look(node, request, response)
            return response

        self._client.send = looked

    def forget(self) -> None:
        """Forget all partitions: they belong to another worker from now on, which may read on in other epochs."""
        self._began.clear()
        self._reached.clear()

    def keep_from(self, tp: TopicPartition, offset: int) -> None:
        """Note that a partition is ours again from `offset` on. What was fetched since stays known."""
        self._began[tp] = [one for one in self._began.get(tp, []) if one[0] >= offset]

    def reached(self, tp: TopicPartition) -> int:
        """Return the offset up to which a partition was read, -1 if it was not."""
        return self._reached.get(tp, -1)

    def before(self, tp: TopicPartition, offset: int) -> int:
        """Return the epoch of the record before `offset`; -1 if it was not read here."""
        began = self._began.get(tp, [])
        number = bisect_left(began, (offset, -1)) - 1
        return began[number][1] if number >= 0 else -1

    def leader(self, tp: TopicPartition) -> int | None:
        """Return the node that leads a partition, as the newest metadata say; None if none is known."""
        node = self._client.cluster.leader_for_partition(tp)
        return node if node is not None and node >= 0 else None

    async def refresh(self) -> None:
        """Ask for new metadata."""
        await self._client.force_metadata_update()

    async def ends(self, node: int, epochs: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | KafkaError]:
        """Return the offset where the log of each partition ends the given epoch.

        Args:
            node: The leader of these partitions. It gets one request.
            epochs: Epoch by partition.
        Returns:
            By partition, the offset, -1 if the leader does not know it, or an error if it does not answer for that
            partition.
        Raises:
            KafkaError: The leader does not answer at all.
        """
        if not epochs:
            return {}
        response = await self._client.send(node, _EndsRequest(epochs))
        answers = {
            TopicPartition(topic, partition): (for_code(code), end)
            for topic, partitions in response.topics
            for code, partition, _, end in partitions
        }
        found: dict[TopicPartition, int | KafkaError] = {}
        for tp in epochs:
            error, end = answers.get(tp, (UnknownTopicOrPartitionError, -1))
            found[tp] = int(end) if error is NoError else error()
        return found

    async def _look(self, node: int, request: Any, response: Any) -> None:
        positions = {
            TopicPartition(topic, partition): offset
            for topic, partitions in request.topics
            if topic in self._sources
            for partition, offset, _ in partitions
        }
        self._reached |= positions
        doubts: dict[TopicPartition, int] = {}  # epoch of the records that were read: does the log still have them?
        fetched: dict[TopicPartition, list[tuple[int, int]]] = {}
        for topic, partitions in response.topics if positions else ():
            for partition, code, _, *_, data in partitions:
                tp = TopicPartition(topic, partition)
                if tp not in positions:
                    continue
                known = self.before(tp, positions[tp])
                if not code and data:
                    fetched[tp] = found = list(_batches(data))
                    # later batches come from the same log as the first
                    doubted = bool(found) and found[0][1] > known
                else:
                    doubted = code == OffsetOutOfRangeError.errno  # before the fetcher restarts somewhere else
                if doubted and known >= 0:
                    doubts[tp] = known
        await self._compare(node, doubts, positions)
        for tp, found in fetched.items():
            self._note_fetched(tp, positions[tp], found)

    def _note_fetched(self, tp: TopicPartition, position: int, found: Iterable[tuple[int, int]]) -> None:
        known = self.before(tp, position)
        for first, epoch in found:
            if known != epoch:
                self.note(tp, max(position, first), epoch)
                known = epoch

    async def _compare(
        self, node: int, epochs: Mapping[TopicPartition, int], positions: Mapping[TopicPartition, int]
    ) -> None:
        """Check that the logs still have what was read up to these positions, and report those that are truncated.

        It reports nothing until all results are known. A fetch after an error checks again, and each truncation must be
        reported only once.
        """
        ends: dict[TopicPartition, int] = {}
        for tp, end in (await self.ends(node, epochs)).items():
            if isinstance(end, KafkaError):
                raise end
            ends[tp] = end
        for tp, end in ends.items():
            if 0 <= end < positions[tp]:
                await self._cut(tp, end, positions[tp])

    def note_committed(self, tp: TopicPartition, offset: int, epoch: int) -> None:
        """Note that according to the commit, the record at `offset` has `epoch`. What was fetched meanwhile stays known."""
        began = self._began.setdefault(tp, [])
        began.insert(bisect_left(began, (offset, -1)), (offset, epoch))

    def note(self, tp: TopicPartition, offset: int, epoch: int) -> None:
        """Note that records from `offset` on have `epoch`, up to the next ones known to have another epoch."""
        began = self._began.setdefault(tp, [])
        number = bisect_left(began, (offset, -1))
        if number < len(began) and began[number][1] == epoch:  # read again from further back
            began[number] = (offset, epoch)
        else:
            del began[number:]
            began.append((offset, epoch))


def watch_epochs(
    consumer: Any, topics: Iterable[str], cut: Callable[[TopicPartition, int, int], Awaitable[None]]
) -> Epochs:
    """Check every fetch of an AIOKafkaConsumer that keeps no offsets; `cut` is the same as in Epochs."""
    epochs = Epochs(consumer._client, frozenset(topics), cut)
    epochs.watch()
    return epochs


def _batches(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (first offset, leader epoch) of each record batch of a fetch. The last batch may be incomplete."""
    at = 0
    while at + _HEAD.size <= len(data):
        first, length, epoch, version = _HEAD.unpack_from(data, at)
        if version != _VERSION:
            return
        yield first, epoch
        at += _BEFORE + length
