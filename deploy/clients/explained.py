"""Explains an item for a user: state, items and rules as Kafka has them now, scored with the bundle as a worker does.

It reads the user's partition of the changelog from its beginning, and the topics `items` and `rules`. It writes nothing, and
needs neither a worker nor a gateway.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import numpy as np

from deploy.clients.log_reader import Log, Record
from deploy.clients.murmur2 import murmur2
from deploy.clients.rule_book import read as read_rules
from stream.catalogue.catalogue import DEAD, Snapshot
from stream.catalogue.tables import EpochRows
from stream.core.errors import DataError, StateError, TopologyError
from stream.core.explanations import Explanation
from stream.core.features import UNKNOWN
from stream.core.fencing_log import NO_CLAIM, sift
from stream.core.fold import PLAIN, UserBatch, advance, apply_events, rank
from stream.core.keys import key_of_somebody
from stream.core.messages import Scored
from stream.core.placements import Placement
from stream.core.rules import BLOCK, BOOST, CAP, OF_ITEMS, ONLY, PIN, RuleSet
from stream.core.ruling import Ruling, Selections
from stream.core.state import is_empty, item_hash
from stream.gateway.items import ItemCatalogue
from stream.inference.bundle import Bundle, current, load
from stream.inference.explainer import Answered, Explainer
from stream.inference.models import Models, open_models
from stream.inference.serving import placements_of
from stream.inference.text_encoder import Encoder, open_encoder
from stream.settings import DEFAULT_PLACEMENT, Settings

CHUNK: Final = 10_000
"""Records of the changelog that are in memory at once."""


@dataclass(frozen=True)
class Found:
    """An item explained for a user.

    Attributes:
        score: Its score.
        place: Its place in the slate, from 0; None if it is not in it.
        rank: Its place by score among all items that may be shown, from 0; None if it may not be shown.
        why_not: Why it is not in the slate; "" if it is.
        title: The item's title; "" for none.
        seq: Number of events in the user's state.
        chain: The hash over them.
        refolded: Whether the state belonged to another step model, and its last events were folded again.
        bundle: Id of the bundle.
        catalogue: Offset of the last item record.
        rules: Offset of the last rule record; None if no rule is in force.
        tables: Epoch of the tables; None for the bundle's own.
        explanation: The explanation.
    """

    score: float
    place: int | None
    rank: int | None
    why_not: str
    title: str
    seq: int
    chain: str
    refolded: bool
    bundle: str
    catalogue: int
    rules: int | None
    tables: int | None
    explanation: Explanation


def explain(log: Log, settings: Settings, user: str, item: str, placement: str = DEFAULT_PLACEMENT) -> Found:
    """Explain why a user is recommended an item, or why not.

    Args:
        log: The topics.
        settings: The workers' settings.
        user: The user's id.
        item: The item's id.
        placement: The placement of the slate.

    Raises:
        RecordError: The user has no key in the form of the setting `key`.
        DataError: There is no such user, item or placement.
        BundleError: The bundle cannot be used.
        BrokerError, TopologyError: Kafka cannot be read.
    """
    key = key_of_somebody(user, settings.key)
    bundle = load(current(settings.bundles))
    placements = placements_of(settings, bundle)
    if placement not in placements:
        raise DataError(f"placement {placement!r}: expected one of the setting placements: {', '.join(placements)}")
    record = _state(log, settings, user, key)
    catalogue = _catalogue(log, settings, bundle)
    snapshot = catalogue.snapshot
    if snapshot.row(item) == UNKNOWN:
        raise DataError(
            f"item {item!r}: found neither in the bundle {bundle.id[:12]}... nor in the topic {settings.items_topic} (offset "
            f"{snapshot.offset}, {snapshot.live:,} live items); expected the id of an item: `freshet recommendations --user "
            f"{user}` shows some"
        )
    rules = read_rules(log, settings).current
    models = open_models(bundle, "cpu")
    try:
        batch = apply_events(
            key, 0, record, (), tuple(settings.sources), bundle.state_model, bundle.hidden
        )  # fmt: skip
        advance([batch], models, snapshot, bundle.spec)
    except StateError as error:
        raise DataError(f"the state of user {user!r} cannot be read: {error}") from None
    return _Slate(placements[placement], bundle, models, catalogue, rules, batch).explain(item)


def _state(log: Log, settings: Settings, user: str, key: bytes) -> bytes:
    """Return a user's state record. Raises DataError if there is none."""
    topic = settings.changelog_topic
    try:
        spans = log.spans([topic])
    except TopologyError as error:
        raise TopologyError(
            f"{error}; it belongs to app_id {settings.app_id}: if the workers have another, give it with --set app_id=..."
        ) from None
    place = topic, murmur2(key) % len(spans)
    records = iter(log.records(topic, {place: spans[place]}))
    claim, state, count = NO_CLAIM, None, 0
    while chunk := _chunk(records):
        sifted = sift(chunk, claim)
        claim = sifted.claim
        count += len(chunk)
        for name, value in sifted.states:
            if name == key:
                state = value
    if state is None or is_empty(state):
        raise DataError(
            f"user {user!r}: found no state in partition {place[1]} of {topic} ({count:,} records), expected the id of a user "
            f"with at least one event; send one with `freshet send click --user {user} --item ...` while a worker runs"
        )
    return state


def _chunk(records: Iterable[Record]) -> list[Record]:
    return list(islice(records, CHUNK))


def _catalogue(log: Log, settings: Settings, bundle: Bundle) -> ItemCatalogue:
    """Return the items with the newest tables. The text network is loaded only if an item came after training."""
    encoders: list[Encoder] = []

    def vectors(texts: list[str]) -> np.ndarray:
        if not encoders:
            encoders.append(open_encoder(bundle, "cpu"))
        return encoders[0].item_vectors(texts)

    catalogue = ItemCatalogue(bundle, vectors)
    topic = settings.items_topic
    records = iter(log.records(topic, log.spans([topic])))
    while chunk := _chunk(records):
        catalogue.apply([(one.offset, one.key, one.value) for one in chunk])
    if settings.tables == "stream" and bundle.tables is not None:
        topic, rows = settings.tables_topic, EpochRows()
        records = iter(log.records(topic, log.spans([topic])))
        while chunk := _chunk(records):
            rows.apply([(one.offset, one.key, one.value) for one in chunk], close=False)
        rows.end()
        if rows.current is not None:
            catalogue.use(rows.current)
    return catalogue


class _Slate:
    """A user's slate as a worker would make it now, and the scores of other items."""

    def __init__(
        self,
        placement: Placement,
        bundle: Bundle,
        models: Models,
        catalogue: ItemCatalogue,
        rules: RuleSet,
        user: UserBatch,
    ) -> None:
        self._placement = placement
        self._bundle = bundle
        self._models = models
        self._catalogue = catalogue
        self._snapshot = catalogue.snapshot
        self._shown = self._snapshot if placement.filtered is None else self._snapshot.where(placement.filtered)
        self._rules = rules
        self._user = user
        self._now_ms = int(time.time() * 1000)
        self._selections = Selections()
        self._diversity = placement.diversity

    def explain(self, item: str) -> Found:
        answered = self._answered()
        names = [one.item for one in answered.items]
        place = names.index(item) if item in names else None
        why_not, by_score = "", self._rank(item)
        if place is None:
            why_not = self._why_not(item, by_score)
            answered = self._alone(item)
        if not answered.items:
            raise DataError(
                f"item {item!r}: its score is not a number: the item's vector or the user's state is broken"
            )
        job = Explainer(self._bundle, self._models).begin(answered)
        while job.step():
            pass
        at = place or 0
        state = self._user.state
        return Found(
            score=answered.items[at].score,
            place=place,
            rank=by_score,
            why_not=why_not,
            title=self._title(item),
            seq=state.seq,
            chain=state.chain.hex(),
            refolded=self._user.refolded,
            bundle=self._bundle.id,
            catalogue=self._snapshot.offset,
            rules=self._rules.offset if self._rules.rules else None,
            tables=tables.epoch or None if (tables := self._snapshot.tables) is not None else None,
            explanation=job.explanations[at],
        )

    def _answered(self) -> Answered:
        """Return the slate."""
        k, seen, ruling = self._placement.size, self._placement.filter_seen, self._ruling()
        items = rank(
            [self._user], self._models, self._shown, k, filter_seen=seen, ruling=ruling, diversity=self._diversity
        )[0]
        return Answered(self._user, items, self._shown, k, seen, ruling, self._diversity, self._title)

    def _rank(self, item: str) -> int | None:
        """Return an item's place by score among all that may be shown; None if it may not be shown."""
        ruling = self._ruling(OF_ITEMS)
        size = max(1, self._snapshot.live)
        found: list[Scored] = rank(
            [self._user], self._models, self._shown, size, filter_seen=self._placement.filter_seen, ruling=ruling
        )[0]
        return next((place for place, one in enumerate(found) if one.item == item), None)

    def _alone(self, item: str) -> Answered:
        """Return an item as if it were the only one, and could be shown."""
        snapshot = self._snapshot
        bias = np.full(len(snapshot.bias), DEAD)
        bias[snapshot.row(item)] = 0
        only: Snapshot = replace(snapshot, bias=bias)
        ruling = self._ruling((BOOST,))
        items = rank([self._user], self._models, only, 1, filter_seen=False, ruling=ruling)[0]
        return Answered(self._user, items, only, 1, False, ruling, PLAIN, self._title)

    def _why_not(self, item: str, by_score: int | None) -> str:
        snapshot, state = self._snapshot, self._user.state
        row = snapshot.row(item)
        if snapshot.bias[row] == DEAD:
            return "it is not live: it was removed, is unavailable, or was never sent to the topic items"
        if self._shown.bias[row] == DEAD:
            return "the placement's filter leaves it out"
        if self._placement.filter_seen and item_hash(item) in set(state.seen_hashes().tolist()):
            return "the user has interacted with it (setting filter_seen)"
        indices = self._rules.applying(self._user.user, state.seq, None, self._now_ms, (BLOCK, ONLY))
        for one in (self._rules.rules[index] for index in indices):
            if one.filtered is not None and bool(snapshot.columns.mask(one.filtered)[row]) == (one.kind == BLOCK):
                return f"rule {one.rule} ({one.kind}) leaves it out"
        at = "last" if by_score is None else f"at place {by_score + 1}"
        after = ", re-ranked for diversity" if self._diversity.strength else ""
        placing = self._rules.applying(self._user.user, state.seq, None, self._now_ms, (PIN, CAP))
        if named := [f"{self._rules.rules[index].rule} ({self._rules.rules[index].kind})" for index in placing]:
            after += f", and under the rule{'' if len(named) == 1 else 's'} {', '.join(named)}"
        return f"by score it is {at}, and the slate has {self._placement.size}{after}"

    def _ruling(self, kinds: tuple[str, ...] | None = None) -> Ruling | None:
        if not self._rules.rules:
            return None
        ruling = Ruling(self._rules, None, self._now_ms, self._selections)
        return ruling if kinds is None else replace(ruling, kinds=kinds)

    def _title(self, item: str) -> str:
        message = self._catalogue.message(item)
        return "" if message is None else message.title
