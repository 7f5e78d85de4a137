"""The wire contract: every message that freshet reads or writes, as msgspec structs.

JSON Schemas are generated from these structs into docs/schemas (`python -m scripts.schemas`). Unknown fields are
ignored, so producers may add their own. All times are epoch milliseconds, UTC.

The schemas cannot express these rules. stream.core.decoder checks them, with stream.core.validation, as does everything
that accepts events:

- The value is UTF-8 JSON with at most `MAX_DEPTH` nested arrays and objects.
- The key is the user id in the form of the setting `key` (stream.core.keys).
- `value` is within the rating scale.
- `time` is at most one hour after the append time, and not before the setting `min_time`.
- The record is on partition murmur2(key) mod n.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from stream.core.errors import REASONS

CLICK: Final = 0
RATING: Final = 1
COMMENT: Final = 2
BEHAVIOURS: Final = ("click", "rating", "comment")
"""Names of the behaviours. A behaviour has the index of its source topic everywhere (fences, folded lists, inputs)."""

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
        description="user id; not `*`, which stands for any unknown user, and without U+0000, which the store reserves",
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


Percent = Annotated[int, Meta(ge=0, le=100)]

UNUSED: Final = "checked and kept, but not used yet"
SlateId = Annotated[str, Meta(max_length=MAX_ID, description=f"the recommendation that led here; {UNUSED}")]
Rank = Annotated[int, Meta(ge=0, le=10**12, description=f"the item's rank in that slate, from 0; {UNUSED}")]
Dwell = Annotated[int, Meta(ge=0, le=10**12, description=f"how long the user stayed; {UNUSED}")]
Scenes = Annotated[
    tuple[Label, ...],
    Meta(max_length=64, description="where the item may be shown, for filters, rules and requests; none: anywhere"),
]

MAX_ATTRIBUTES: Final = 64
MAX_NAME: Final = 64
MAX_VALUES: Final = 64
MAX_ATTRIBUTE: Final = 1e15
AttributeName = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
AttributeValue = (
    Annotated[float, Meta(ge=-MAX_ATTRIBUTE, le=MAX_ATTRIBUTE)]
    | Annotated[str, Meta(max_length=MAX_ID)]
    | Annotated[tuple[Label, ...], Meta(max_length=MAX_VALUES)]
)
Attributes = Annotated[
    dict[AttributeName, AttributeValue],
    Meta(
        max_length=MAX_ATTRIBUTES,
        description="what filters and rules can ask for: name -> a number, a text (a date in ISO 8601, too) or a list of texts",
    ),
]


class Click(Struct, frozen=True):
    """A user opened or chose an item, or did with it what `action` says. `scene` is where that was (home, search, a
    site). `slate`, `rank` and `dwell_ms` are checked and kept, but not used yet."""

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
    """A user wrote a text about an item, perhaps with a rating. If `value` is missing, a bundle that reads comments
    predicts it from the text."""

    user: User
    item: Id
    time: Time
    text: Text
    value: Value | None = None
    scene: Label | None = None
    slate: SlateId | None = None
    id: Label | None = None


class Item(Struct, frozen=True):
    """One item of the catalogue. The record's key is the item id. A null value (tombstone) removes the item."""

    item: Id
    title: Annotated[str, Meta(max_length=1024)]
    text: Text | None = None
    categories: Annotated[tuple[Label, ...], Meta(max_length=64)] | None = None
    scenes: Scenes | None = None
    available: bool = True
    attributes: Attributes | None = None


class Segment(Struct, frozen=True, forbid_unknown_fields=True):
    """The users to whom a rule applies. All conditions that it has must hold."""

    users: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=256, description="one of these users")] | None = None
    min_seq: Annotated[int, Meta(ge=0, le=10**12, description="at least so many events")] | None = None
    max_seq: Annotated[int, Meta(ge=0, le=10**12, description="at most so many events")] | None = None
    share: (
        Annotated[
            tuple[Percent, Percent],
            Meta(description="users whose hash with `salt`, modulo 100, is at least the first and below the second"),
        ]
        | None
    ) = None
    salt: Label = ""


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """A rule for slates. The record's key is the rule's id. A null value (tombstone) deletes it. Which fields each kind
    needs: rules.md."""

    rule: Id
    kind: Annotated[Literal["block", "only", "boost", "pin", "cap"], Meta(description="what it does")]
    filter: Annotated[dict[str, Any], Meta(description="block, only, boost: which items (rules.md)")] | None = None
    factor: (
        Annotated[float, Meta(ge=1e-6, le=1e6, description="boost: by which the odds of an item are multiplied")] | None
    ) = None
    item: Annotated[str, Meta(min_length=1, max_length=MAX_ID, description="pin: the item")] | None = None
    place: Annotated[int, Meta(ge=0, le=99, description="pin: its place in the slate, from 0")] | None = None
    category: (
        Annotated[str, Meta(min_length=1, max_length=MAX_ID, description="cap: the category; none: each one")] | None
    ) = None
    most: Annotated[int, Meta(ge=0, le=100, description="cap: items of a category in one slate, at most")] | None = None
    scene: (
        Annotated[str, Meta(min_length=1, max_length=MAX_ID, description="slates of this scene only; none: all slates")]
        | None
    ) = None
    segment: Segment | None = None
    since: Annotated[int, Meta(ge=0, le=MAX_TIME, description="in force from here on, epoch milliseconds")] | None = (
        None
    )
    until: Annotated[int, Meta(ge=0, le=MAX_TIME, description="no longer in force, epoch milliseconds")] | None = None
    note: Annotated[str, Meta(max_length=1024, description="for people")] | None = None


class Scored(Struct, frozen=True, gc=False):
    """One item of a slate. Higher scores are better. Scores are comparable within one slate only."""

    item: str
    score: float


class Recommendation(Struct, frozen=True, omit_defaults=True):
    """A slate: the best items for the state of `user` after `seq` events. `user` `*` stands for any unknown user. With
    `diversity`, its items are not in the order of their scores."""

    user: str
    slate: str
    seq: int
    chain: Annotated[str, Meta(description="32 hex digits")]
    items: list[Scored]
    time: int
    latency_ms: Annotated[int, Meta(description="send time minus append time of the newest event; -1: none")]
    events: Annotated[
        list[tuple[str, int, int]], Meta(description="(topic, partition, offset) of exactly the newly applied events")
    ]
    applied: Annotated[dict[str, int], Meta(description='"topic/partition" -> last applied offset of this user')]
    catalogue: Annotated[int, Meta(description="offset in the items topic that the catalogue had reached; -1: empty")]
    bundle: str
    strategy: Annotated[str, Meta(description="interest | popularity")]
    replay: bool
    rules: (
        Annotated[
            int,
            Meta(description="offset in the rules topic up to which rules were applied; absent if none are in force"),
        ]
        | UnsetType
    ) = UNSET
    diversity: (
        Annotated[
            float, Meta(ge=0, le=1, description="strength with which the items were re-ranked; absent if they were not")
        ]
        | UnsetType
    ) = UNSET
    placement: (
        Annotated[str, Meta(description="the placement's name; absent for the placement `default`")] | UnsetType
    ) = UNSET
    tables: (
        Annotated[int, Meta(ge=1, description="epoch of the tables that were scored with; absent for the bundle's own")]
        | UnsetType
    ) = UNSET
    withdrawn: Annotated[
        tuple[str, ...],
        Meta(
            description="only in a slate that was re-issued: the items of the user's slate before it that must no longer "
            "be shown (rules.md)"
        ),
    ] = ()


def _one_of(words: Iterable[str]) -> str:
    return f"^({'|'.join(words)})$"


STAGES: Final = ("key", "partition", "decode", "validate", "encode", "inference", "catalogue")
"""The stages at which a record may fail: the values of a dead letter's header `stage`."""

_NUMBER: Final = "^(0|[1-9][0-9]{0,18})$"
_TIME: Final = "^(0|[1-9][0-9]{0,15})$"


class DeadLetterHeaders(Struct, frozen=True, rename=lambda name: "__rec.errors." + name.replace("_", ".")):
    """Headers of a dead letter. All are UTF-8 text on the wire. The key, the value and all other headers are as
    received."""

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
            description="append time of the record, epoch milliseconds; in dead letters of older versions it is the timestamp",
        ),
    ] = ""


class Forgotten(Struct, frozen=True):
    """One record of the audit topic. Its key is the control record's topic/partition/offset."""

    user_hash: Annotated[str, Meta(description="blake2b-128 of the user's key, with the setting `app_id` as key; hex")]
    by: Annotated[str, Meta(description="who asked, as the control record's header `freshet-by` says; may be empty")]
    requested: Annotated[int, Meta(description="append time of the control record, epoch milliseconds")]
    erased: Annotated[int, Meta(description="when the user's empty state was durable, epoch milliseconds")]
    record: Annotated[str, Meta(description="topic/partition/offset of the control record")]
    applied: Annotated[
        dict[str, int], Meta(description='"topic/partition" -> offset up to which the user\'s events are forgotten')
    ]


MESSAGES: Final[dict[str, type[Struct]]] = {
    "click": Click,
    "rating": Rating,
    "comment": Comment,
    "item": Item,
    "rule": Rule,
    "recommendation": Recommendation,
    "dead-letter-headers": DeadLetterHeaders,
    "forgotten": Forgotten,
}


class SourceEvent(Struct, gc=False):
    """One accepted event with its place in Kafka.

    Attributes:
        behaviour: Index into BEHAVIOURS and SOURCE_TOPICS.
        value: The rating; NaN if there is none.
        payload: The record's value as received. It enters the chain.
        vector: The text's vector, float32 [text width], once a comment has been encoded.
        read: The rating read out of a comment's text, if it came without `value` and the bundle reads ratings; else
            NaN.
        id: The producer's id, else the origin that a redriven record names (stream.core.origin), else "".
        mark: What a state remembers instead of the producer's id if that has the form of an origin; else "".
        headers: The record's headers, as received.
        action: The click's action, else "".
        forget: Whether it is a control record (stream.core.forgetting), which has only a user and a time.
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
    forget: bool = False


NAN: Final = float("nan")
