"""A user's interest: the record that the table and its changelog hold, and the bookkeeping of folding. Pure.

Record format 1, little-endian, no padding:

    u8 format | u8 0 | u16 H | 16s model | u64 seq | 3 x i64 applied | i64 catalogue | i64 last_time | 16s chain
    | u16 folded | u8 recent | u16 seen
    | folded x (u8 topic, i64 offset)        the events folded since the previous record, in order
    | H x f16 h | H x f16 c                  the LSTM's state
    | recent x entry                         the last 64 events, oldest first
    | seen x u32                             sorted crc32 of item ids, at most 4,096
    | u32 crc32 of all before

    entry: u16 length of the rest | u8 behaviour | f32 value (NaN: none) | i64 time | (u16 length, UTF-8) x item, scene,
    id
           and action, but only if the event has one. An entry without an action is the same as before there were
           actions. A reader from that time skips an action by the entry's length.

`applied` is the last applied offset of each source topic. A user has one partition number, the same in all three
topics. `model` names the step model that h and c belong to. The record holds no index that is private to one process.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from stream.core.errors import StateError
from stream.core.messages import SourceEvent

FORMAT: Final = 1
MAX_RECENT: Final = 64
MAX_SEEN: Final = 4096
HASH_BYTES: Final = 4
"""Of one hash in `Interest.seen`."""
MAX_SEQ: Final = 2**63 - 1
NO_TIME: Final = -1
ZERO_CHAIN: Final = bytes(16)

Half = NDArray[np.float16]

_HEADER = struct.Struct("<BBH16sQqqqqq16sHBH")
_FOLDED = struct.Struct("<Bq")
_ENTRY = struct.Struct("<Bfq")
_CHOSEN = struct.Struct("<Bf8xH")  # behaviour and value of an entry, length of the item id after them
_U16 = struct.Struct("<H")
_LEAST_ENTRY = _U16.size + _ENTRY.size + 3 * _U16.size
_U32 = struct.Struct("<I")
_SEQ = slice(struct.calcsize("<BBH16s"), struct.calcsize("<BBH16sQ"))  # of a record


class Recent(NamedTuple):
    """One remembered event.

    Attributes:
        behaviour: Index into stream.core.messages.BEHAVIOURS.
        value: The rating; NaN for none.
        time: Epoch ms.
        item: The item's id.
        scene: The scene; "" for none.
        id: The event's `mark`, else its `id`.
        action: The click's action; "" for none.
    """

    behaviour: int
    value: float
    time: int
    item: str
    scene: str
    id: str
    action: str = ""


class Interest:
    """One user's state. h, c: float16 [H]. `folded`: (topic index, offset) of the events applied since it was read."""

    __slots__ = (
        "applied",
        "c",
        "catalogue",
        "chain",
        "folded",
        "h",
        "last_time",
        "model",
        "recent",
        "recent_count",
        "seen",
        "seq",
    )  # fmt: skip

    def __init__(self, model: bytes, h: Half, c: Half) -> None:
        self.model = model
        self.h = h
        self.c = c
        self.seq = 0
        self.applied = [-1, -1, -1]
        self.catalogue = -1
        self.last_time = NO_TIME
        self.chain = ZERO_CHAIN
        self.folded: list[tuple[int, int]] = []
        self.recent = b""
        self.recent_count = 0
        self.seen = b""

    def recents(self) -> Iterator[Recent]:
        """Yield the last 64 events, oldest first. Raises StateError if they are not as `encode` writes them."""
        at = 0
        try:
            while at < len(self.recent):
                (length,) = _U16.unpack_from(self.recent, at)
                yield _entry(self.recent, at + 2, at + 2 + length)
                at += 2 + length
        except (struct.error, UnicodeDecodeError) as error:
            raise _unreadable(error) from None

    def newest(self, refused: frozenset[str] = frozenset()) -> Iterator[tuple[str, int, bool]]:
        """Yield (item, behaviour, whether it has a value) of the last 64 events, newest first.

        Events whose action is in `refused` are left out. It costs a third of `recents` if only a few events are needed.
        Raises StateError as `recents` does.
        """
        raw, at, starts = self.recent, 0, []
        end = len(raw)
        try:
            while at < end:
                starts.append(at)
                at += 2 + raw[at] + 256 * raw[at + 1]
            some = any(tail in raw for tail in _tails(refused))  # bytes first: nearly always there is none
            for at in reversed(starts):
                if some:
                    after, end = end, at
                    if _entry(raw, at + 2, after).action in refused:
                        continue
                behaviour, value, length = _CHOSEN.unpack_from(raw, at + 2)
                first = at + 2 + _CHOSEN.size
                yield raw[first : first + length].decode(), behaviour, value == value
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise _unreadable(error) from None

    def seen_hashes(self) -> NDArray[np.uint32]:
        """Return the sorted crc32 of the items that this user has interacted with, uint32 [<= 4096]."""
        return np.frombuffer(self.seen, np.uint32)


def new(model: bytes, hidden: int) -> Interest:
    """Return the state of a user without any event: zeros."""
    zeros = np.zeros(hidden, np.float16)
    return Interest(model, zeros, zeros)


def item_hash(item: str) -> int:
    """Return the 32-bit hash by which a state remembers an item."""
    return crc32(item.encode())


def event_id(event: SourceEvent, topic: str) -> bytes:
    """Return the producer's `id` or the origin of a redriven record, else topic/partition/offset."""
    return event.id.encode() if event.id else b"%s/%d/%d" % (topic.encode(), event.partition, event.offset)


def next_chain(chain: bytes, identity: bytes, payload: bytes) -> bytes:
    """Return blake2b-128 of (previous chain, event id, blake2b-128 of the payload)."""
    return blake2b(chain + identity + blake2b(payload, digest_size=16).digest(), digest_size=16).digest()


def is_redelivered(state: Interest, event: SourceEvent) -> bool:
    """Check whether the event is at or below the applied offset, and so already in the state."""
    return event.offset <= state.applied[event.behaviour]


def is_duplicate(state: Interest, event: SourceEvent) -> bool:
    """Check whether the event's `id` is among the user's last 64 events. Only a producer's id or an origin repeats."""
    known = event.mark or event.id
    if not known or known.encode() not in state.recent:  # bytes first: nearly always it is not there
        return False
    return any(recent.id == known for recent in state.recents())


def pass_over(state: Interest, event: SourceEvent) -> None:
    """Move `applied` past a duplicate, or past an event that the model refuses, and change nothing else."""
    state.applied[event.behaviour] = event.offset


def fold(state: Interest, event: SourceEvent, topic: str) -> int:
    """Apply one new event to everything except h and c. Returns the time gap in ms (NO_TIME for the first event).

    The gap is max(0, time - latest time so far): a late event has gap 0 and does not move the clock back.
    """
    gap = NO_TIME if state.last_time == NO_TIME else max(0, event.time - state.last_time)
    state.last_time = max(state.last_time, event.time)
    state.seq += 1
    state.applied[event.behaviour] = event.offset
    state.folded.append((event.behaviour, event.offset))
    state.chain = next_chain(state.chain, event_id(event, topic), event.payload)
    _remember(state, event)
    _see(state, item_hash(event.item))
    return gap


def erase(state: Interest, event: SourceEvent) -> None:
    """Apply a control record (stream.core.forgetting): nothing is left but `applied`, which covers what was forgotten.

    `applied` keeps events that are read again, after a crash, from coming back. `folded` names the control record last.
    """
    state.h = state.c = np.zeros(len(state.h), np.float16)
    state.seq = 0
    state.chain = ZERO_CHAIN
    state.last_time = NO_TIME
    state.recent, state.recent_count, state.seen = b"", 0, b""
    state.applied[event.behaviour] = event.offset
    state.folded.append((event.behaviour, event.offset))


def is_empty(record: bytes) -> bool:
    """Return whether a state record shows no event: its user was forgotten, or had only events that were refused.

    It holds only `applied`. Once the group has committed what that covers, nobody needs the record.
    """
    return len(record) > _HEADER.size and not any(record[_SEQ])


def _remember(state: Interest, event: SourceEvent) -> None:
    body = _ENTRY.pack(event.behaviour, event.value, event.time)
    for text in (event.item, event.scene, event.mark or event.id):
        raw = text.encode()
        body += _U16.pack(len(raw)) + raw
    if event.action:
        body += _tail(event.action)
    kept = state.recent
    if state.recent_count == MAX_RECENT:
        kept = kept[2 + _U16.unpack_from(kept)[0] :]
    else:
        state.recent_count += 1
    state.recent = kept + _U16.pack(len(body)) + body


def _see(state: Interest, item: int) -> None:
    """Insert one hash in order. A full set stays as it is; `recent` also knows the last 64 items."""
    hashes = memoryview(state.seen).cast("I")
    at = bisect_left(hashes, item)
    if len(hashes) >= MAX_SEEN or (at < len(hashes) and hashes[at] == item):
        return
    state.seen = state.seen[: 4 * at] + _U32.pack(item) + state.seen[4 * at :]


def encode(state: Interest) -> bytes:
    """Return the record of a state. Raises StateError if h or c is not finite."""
    if not (np.isfinite(state.h).all() and np.isfinite(state.c).all()):
        raise StateError("h or c is not finite")
    body = b"".join(
        (
            _HEADER.pack(
                FORMAT, 0, len(state.h), state.model, state.seq, *state.applied, state.catalogue, state.last_time,
                state.chain, len(state.folded), state.recent_count, len(state.seen) // 4,
            ),
            *(_FOLDED.pack(topic, offset) for topic, offset in state.folded),
            state.h.tobytes(),
            state.c.tobytes(),
            state.recent,
            state.seen,
        )
    )  # fmt: skip
    return body + _U32.pack(crc32(body))


def decode(record: bytes) -> Interest:
    """Return the state in a record, with `folded` as written (clear it before folding). Raises StateError on damage."""
    try:
        return _decode(record)
    except (struct.error, ValueError) as error:
        raise StateError(f"state record cannot be decoded: {error}") from None


def _decode(record: bytes) -> Interest:
    (format_, _, hidden, model, seq, *applied, catalogue, last_time, chain, folded, recent, seen) = _HEADER.unpack_from(
        record
    )
    if format_ != FORMAT:
        raise StateError(f"state record has format {format_}; this version reads format {FORMAT}")
    if crc32(memoryview(record)[:-4]) != _U32.unpack_from(record, len(record) - 4)[0]:
        raise StateError("state record is damaged: wrong checksum")
    if (
        seq > MAX_SEQ or recent > MAX_RECENT or seen > MAX_SEEN
    ):  # `encode` never writes these, and no memory is reserved for them
        raise StateError(
            f"state record cannot be decoded: seq {seq}, recent events {recent}, seen items {seen}; expected at most {MAX_SEQ}, "
            f"{MAX_RECENT}, {MAX_SEEN}"
        )
    at = _HEADER.size
    after = at + folded * _FOLDED.size
    end = len(record) - _U32.size - 4 * seen
    least = after + 4 * hidden + _LEAST_ENTRY * recent
    if end < least or (end > least and not recent):
        raise StateError(
            f"state record cannot be decoded: it has {len(record)} bytes, its header says "
            f"{'at least' if recent else 'exactly'} {least + 4 * seen + _U32.size}"
        )
    vectors = np.frombuffer(record, np.float16, 2 * hidden, after)
    if b"\0" in np.isfinite(vectors).tobytes():  # `encode` never writes this
        raise StateError("state record is damaged: its h or c is not finite")
    state = Interest(model, vectors[:hidden], vectors[hidden:])
    state.seq = seq
    state.applied = applied
    state.catalogue = catalogue
    state.last_time = last_time
    state.chain = chain
    state.folded = list(_FOLDED.iter_unpack(record[at:after])) if folded else []
    state.recent = record[after + 4 * hidden : end]
    state.recent_count = recent
    state.seen = record[end:-4]
    return state


def _unreadable(error: Exception) -> StateError:
    """Return the error for malformed recent events. The record's checksum is right, so they were written that way."""
    return StateError(f"the recent events of a state cannot be decoded: {error}")


def _tail(action: str) -> bytes:
    raw = action.encode()
    return _U16.pack(len(raw)) + raw


@cache
def _tails(actions: frozenset[str]) -> tuple[bytes, ...]:
    """Return the bytes with which entries with these actions end."""
    return tuple(map(_tail, actions))


def _entry(recent: bytes, at: int, end: int) -> Recent:
    """Return the entry in recent[at:end], which excludes the length before it."""
    behaviour, value, time = _ENTRY.unpack_from(recent, at)
    at += _ENTRY.size
    texts = []
    for _ in range(3):
        (length,) = _U16.unpack_from(recent, at)
        texts.append(recent[at + 2 : at + 2 + length].decode())
        at += 2 + length
    if at < end:
        texts.append(recent[at + 2 : end].decode())
    return Recent(behaviour, value, time, *texts)
