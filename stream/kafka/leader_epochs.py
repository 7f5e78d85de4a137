"""Leader epochs: is the log that is read on still the one that was read before?

An election among copies that have missed records (unclean) cuts a log off: records that were acknowledged are gone, and others
get their offsets. A consumer that looks at offsets alone reads on as if nothing had happened. Kafka's answer (KIP-320) is the
epoch of the leader that wrote a record: a log that has epoch E ends it where the last record of E lies, so a reader that has
read E beyond that has read what is no longer there. aiokafka does not ask, so it is done here, once for each new epoch.
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
_BEFORE: Final = 12  # bytes that the length does not count
_VERSION: Final = 2  # of the format: older ones have no leader epoch
NOBODY: Final = -1  # as replica and as current epoch: a consumer, whatever the epoch is now


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
    """The leader epochs in which the source topics were read, by one client. Used in the thread of that client.

    cut: told of a partition, where its log ends what was read, and up to where that was; it does not return, or goes on.
    """

    def __init__(
        self, client: Any, sources: frozenset[str], cut: Callable[[TopicPartition, int, int], Awaitable[None]]
    ) -> None:
        self._client = client
        self._sources = sources
        self._cut = cut
        self._began: dict[TopicPartition, list[tuple[int, int]]] = {}  # (first offset, epoch), both rising
        self._reached: dict[TopicPartition, int] = {}  # the position of the last fetch: all before it was given out

    def watch(self) -> None:
        """Look at every fetch from now on, before anybody else does."""
        send = self._client.send

        async def looked(node: int, request: Any, **more: Any) -> Any:
            response = await send(node, request, **more)
            if isinstance(request, FetchRequest):
                await self._look(node, request, response)
            return response

        self._client.send = looked

    def forget(self) -> None:
        """The partitions are another's from now on, who may read on in other epochs."""
        self._began.clear()
        self._reached.clear()

    def keep_from(self, place: TopicPartition, offset: int) -> None:
        """Ours again, from `offset` on: what was fetched since stays known."""
        self._began[place] = [one for one in self._began.get(place, []) if one[0] >= offset]

    def reached(self, place: TopicPartition) -> int:
        """Up to where a partition was read, -1 where it was not."""
        return self._reached.get(place, -1)

    def before(self, place: TopicPartition, offset: int) -> int:
        """The epoch of the record before `offset`; -1 where it was not read here."""
        began = self._began.get(place, [])
        number = bisect_left(began, (offset, -1)) - 1
        return began[number][1] if number >= 0 else -1

    async def ends(self, node: int, epochs: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | KafkaError]:
        """Where the log of each partition ends the epoch given, in one request to `node`, its leader: -1 where it cannot say, an
        error where it does not answer for that partition. Raises KafkaError where it answers for none."""
        if not epochs:
            return {}
        response = await self._client.send(node, _EndsRequest(epochs))
        said = {
            TopicPartition(topic, partition): (for_code(code), end)
            for topic, partitions in response.topics
            for code, partition, _, end in partitions
        }
        found: dict[TopicPartition, int | KafkaError] = {}
        for place in epochs:
            error, end = said.get(place, (UnknownTopicOrPartitionError, -1))
            found[place] = int(end) if error is NoError else error()
        return found

    async def _look(self, node: int, request: Any, response: Any) -> None:
        positions = {
            TopicPartition(topic, partition): offset
            for topic, partitions in request.topics
            if topic in self._sources
            for partition, offset, _ in partitions
        }
        self._reached |= positions
        doubts: dict[TopicPartition, int] = {}  # the epoch of what was read: does the log still have it?
        fetched: dict[TopicPartition, list[tuple[int, int]]] = {}
        for topic, partitions in response.topics if positions else ():
            for partition, code, _, *_, data in partitions:
                place = TopicPartition(topic, partition)
                if place not in positions:
                    continue
                known = self.before(place, positions[place])
                if not code and data:
                    fetched[place] = found = list(_batches(data))
                    # later batches come from the same log as the first
                    doubted = bool(found) and found[0][1] > known
                else:
                    doubted = code == OffsetOutOfRangeError.errno  # before the fetcher begins somewhere else
                if doubted and known >= 0:
                    doubts[place] = known
        await self._compare(node, doubts, positions)
        for place, found in fetched.items():
            self._note_fetched(place, positions[place], found)

    def _note_fetched(self, place: TopicPartition, position: int, found: Iterable[tuple[int, int]]) -> None:
        known = self.before(place, position)
        for first, epoch in found:
            if known != epoch:
                self.note(place, max(position, first), epoch)
                known = epoch

    async def _compare(
        self, node: int, epochs: Mapping[TopicPartition, int], positions: Mapping[TopicPartition, int]
    ) -> None:
        """Do the logs still have what was read up to these positions? Tells of none before all are known: who fetches again
        after an error asks again, and a cut is told once."""
        ends: dict[TopicPartition, int] = {}
        for place, end in (await self.ends(node, epochs)).items():
            if isinstance(end, KafkaError):
                raise end
            ends[place] = end
        for place, end in ends.items():
            if 0 <= end < positions[place]:
                await self._cut(place, end, positions[place])

    def note_committed(self, place: TopicPartition, offset: int, epoch: int) -> None:
        """The record at `offset` is of `epoch`, says what was committed. What was fetched meanwhile stays known."""
        began = self._began.setdefault(place, [])
        began.insert(bisect_left(began, (offset, -1)), (offset, epoch))

    def note(self, place: TopicPartition, offset: int, epoch: int) -> None:
        """Records from `offset` on are of `epoch`, up to those that are known to be of another."""
        began = self._began.setdefault(place, [])
        number = bisect_left(began, (offset, -1))
        if number < len(began) and began[number][1] == epoch:  # read again from further back
            began[number] = (offset, epoch)
        else:
            del began[number:]
            began.append((offset, epoch))


def watch_epochs(
    consumer: Any, topics: Iterable[str], cut: Callable[[TopicPartition, int, int], Awaitable[None]]
) -> None:
    """Look at every fetch of an AIOKafkaConsumer that keeps no offsets; cut: as of Epochs."""
    Epochs(consumer._client, frozenset(topics), cut).watch()


def _batches(data: bytes) -> Iterator[tuple[int, int]]:
    """(first offset, leader epoch) of the record batches of a fetch, the last of which may be cut short."""
    at = 0
    while at + _HEAD.size <= len(data):
        first, length, epoch, version = _HEAD.unpack_from(data, at)
        if version != _VERSION:
            return
        yield first, epoch
        at += _BEFORE + length
