"""Computes states and slates again: a user's events go through the bundle's ONNX graphs in the recorded order, one at a time.

On a processor like the worker's, h and c must have the same bits as in the record. A slate's items must be the best ones, except
among scores closer than NEAR. From the hot path it uses only the sessions (stream.inference.models,
stream.inference.text_encoder) and the definition of the step's input (stream.core.features). Which items were live, and what a
user had seen, is determined here.

This is expensive, so only a sample of users is checked: those whose keys have the lowest hashes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import jsonschema_rs
import numpy as np
from numpy.typing import NDArray

from deploy.clients.envelopes import event_at, find
from deploy.clients.log_reader import Log, Place, Record, Span
from deploy.clients.schema import parse, schema
from deploy.verify.accepted_settings import Setting
from deploy.verify.changelog import recents
from deploy.verify.fencing import CLAIM, FENCED, FORGED, NOBODYS, Fencing
from deploy.verify.keys import Keys
from deploy.verify.report import Report, Violation
from deploy.verify.slates import ANYONE
from deploy.verify.source_index import APPLIED, NONE, SourceIndex
from stream.core.errors import StateError
from stream.core.features import NUMBERS, UNKNOWN, InputRows, item_text
from stream.core.state import MAX_SEEN, Interest, decode
from stream.inference.bundle import CURRENT, Bundle, current, load
from stream.inference.models import Models, open_models
from stream.inference.text_encoder import Encoder, open_encoder
from stream.settings import Settings

NEAR = 1e-3
ENOUGH = 20  # times the slate's size: more items are scored only if one of the slate is not found
COMMENT = 2
Vector = NDArray[np.float32]


class Event(NamedTuple):
    """What a step reads of one event.

    Attributes:
        behaviour: Index of the behaviour.
        item: The item's id.
        scene: The scene; "" for none.
        value: The rating; NaN for none.
        time: Epoch ms.
        text: A comment's text; "" for none.
        action: A click's action; "" for none.
    """

    behaviour: int
    item: str
    scene: str
    value: float
    time: int
    text: str
    action: str = ""


class Written(NamedTuple):
    """One record of the changelog, or one slate."""

    offset: int
    value: bytes


@dataclass
class Life:
    """One sampled user.

    Attributes:
        events: (topic index, offset) -> the applied event.
        states: Records of the changelog that count.
        slates: Records of the recommendations topic.
        holes: Whether states of the partition are gone from the changelog.
    """

    key: bytes
    partition: int
    events: dict[tuple[int, int], Event] = field(default_factory=dict)
    states: list[Written] = field(default_factory=list)
    slates: list[Written] = field(default_factory=list)
    holes: bool = False


@dataclass(frozen=True, eq=False)
class Live:
    """The items as they were at one offset of the items topic. The bundle's rows come first, then later ones.

    Attributes:
        matrix: The items' vectors, one per row.
        bias: float32 [rows], 0 for a live item, -inf for any other.
        later: Item that the bundle lacks -> its row.
        whole: Whether nothing before was compacted away, so that this is what a worker saw.
    """

    matrix: Vector
    bias: Vector
    later: dict[str, int]
    whole: bool


class Items:
    """Follows the items topic, without code of the worker."""

    def __init__(self, bundle: Bundle, encoder: Encoder) -> None:
        self.trained = {item: row for row, item in enumerate(bundle.item_ids, start=1)}
        self.names = ["", *bundle.item_ids]
        self._encoder = encoder
        self._rows = [bundle.items]
        self._bias = np.full(len(bundle.items), -np.inf, np.float32).tolist()
        self._later: dict[str, tuple[int, str]] = {}
        self._crcs = array("I")
        self._validator = jsonschema_rs.validator_for(schema("item"))

    def take(self, record: Record) -> None:
        """Apply one record of the topic. A record that is not acceptable changes nothing."""
        try:
            item = (record.key or b"").decode()
            body = parse(record.value) if record.value is not None else None
        except ValueError:
            return
        if not item:
            return
        if body is None:
            self._bias[self._row(item)] = -math.inf
            self._later.pop(item, None)
        elif self._validator.is_valid(body) and body["item"] == item:
            if item not in self.trained and not self._make(item, body):
                return
            self._bias[self._row(item)] = 0.0 if body.get("available", True) else -math.inf

    def freeze(self, whole: bool) -> Live:
        if len(self._rows) > 1:
            self._rows = [np.concatenate(self._rows)]
        later = {item: row for item, (row, _) in self._later.items()}
        return Live(self._rows[0], np.array(self._bias, np.float32), later, whole)

    def row(self, live: Live, item: str) -> int:
        return self.trained.get(item) or live.later.get(item, UNKNOWN)

    def named(self, hashes: NDArray[np.uint32], rows: int) -> list[int]:
        """Return those of the first `rows` rows whose item's crc32 is among `hashes`."""
        for name in self.names[len(self._crcs) :]:
            self._crcs.append(crc32(name.encode()))
        found: list[int] = np.flatnonzero(np.isin(np.array(self._crcs[:rows], np.uint32), hashes)).tolist()
        return found

    def _row(self, item: str) -> int:
        return self.trained.get(item) or self._later.get(item, (UNKNOWN, ""))[0]

    def _make(self, item: str, body: dict[str, Any]) -> bool:
        """Make a row for an item that the bundle lacks; a new text gets a new row. False: its vector is not finite."""
        text = item_text(body["title"], body.get("text"), body.get("categories"))
        if self._later.get(item, (UNKNOWN, None))[1] == text:
            return True
        vector = self._encoder.item_vectors([text])
        if not np.isfinite(vector).all():
            return False
        self._bias[self._row(item)] = -math.inf
        self._later[item] = len(self._bias), text
        self._rows.append(vector)
        self._bias.append(-math.inf)
        self.names.append(item)
        return True


class Recomputation:
    """Collects the sampled users' records, partition by partition, then computes all of them again.

    Args:
        bundle: A bundle's folder, or a folder of bundles with CURRENT.
        users: Number of users in the sample; 0: all users.
        log: Where the records come from.
        settings: Settings of the deployment.
        report: Where to add what was found.

    Attributes:
        envelope: The envelope that events were taken out of, which may have changed along the log.
    """

    def __init__(self, bundle: Path, users: int, log: Log, settings: Settings, report: Report) -> None:
        self._bundle = load(current(bundle) if (bundle / CURRENT).exists() else bundle)
        self._models: Models = open_models(self._bundle, "cpu")
        self._encoder = open_encoder(self._bundle, "cpu")
        self._users = users
        self._log = log
        self._settings = settings
        self._keys = Keys(settings.key)
        self.envelope = Setting[str](settings.envelope)
        self._report = report
        self._lives: list[Life] = []
        self._texts: dict[tuple[str, bool], tuple[Vector, float]] = {}
        self._items = Items(self._bundle, self._encoder)
        self._others = [0, 0]  # number of states of another step model, and of slates of another bundle
        self._anyone: list[tuple[int, Written]] = []  # (partition, slate for anyone unknown)

    @property
    def rating_scale(self) -> tuple[float, float]:
        """The rating scale on which the bundle was trained."""
        return self._bundle.spec.rating_scale

    def _event(self, behaviour: int, record: Record) -> Event:
        """Return the event of a record. The record was applied, so it has one."""
        body = parse(record.value or b"")
        found = find(body, self.envelope.at(behaviour, record.partition, record.offset, record.timestamp))
        return _event(behaviour, body if isinstance(found, str) else event_at(body, found.path))

    # collecting

    def collect(
        self, source_index: SourceIndex, partitions: int, changelog: dict[Place, Span], outputs: dict[Place, Span]
    ) -> None:
        """Read one partition again and collect the records of the sampled users."""
        partition = source_index.partition
        known = [user.key for user in source_index.users if user.row != NONE]
        if self._users:
            known = sorted(known, key=lambda key: blake2b(key).digest())[: -(-self._users // partitions)]
        lives = {key: Life(key, partition) for key in known}
        self._lives += lives.values()
        for record in self._log.records(self._settings.recommendations_topic, outputs):
            if record.value is not None and (life := lives.get(record.key or b"")):
                life.slates.append(Written(record.offset, record.value))
            elif record.value is not None and record.key == ANYONE:
                self._anyone.append((partition, Written(record.offset, record.value)))
        if not lives:
            return
        for behaviour, source in enumerate(source_index.sources):
            span = {(source.topic, partition): Span(source.start, source.end)}
            for record in self._log.records(source.topic, span):
                life = lives.get(record.key or b"")
                if life is not None and source.state[record.offset - source.start] == APPLIED:
                    life.events[behaviour, record.offset] = self._event(behaviour, record)
        fencing = Fencing(self._keys)
        expected = 0
        for record in self._log.records(self._settings.changelog_topic, changelog):
            if record.offset != expected:
                for life in lives.values():
                    life.holes = True
            expected = record.offset + 1
            if record.key == CLAIM:
                fencing.claim(record)
            elif (
                record.value is not None
                and fencing.check(record) not in (FENCED, FORGED, NOBODYS)
                and (life := lives.get(record.key or b""))
            ):
                life.states.append(Written(record.offset, record.value))

    # computing

    def finish(self) -> None:
        """Compute everything that was collected."""
        followed = [(life, _decoded(life.states), _parsed(life.slates)) for life in self._lives]
        wanted = {state.catalogue for _, states, _ in followed for _, state in states}
        wanted |= {slate["catalogue"] for _, _, slates in followed for _, slate in slates}
        anyone = [(partition, *said) for partition, written in self._anyone for said in _parsed([written])]
        wanted |= {slate["catalogue"] for _, _, slate in anyone}
        live = self._follow_items(sorted(wanted))
        for partition, offset, slate in anyone:
            self._popular(partition, offset, slate, live[slate["catalogue"]])
        for life, states, slates in followed:
            self._recompute(life, states, live)
            self._rank(life, states, slates, live)
        if any(self._others):
            states_left, slates_left = self._others
            message = (
                f"{states_left} states and {slates_left} slates come from another model or bundle than bundle "
                f"{self._bundle.id[:12]} and were left out; judge them with their own bundle"
            )
            self._report.note(Violation("other-model", message))

    def _follow_items(self, wanted: list[int]) -> dict[int, Live]:
        """Return the items as they were at these offsets of the items topic."""
        found: dict[int, Live] = {}
        topic = self._settings.items_topic
        spans = self._log.spans([topic])
        expected = 0
        holes = False
        left = list(reversed(wanted))
        for record in self._log.records(topic, spans):
            while left and left[-1] < record.offset:
                at = left.pop()
                found[at] = self._items.freeze(not (holes or at >= expected))
            holes = holes or record.offset != expected
            expected = record.offset + 1
            self._items.take(record)
        for at in left:
            found[at] = self._items.freeze(not (holes or at >= expected))
        return found

    def _recompute(self, life: Life, states: list[tuple[int, Interest]], live: dict[int, Live]) -> None:
        before: Interest | None = None
        for offset, state in states:
            if state.model != self._bundle.state_model:
                self._leave_out(0)
                before = state
                continue
            if not self._fits(state):
                place = self._settings.changelog_topic, life.partition, offset
                message = f"h and c have {len(state.h)} numbers, expected {self._bundle.hidden}"
                self._report.add(Violation("numbers", message, self._keys.name(life.key), state.seq, *place))
                before = None
                continue
            if (
                before is not None
                and state.seq == before.seq
                and state.chain == before.chain
                and state.model == before.model
            ):
                self._compare(life, offset, state, before.h, before.c, live, [])
                continue
            events = [life.events.get((topic, at)) for topic, at in state.folded]
            first = before is None and state.seq == len(state.folded)
            follows = before is not None and state.seq - len(state.folded) == before.seq
            if not (first or follows) or None in events:
                adopted = before is None or None in events
                self._report.numbers_unverifiable += not adopted
            else:
                taken = [event for event in events if event is not None]
                h, c = self._fold(before, taken, live[state.catalogue])
                self._compare(life, offset, state, h, c, live, taken)
            before = state

    def _leave_out(self, which: int) -> None:
        self._others[which] += 1
        self._report.numbers_unverifiable += 1

    def _fits(self, state: Interest) -> bool:
        return len(state.h) == self._bundle.hidden

    def _fold(self, before: Interest | None, events: Iterable[Event], live: Live) -> tuple[Any, Any]:
        """Return h and c after `events`. A state of another step model is first built again from its recent events."""
        h = c = np.zeros((1, self._bundle.hidden), np.float16)
        last = -1 if before is None else before.last_time
        if before is not None and before.model == self._bundle.state_model:
            h, c = before.h[None], before.c[None]
        elif before is not None:
            latest = -1
            for old in recents(before.recent):
                event = Event(old.behaviour, old.item, old.scene, old.value, old.time, "", old.action)
                h, c = self._step(event, latest, live, h, c)
                latest = max(latest, old.time)
        for event in events:
            h, c = self._step(event, last, live, h, c)
            last = max(last, event.time)
        return h[0], c[0]

    def _step(self, event: Event, last: int, live: Live, h: Any, c: Any) -> tuple[Any, Any]:
        spec = self._bundle.spec
        value, comment = event.value, np.zeros((1, spec.text_dim), np.float32)
        if event.text:
            wanted = self._encoder.reads and math.isnan(value)
            comment[0], read = self._text(event.text, wanted)
            value = read if wanted else value
        gap = -1 if last < 0 else max(0, event.time - last)
        numbers = np.array(spec.numbers(value, gap), np.float32).reshape(1, NUMBERS)
        rows = InputRows(
            item=live.matrix[[self._items.row(live, event.item)]],
            behaviour=np.array([event.behaviour], np.int64),
            scene=np.array([spec.scene(event.scene)], np.int64),
            action=np.array([spec.action(event.action)], np.int64),
            numbers=numbers,
            comment=comment,
        )
        return self._models.step(rows, h, c)

    def _text(self, text: str, wanted: bool) -> tuple[Vector, float]:
        found = self._texts.get((text, wanted))
        if found is None:
            found = self._encoder.encode_and_read(text) if wanted else (self._encoder.encode(text), math.nan)
            self._texts[text, wanted] = found
        return found

    def _compare(
        self, life: Life, offset: int, state: Interest, h: Any, c: Any, live: dict[int, Live], events: list[Event]
    ) -> None:
        self._report.numbers += 1
        if state.h.tobytes() == h.tobytes() and state.c.tobytes() == c.tobytes():
            return
        if not live[state.catalogue].whole and any(event.item not in self._items.trained for event in events):
            self._report.numbers_unverifiable += 1
            return
        far = max(float(np.abs(a.astype(np.float32) - b).max()) for a, b in ((h, state.h), (c, state.c)))
        message = f"h or c differs from what its events give, by {far:.2g}"
        place = self._settings.changelog_topic, life.partition, offset
        self._report.add(Violation("numbers", message, self._keys.name(life.key), state.seq, *place))

    def _rank(
        self,
        life: Life,
        states: list[tuple[int, Interest]],
        slates: list[tuple[int, dict[str, Any]]],
        live: dict[int, Live],
    ) -> None:
        """Check each slate by the states of its chain and of this bundle's model.

        After a change of the bundle and back there may be several such states, each with other numbers. Those with the slate's
        `applied` are preferred, and the slate is right if it fits one of them.
        """
        by_chain: dict[str, list[Interest]] = {}
        for _, state in states:
            by_chain.setdefault(state.chain.hex(), []).append(state)
        for offset, slate in slates:
            known = by_chain.get(slate["chain"])
            if known is None or slate["strategy"] != "interest":
                continue  # deploy.verify.slates judges it
            if slate["bundle"] != self._bundle.id:
                self._leave_out(1)
                continue
            mine = [state for state in known if state.model == self._bundle.state_model]
            shown = [applied for applied in slate["applied"].values() if applied >= 0]
            exact = [
                state for state in mine if sorted(applied for applied in state.applied if applied >= 0) == sorted(shown)
            ]
            mine = [state for state in exact or mine if self._fits(state)]
            if not mine:
                self._report.numbers_unverifiable += 1
                continue
            self._report.ranked += 1
            items = live[slate["catalogue"]]
            wrong = ""
            for state in mine:
                wrong = self._misranked(state, items, slate["items"])
                if not wrong:
                    break
            mixed = len({state.model for state in known}) > 1
            if wrong and (not items.whole or (mixed and life.holes)):  # the slate's own state may be gone
                self._report.numbers_unverifiable += 1
            elif wrong:
                place = self._settings.recommendations_topic, life.partition, offset
                self._report.add(Violation("ranking", wrong, self._keys.name(life.key), slate["seq"], *place))

    def _popular(self, partition: int, offset: int, slate: dict[str, Any], live: Live) -> None:
        """Check the slate for anyone unknown: it holds the live items with the most interactions, each with its count."""
        if slate["bundle"] != self._bundle.id:
            self._leave_out(1)
            return
        self._report.ranked += 1
        counts = np.zeros(len(live.bias), np.float32)
        counts[: len(self._bundle.popularity)] = self._bundle.popularity[: len(counts)]
        best = np.sort(counts[live.bias == 0])[::-1][: self._settings.slate_size]
        said = [(one["item"], one["score"]) for one in slate["items"]]
        rows = [self._items.row(live, item) for item, _ in said]
        right = all(live.bias[row] == 0 and counts[row] == score for row, (_, score) in zip(rows, said, strict=True))
        if right and [score for _, score in said] == best.tolist():
            return
        if not live.whole:
            self._report.numbers_unverifiable += 1
            return
        place = self._settings.recommendations_topic, partition, offset
        self._report.add(
            Violation("ranking", "the items are not the most popular live ones with their counts", "*", 0, *place)
        )

    def _misranked(self, state: Interest, live: Live, items: list[dict[str, Any]]) -> str:
        """Return what is wrong with a slate; "" if nothing is."""
        seen = np.frombuffer(state.seen, np.uint32)
        old = recents(state.recent)
        if len(seen) >= MAX_SEEN:
            seen = np.union1d(seen, np.array([crc32(event.item.encode()) for event in old], np.uint32))
        hidden = self._items.named(seen, len(live.matrix)) if self._settings.filter_seen else []
        chosen = [
            row
            for event in reversed(old)
            if event.behaviour in self._models.choices
            and event.action not in self._models.refused
            and (event.behaviour != COMMENT or not math.isnan(event.value))
            and (row := self._items.row(live, event.item)) != UNKNOWN
        ][: self._models.last]
        feed = (
            np.array([(0, row) for row in hidden], np.int64).reshape(-1, 2),
            np.array([(0, row, age) for age, row in enumerate(chosen)], np.int64).reshape(-1, 3),
            np.array([state.seq], np.int64),
        )
        best: dict[str, float] = {}
        for k in (ENOUGH * self._settings.slate_size, len(live.matrix)):
            best = self._best(state, live, feed, min(k, len(live.matrix)))
            if all(said["item"] in best for said in items):
                break
        top = list(best.values())[: self._settings.slate_size]
        if len(items) != len(top):
            return f"the slate has {len(items)} items, expected {len(top)}"
        for place, (said, score) in enumerate(zip(items, top, strict=True)):
            mine = best.get(said["item"])
            if mine is None:
                return f"item {said['item'][:100]!r} is not live, or the user has seen it"
            if abs(mine - score) > NEAR or abs(mine - said["score"]) > NEAR:
                return f"place {place}: {said['item'][:100]!r} at {said['score']:g}, but it scores {mine:g}; expected {score:g}"
        return ""

    def _best(self, state: Interest, live: Live, feed: tuple[Any, Any, Any], k: int) -> dict[str, float]:
        """Return the k best items -> their scores, best first."""
        scores, order = self._models.score(state.h[None], live.matrix, live.bias, *feed, k)
        pairs = zip(order[0].tolist(), scores[0].tolist(), strict=True)
        return {self._items.names[row]: score for row, score in pairs if not math.isinf(score)}


def _event(behaviour: int, body: dict[str, Any]) -> Event:
    value = body.get("value") if behaviour else None
    text = body.get("text") if behaviour == COMMENT else ""
    action = "" if behaviour else body.get("action")
    rating = math.nan if value is None else float(value)
    return Event(behaviour, body["item"], body.get("scene") or "", rating, int(body["time"]), text or "", action or "")


def _decoded(records: list[Written]) -> list[tuple[int, Interest]]:
    """Return the states that can be read. Others are reported by deploy.verify.changelog."""
    found = []
    for record in records:
        try:
            found.append((record.offset, decode(record.value)))
        except StateError:
            continue
    return found


def _parsed(records: list[Written]) -> list[tuple[int, dict[str, Any]]]:
    validator = jsonschema_rs.validator_for(schema("recommendation"))
    found = []
    for record in records:
        try:
            slate = parse(record.value)
        except ValueError:
            continue
        if validator.is_valid(slate):
            found.append((record.offset, slate))
    return found
