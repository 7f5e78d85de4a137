"""What the API reads and answers, as msgspec structs. The OpenAPI document is written from them.

A request's unknown fields are refused: a misspelt `exclude` must not be ignored in silence.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from stream.core.explanations import MOST_EXPLAINED
from stream.core.messages import (
    BEHAVIOURS,
    Action,
    Click,
    Comment,
    Id,
    Item,
    Label,
    Rating,
    Rule,
    Scored,
    Text,
    Time,
    Value,
)
from stream.core.state import MAX_RECENT
from stream.gateway.problems import Problem

MOST_EVENTS: Final = 1000
"""Events in one request."""
MOST_EXCLUDED: Final = 100
MOST_CANDIDATES: Final = 1000
MOST_NAMED: Final = 100
MOST_LABELS: Final = 200
"""Categories or scenes in one answer."""
MOST_COMMENTS: Final = 8
"""Comments in one request about a session: each costs a run of the text model."""

N = Annotated[
    int,
    Meta(ge=1, le=100, description="maximum number of items; by default the placement's, or the setting slate_size"),
]
Scene = Annotated[
    str, Meta(min_length=1, max_length=256, description="only items that name this scene, or no scene at all")
]
FilterJson = Annotated[
    dict[str, Any],
    Meta(
        description="only items for which this filter holds (docs/rules.md); in an address, as JSON",
        extra_json_schema={"$ref": "#/components/schemas/Filter"},
    ),
]
Strength = Annotated[
    float,
    Meta(
        ge=0,
        le=1,
        description="strength with which the best items are re-ranked: 0, by score alone, to 1, as diverse as possible; by "
        "default the workers' (docs/diversity.md)",
    ),
]
PlacementName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="the placement whose slate is asked for; by default the one called default (docs/placements.md)",
    ),
]
Exclude = Annotated[tuple[Id, ...], Meta(max_length=MOST_EXCLUDED, description="items that must not be in the answer")]
Explain = Annotated[
    bool,
    Meta(
        description="give each item an explanation: the parts of its score, the events that moved it, rules and re-ranking, and "
        f"the same in words (docs/explain.md); of at most {MOST_EXPLAINED} items"
    ),
]
MinOffset = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1024,
        description="what the answer must contain, as POST events answers it: topic/partition:offset, or several with commas "
        "(topic/partition/offset, too); "
        "topics are the three sources, items and rules",
    ),
]


class SlateQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of a slate."""

    n: N | None = None
    scene: Scene | None = None
    exclude: Exclude = ()
    min_offset: MinOffset | None = None
    filter: FilterJson | None = None
    diversity: Strength | None = None
    explain: Explain = False
    placement: PlacementName | None = None


class PopularQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of the popular items."""

    n: N | None = None
    scene: Scene | None = None
    exclude: Exclude = ()
    min_offset: MinOffset | None = None
    filter: FilterJson | None = None


class TrendingQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of trending items."""

    n: N | None = None
    scene: Scene | None = None
    exclude: Exclude = ()
    filter: FilterJson | None = None


class SimilarQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of the items like another one."""

    n: N | None = None
    scene: Scene | None = None
    min_offset: MinOffset | None = None
    filter: FilterJson | None = None


class ItemsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which items of the catalogue: those whose titles have all words of `query`, or those that `item` names."""

    query: (
        Annotated[
            str,
            Meta(min_length=1, max_length=256, description="words of the title, or parts of them; no case, no accents"),
        ]
        | None
    ) = None
    item: Annotated[
        tuple[Id, ...], Meta(max_length=MOST_NAMED, description="these items, live or not; not together with query")
    ] = ()
    n: N | None = None
    scene: Scene | None = None
    min_offset: MinOffset | None = None
    filter: FilterJson | None = None


class OffsetQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What the answer must contain."""

    min_offset: MinOffset | None = None


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class SessionEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """One event of a visitor who is nobody's user. Fields are those of click, rating and comment."""

    type: Literal["click", "rating", "comment"]
    item: Id
    time: Time
    value: Value | None = None
    text: Text | None = None
    scene: Label | None = None
    action: Action | None = None


_FIELDS: Final = {
    name: frozenset(kind.__struct_fields__) for name, kind in zip(BEHAVIOURS, (Click, Rating, Comment), strict=True)
}


def surplus(event: SessionEvent) -> str:
    """Return a field that is given and that events of this type do not have; "" if there is none."""
    optional = ("value", "text", "scene", "action")
    given = (name for name in optional if getattr(event, name) is not None)
    return next((name for name in given if name not in _FIELDS[event.type]), "")


class SessionQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The events of a visitor, oldest first. They are folded from zero, and nothing is kept."""

    events: Annotated[tuple[SessionEvent, ...], Meta(max_length=MAX_RECENT)]
    n: N | None = None
    scene: Scene | None = None
    exclude: Exclude = ()
    filter: FilterJson | None = None
    diversity: Strength | None = None
    explain: Explain = False
    placement: PlacementName | None = None


class RerankQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Candidates, such as the hits of a search engine, to be put in the order of a user's interest."""

    user: Annotated[str, Meta(min_length=1, max_length=256)]
    candidates: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=MOST_CANDIDATES)]
    min_offset: MinOffset | None = None
    filter: FilterJson | None = None
    explain: Explain = False


class Replica(Struct, frozen=True):
    """How fresh the answer is."""

    partition: Annotated[int, Meta(description="the user's partition; -1: the answer is about no user")]
    offset: Annotated[int, Meta(description="last offset of the changelog's partition that was read; -1: none")]
    age_ms: Annotated[
        float,
        Meta(ge=0, description="milliseconds since this server last knew that it had read the partition to its end"),
    ]


RulesOffset = Annotated[
    int, Meta(description="offset in the rules topic up to which rules were applied; absent if none are in force")
]


class Fresh(Struct, frozen=True, kw_only=True):
    """What every answer says about its freshness."""

    seq: Annotated[int, Meta(description="number of events in the user's state; 0: none")]
    chain: Annotated[str, Meta(description="32 hex digits over these events")]
    applied: Annotated[dict[str, int], Meta(description='"topic/partition" -> last applied offset of this user')]
    bundle: Annotated[str, Meta(description="id of the bundle that has scored")]
    catalogue: Annotated[int, Meta(description="offset in the items topic that the catalogue had reached; -1: empty")]
    replica: Replica
    rules: RulesOffset | UnsetType = UNSET
    tables: (
        Annotated[int, Meta(ge=1, description="epoch of the tables that were scored with; absent for the bundle's own")]
        | UnsetType
    ) = UNSET


class Slate(Fresh, frozen=True, kw_only=True):
    """The best items for the user, best first."""

    user: str
    items: list[Scored]
    strategy: Annotated[str, Meta(description="interest | popularity")]
    min_offset: Annotated[
        str,
        Meta(
            description="how `min_offset` was met: applied, the state contains the events; finished, the workers have finished "
            "them without applying them to this user (dead letters, other users' events); empty, it was not asked for"
        ),
    ] = ""
    refolded: Annotated[
        bool,
        Meta(
            description="the state belonged to another step model, and its last 64 events were folded again, as a worker does "
            "at the user's next event"
        ),
    ] = False
    diversity: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="strength with which the items were re-ranked; above 0 they are not in the order of their scores",
        ),
    ] = 0.0
    placement: (
        Annotated[str, Meta(description="the placement's name; absent for the placement `default`")] | UnsetType
    ) = UNSET


class Ranked(Fresh, frozen=True, kw_only=True):
    """The candidates that can be scored, best first, and the others."""

    user: str
    items: list[Scored]
    left_out: Annotated[
        list[str],
        Meta(
            description="candidates that are not live, or that the filter or rules leave out, in the order of the request"
        ),
    ]
    strategy: Annotated[str, Meta(description="interest | popularity")]
    min_offset: str = ""
    refolded: bool = False


class Items(Struct, frozen=True, kw_only=True):
    """Items, best first."""

    items: list[Scored]
    strategy: Annotated[str, Meta(description="popularity | similar")]
    bundle: str
    catalogue: Annotated[int, Meta(description="offset in the items topic that the catalogue had reached; -1: empty")]
    rules: RulesOffset | UnsetType = UNSET


class CatalogueItem(Struct, frozen=True):
    """An item in short."""

    item: str
    title: str
    categories: list[str]
    live: Annotated[
        bool,
        Meta(description="whether it can be recommended: it is available, and no scene, filter or rule leaves it out"),
    ]


class CatalogueItems(Struct, frozen=True, kw_only=True):
    """Items of the catalogue: best first, or in the order in which the request names them."""

    items: list[CatalogueItem]
    catalogue: Annotated[int, Meta(description="offset in the items topic that the catalogue had reached; -1: empty")]
    rules: RulesOffset | UnsetType = UNSET


class CatalogueAnswer(Struct, frozen=True, kw_only=True):
    """The catalogue, and the settings that a client needs to make events and to ask for slates."""

    live: Annotated[int, Meta(description="number of items that can be recommended")]
    known: Annotated[int, Meta(description="number of items that can be in events")]
    categories: Annotated[
        list[str], Meta(description=f"those that most items name, at most {MOST_LABELS}, the most frequent first")
    ]
    scenes: Annotated[list[str], Meta(description=f"the same of scenes, at most {MOST_LABELS}")]
    rating_scale: Annotated[tuple[float, float], Meta(description="the lowest and the highest rating")]
    key: Annotated[str, Meta(description="the form of a user's id in Kafka: utf8, json, long")]
    slate_size: int
    diversity: Annotated[float, Meta(ge=0, le=1, description="strength with which slates are re-ranked by default")]
    bundle: str
    catalogue: Annotated[int, Meta(description="offset in the items topic that the catalogue had reached; -1: empty")]


class HitRates(Struct, frozen=True):
    """A hit rate, as the program measured it that keeps the file `serve_figures`. The demo is such a program."""

    counted: Annotated[
        int, Meta(ge=0, description="number of events whose item could have been in the slate before it")
    ]
    freshet: Annotated[float, Meta(ge=0, le=1, description="share of them whose item was in the user's slate")]
    popularity: Annotated[float, Meta(ge=0, le=1, description="share of them whose item was among the most popular")]
    low: Annotated[float, Meta(description="lower end of the 95 % interval of the difference")]
    high: Annotated[float, Meta(description="upper end of that interval")]
    final: Annotated[bool, Meta(description="whether the measurement has ended")] = False


class Figures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Figures of the last seconds, over the users that this server has."""

    window_seconds: Annotated[float, Meta(description="the seconds that the figures are about")]
    counted_seconds: Annotated[
        float,
        Meta(description="how many of them were counted; 0: no client follows slates, and so nothing is counted"),
    ]
    events_per_second: Annotated[float, Meta(description="events that new slates contain")] | UnsetType = UNSET
    p50_ms: Annotated[int, Meta(description="median of the time from an event to its slate")] | UnsetType = UNSET
    p99_ms: Annotated[int, Meta(description="99 % quantile of that time")] | UnsetType = UNSET
    hit_rate: HitRates | UnsetType = UNSET
    hit_rate_error: (
        Annotated[str, Meta(description="why the file of the setting `serve_figures` cannot be read")] | UnsetType
    ) = UNSET


class Trending(Items, frozen=True, kw_only=True):
    """The live items whose interactions have grown most, the most first; `score` is by how many they grew."""

    window_seconds: Annotated[
        float, Meta(description="interactions of the last window are compared with those of the window before it")
    ]
    counted_seconds: Annotated[float, Meta(description="how long this server has counted; a restart begins at 0 again")]
    complete: Annotated[bool, Meta(description="whether it has counted for both windows")]


class PastEvent(Struct, frozen=True):
    """One of the last 64 events of a user."""

    type: str
    item: str
    time: int
    value: float | None = None
    scene: str = ""
    id: str = ""
    action: str = ""


class User(Fresh, frozen=True, kw_only=True):
    """A user's state."""

    user: str
    last_time: Annotated[int, Meta(description="the latest time of an event, epoch milliseconds")]
    seen: Annotated[int, Meta(description="number of items that the user has interacted with, at most 4,096")]
    state_model: Annotated[str, Meta(description="stamp of the step model that the state belongs to, 32 hex digits")]
    current: Annotated[bool, Meta(description="whether that is the step model of this server's bundle")]
    recent: Annotated[list[PastEvent], Meta(description="the last 64 events, oldest first")]
    min_offset: str = ""


class Written(Struct, frozen=True, tag_field="result", tag="written"):
    """Where an event was written. `min_offset` waits for it."""

    topic: str
    partition: int
    offset: int
    min_offset: Annotated[str, Meta(description="the value to ask with: topic/partition:offset")]
    warning: Annotated[str, Meta(description="what is probably wrong with the event")] | UnsetType = UNSET


class Refused(Struct, frozen=True, tag_field="result", tag="refused"):
    """An event that was not written, and why."""

    problem: Problem


class EventResults(Struct, frozen=True):
    """What became of the events, in their order."""

    written: Annotated[int, Meta(description="number of events that were written")]
    refused: Annotated[int, Meta(description="number of events that were not")]
    events: list[Written | Refused]


class ForgetAccepted(Struct, frozen=True, kw_only=True):
    """That a user is to be forgotten. The records are written; `min_offset` waits until the workers have done it."""

    user: str
    records: Annotated[list[str], Meta(description="topic/partition/offset of the control records")]
    min_offset: Annotated[str, Meta(description="the value to ask with: topic/partition:offset, for each topic")]


class ItemAnswer(Struct, frozen=True, kw_only=True):
    """An item as the catalogue has it."""

    item: Item
    live: Annotated[bool, Meta(description="whether it can be recommended")]
    trained: Annotated[bool, Meta(description="whether the bundle was trained with it")]
    catalogue: Annotated[int, Meta(description="offset in the items topic that the catalogue had reached")]


Existed = Annotated[
    bool,
    Meta(
        description="whether it was there, as far as this server has read the topic; absent if it has not read it to the end yet"
    ),
]


class ItemWritten(Struct, frozen=True):
    """Where an item's record was written. `min_offset` waits for it."""

    item: str
    topic: str
    partition: int
    offset: int
    min_offset: str


class ItemRemoved(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the tombstone of an item was written. `min_offset` waits for it."""

    item: str
    topic: str
    partition: int
    offset: int
    min_offset: str
    existed: Existed | UnsetType = UNSET


class RuleAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule as the rules topic has it."""

    rule: str
    offset: Annotated[int, Meta(description="offset of its record in the rules topic")]
    in_force: Annotated[bool, Meta(description="whether it is in force at its times; else `refused` says why not")]
    state: Annotated[
        Literal["active", "scheduled", "expired", "refused"],
        Meta(
            description="now: active, it applies; scheduled, `since` is to come; expired, `until` is past; refused, it is not in "
            "force"
        ),
    ]
    message: Rule | UnsetType = UNSET
    refused: Annotated[str, Meta(description="why it is not in force")] | UnsetType = UNSET
    field: Annotated[str, Meta(description="the field that is not acceptable")] | UnsetType = UNSET


class RuleAnswers(Struct, frozen=True):
    """All rules, in the order of their offsets."""

    rules: list[RuleAnswer]
    offset: Annotated[int, Meta(description="offset up to which the rules topic is read; -1: it is empty")]


class RuleWritten(Struct, frozen=True):
    """Where a rule's record was written. `min_offset` waits for it."""

    rule: str
    topic: str
    partition: int
    offset: int
    min_offset: str
    warnings: Annotated[list[str], Meta(description="what is probably wrong with it; it is written all the same")]


class RuleDeleted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the tombstone of a rule was written. `min_offset` waits for it."""

    rule: str
    topic: str
    partition: int
    offset: int
    min_offset: str
    existed: Existed | UnsetType = UNSET


class Alive(Struct, frozen=True):
    """Whether the process works."""

    alive: bool
    heartbeat_age_seconds: float


class Ready(Struct, frozen=True):
    """Whether requests can be answered, and what is missing."""

    ready: bool
    missing: list[str]
