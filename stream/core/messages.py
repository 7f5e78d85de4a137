"""The wire contract: every message that freshet reads or writes, as msgspec structs.

JSON Schemas are generated from these structs into docs/schemas (`python -m scripts.schemas`). Unknown fields are
ignored, so that producers may add their own. All times are epoch milliseconds, UTC.

What the schemas cannot say, and stream.core.decoder checks besides (by stream.core.validation, as everything does that
takes events): the
value is UTF-8 JSON of at most `MAX_DEPTH` nested arrays and objects; the key is the user id in the form of the setting `key`
(stream.core.keys); `value` lies within the rating scale; `time` is at most one hour after the append time and not
before the setting
`min_time`; the record lies on partition murmur2(key) mod n.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from stream.core.errors import REASONS

CLICK: Final = 0
RATING: Final = 1
COMMENT: Final = 2
BEHAVIOURS: Final = ("click", "rating", "comment")
"""Names of the behaviours; a behaviour's index is its source topic's index everywhere (fences, folded lists, inputs)."""

SOURCE_TOPICS: Final = ("clicks", "ratings", "comments")

MAX_ID: Final = 256
MAX_TEXT: Final = 16_384
MAX_TIME: Final = 253_402_300_799_999  # the year 9999
MAX_DEPTH: Final = 32
FUTURE_MS: Final = 3_600_000

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
User = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ID,
        pattern=r"^(\*[^\u0000]+|[^*\u0000][^\u0000]*)$",
        description="user id; `*` stands for anyone unknown, and U+0000 belongs to the store",
    ),
]
Time = Annotated[int, Meta(ge=0, le=MAX_TIME, description="epoch milliseconds, UTC")]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Value = Annotated[float, Meta(ge=-1e9, le=1e9, description="within the setting rating_scale")]
Label = Annotated[str, Meta(max_length=MAX_ID)]
Action = Annotated[
    str,
    Meta(
        max_length=MAX_ID,
        description="what the user did: view, click, cart, purchase, like, dislike, skip, or a name of your own",
    ),
]


UNUSED: Final = "checked and kept, not used yet"
SlateId = Annotated[str, Meta(max_length=MAX_ID, description=f"the recommendation that led here; {UNUSED}")]
Rank = Annotated[int, Meta(ge=0, le=10**12, description=f"the item's place in that slate, from 0; {UNUSED}")]
Dwell = Annotated[int, Meta(ge=0, le=10**12, description=f"how long the user stayed; {UNUSED}")]
Scenes = Annotated[tuple[Label, ...], Meta(max_length=64, description=f"where the item may be shown; {UNUSED}")]


class Click(Struct, frozen=True):
    """A user opened or chose an item, or did what `action` says with it. `scene` is where (home, search, a site); `slate`,
    `rank` and `dwell_ms` are checked and kept, not used yet."""

    user: User
    item: Id
    time: Time
    scene: Label | None = None
    slate: SlateId | None = None
    rank: Rank | None = None
    dwell_ms: Dwell | None = None
    id: Label | None = None
    action: Action | None = None


class Rating(Struct, frozen=True):
    """A user rated an item."""

    user: User
    item: Id
    time: Time
    value: Value
    scene: Label | None = None
    slate: SlateId | None = None
    id: Label | None = None


class Comment(Struct, frozen=True):
    """A user wrote a text about an item, perhaps with a rating. A bundle that reads comments makes up for a missing `value`."""

    user: User
    item: Id
    time: Time
    text: Text
    value: Value | None = None
    scene: Label | None = None
    slate: SlateId | None = None
    id: Label | None = None


class Item(Struct, frozen=True):
    """One item of the catalogue; the record's key is the item id, a null value (tombstone) removes the item."""

    item: Id
    title: Annotated[str, Meta(max_length=1024)]
    text: Text | None = None
    categories: Annotated[tuple[Label, ...], Meta(max_length=64)] | None = None
    scenes: Scenes | None = None
    available: bool = True


class Scored(Struct, frozen=True):
    """One place of a slate; higher scores are better, and comparable within one slate only."""

    item: str
    score: float


class Recommendation(Struct, frozen=True):
    """A slate: the state of `user` after `seq` events, scored. `user` `*` stands for anyone unknown."""

    user: str
    slate: str
    seq: int
    chain: Annotated[str, Meta(description="32 hex digits")]
    items: list[Scored]
    time: int
    latency_ms: Annotated[int, Meta(description="send time less append time of the newest event; -1: none")]
    events: Annotated[
        list[tuple[str, int, int]], Meta(description="(topic, partition, offset) of exactly the events newly taken in")
    ]
    applied: Annotated[dict[str, int], Meta(description='"topic/partition" -> offset last applied for this user')]
    catalogue: Annotated[int, Meta(description="offset in the items topic that the catalogue had reached; -1: empty")]
    bundle: str
    strategy: Annotated[str, Meta(description="interest | popularity")]
    replay: bool


def _one_of(words: Iterable[str]) -> str:
    return f"^({'|'.join(words)})$"


STAGES: Final = ("key", "partition", "decode", "validate", "encode", "inference", "catalogue")
"""Where a record may fail: the values of a dead letter's header `stage`."""

_NUMBER: Final = "^(0|[1-9][0-9]{0,18})$"
_TIME: Final = "^(0|[1-9][0-9]{0,15})$"


class DeadLetterHeaders(Struct, frozen=True, rename=lambda name: "__rec.errors." + name.replace("_", ".")):
    """Headers of a dead letter; all are UTF-8 text on the wire. Key, value and other headers are as received."""

    topic: str
    partition: Annotated[str, Meta(pattern=_NUMBER)]
    offset: Annotated[str, Meta(pattern=_NUMBER)]
    stage: Annotated[str, Meta(pattern=_one_of(STAGES), description=" | ".join(STAGES))]
    reason: Annotated[str, Meta(pattern=_one_of(REASONS), description="one of stream.core.errors.REASONS")]
    field: Annotated[str, Meta(description="the offending field, or empty")]
    exception: str
    message: Annotated[str, Meta(max_length=512)]
    attempt: Annotated[str, Meta(pattern="^[1-9][0-9]{0,8}$")]
    app_version: str
    model_sha256: str
    host: str
    failed_at: Annotated[str, Meta(pattern=_TIME, description="epoch milliseconds")]
    payload_sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    truncated: Annotated[str, Meta(pattern="^(true|false)$", description="true | false")]
    appended_at: Annotated[
        str,
        Meta(
            pattern="^(-?[0-9]{1,19})?$",
            description="append time of the record, epoch milliseconds; letters of older versions have it as timestamp",
        ),
    ] = ""


MESSAGES: Final[dict[str, type[Struct]]] = {
    "click": Click,
    "rating": Rating,
    "comment": Comment,
    "item": Item,
    "recommendation": Recommendation,
    "dead-letter-headers": DeadLetterHeaders,
}


class SourceEvent(Struct, gc=False):
    """One accepted event with its place in Kafka.

    `behaviour` indexes BEHAVIOURS and SOURCE_TOPICS; `value` is NaN where there is none; `payload` is the value as
    received (it enters the chain); `vector` is the text's, float32 [text width], once a comment has been encoded, and `read`
    the rating read out of it, where it came without `value` and the bundle reads (else NaN). `id` is the producer's, else
    the origin that a record sent back names (stream.core.origin), else ""; `mark` is what a state remembers in its place where
    the producer's has the form of an origin, else ""; `headers` are the record's, as received; `action` is the click's, else "".
    """

    behaviour: int
    partition: int
    offset: int
    append_ms: int
    user: bytes
    item: str
    time: int
    value: float
    scene: str
    text: str
    id: str
    payload: bytes
    vector: NDArray[np.float32] | None = None
    read: float = float("nan")
    headers: Sequence[tuple[str, bytes | None]] = ()
    mark: str = ""
    action: str = ""


NAN: Final = float("nan")
