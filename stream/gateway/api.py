"""The API's handlers and the table of its routes. What they need is passed in as `Parts`."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stream.catalogue.catalogue import DEAD
from stream.catalogue.popularity import NOBODY, TRENDING, popular_items
from stream.core import state as interest
from stream.core.diversity import Diversity
from stream.core.errors import RecordError
from stream.core.features import UNKNOWN
from stream.core.filters import Every, Filter, FilterError
from stream.core.filters import parse as parse_filter
from stream.core.keys import key_of
from stream.core.messages import BEHAVIOURS, COMMENT, NAN, RATING, Id, Item, Recommendation, Rule, Scored, SourceEvent
from stream.core.messages import User as UserId
from stream.core.placements import Placement
from stream.core.rule_warnings import of_items, of_times
from stream.core.rules import BLOCK, CONTRADICTION, KINDS, OF_ITEMS, ONLY, REFUSED, RuleSet
from stream.core.ruling import Ruling, Selection, Selections
from stream.core.score_tables import epoch_of
from stream.core.state import ZERO_CHAIN, Interest
from stream.core.validation import Rules
from stream.gateway import messages as wire
from stream.gateway.auth import ADMIN, READ, WRITE
from stream.gateway.demo_page import DemoPage
from stream.gateway.events import Acceptance, Writer, item_of, rule_of, split
from stream.gateway.figures import HitRateFile, SlateFigures
from stream.gateway.items import View
from stream.gateway.messages import MOST_COMMENTS, Refused
from stream.gateway.metrics import GatewayMetrics
from stream.gateway.min_offset import Wanted, parse
from stream.gateway.positions import Positions
from stream.gateway.problems import ProblemError
from stream.gateway.replica import Replica
from stream.gateway.routing import JSON, NDJSON, Answer, Call, Route, refused
from stream.gateway.scorer import Ask
from stream.gateway.served import Served
from stream.gateway.slates import Listener, Slates
from stream.gateway.trends import MOST_RANKED, Trends
from stream.inference.text_encoder import Encoder
from stream.settings import DEFAULT_PLACEMENT, Settings

INTEREST: Final = "interest"
POPULARITY: Final = "popularity"
SIMILAR: Final = "similar"
KEEP_ALIVE: Final = 15.0
"""Seconds between two comments on a quiet stream, so that no proxy closes it."""
EVENTS: Final = "text/event-stream"
LEAVING_OUT: Final = (BLOCK, ONLY)
FIELD: Final = 200
"""Characters of a field's name in a problem."""

_USER: Final = msgspec.defstruct("_User", [("user", UserId)])
_RULE: Final = msgspec.defstruct("_Rule", [("rule", Id)])
_ITEM: Final = msgspec.defstruct("_Item", [("item", Id)])


@dataclass(frozen=True)
class Parts:
    """What the handlers work with.

    Attributes:
        served: Returns what answers are made with. It may be exchanged for another one; a handler asks for it once.
        rules: Returns the rules in force.
        missing: Returns the conditions for ready that are not met.
        heartbeat: Returns the seconds since the event loop last turned.
        closing: Set when the server stops: streams then end.
        document: Returns the OpenAPI document.
        page: Returns the documentation page.
        demo_page: The files of the demo page.
    """

    settings: Settings
    served: Callable[[], Served]
    texts: Executor
    models: Executor
    rules: Callable[[], RuleSet]
    replica: Replica
    positions: Positions
    acceptance: Acceptance
    writer: Writer
    slates: Slates
    trends: Trends
    figures: SlateFigures
    metrics: Callable[[], GatewayMetrics]
    missing: Callable[[], list[str]]
    heartbeat: Callable[[], float]
    closing: asyncio.Event
    document: Callable[[], bytes]
    page: Callable[[], bytes]
    demo_page: DemoPage


class Api:
    """All handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._hit_rate = HitRateFile(parts.settings.serve_figures)
        self._topics = tuple(parts.settings.sources)
        self._rules = Rules(parts.settings.rating_scale, parts.settings.oldest)
        self._encoder = msgspec.json.Encoder()
        self._selections = Selections()
        self._rule_writes = asyncio.Lock()
        self._last_rule = -1  # offset of the last record that this gateway wrote into the rules topic

    # users

    async def recommend(self, call: Call) -> Answer:
        """Answer GET and POST users/{user}/recommendations."""
        query: wire.SlateQuery = call.query if call.body is None else call.body
        user, key, partition = self._user(call.path["user"])
        filtered = _both(self._placement(query.placement).filtered, _filter(query.filter))
        record, met, served, view = await self._fresh(key, partition, query.min_offset, query.scene, filtered)
        return Answer(
            await self._slate(
                served,
                user,
                key,
                partition,
                record,
                met,
                view,
                self._placement(query.placement, served),
                query.n,
                query.exclude,
                query.diversity,
                query.scene,
                query.explain,
            )
        )

    async def _slate(
        self,
        served: Served,
        user: str,
        key: bytes,
        partition: int,
        record: bytes | None,
        met: str,
        view: View,
        placement: Placement,
        n: int | None,
        exclude: Sequence[str],
        strength: float | None,
        scene: str | None = None,
        explain: bool = False,
    ) -> wire.Slate:
        size, named = n or placement.size, placement.name or UNSET
        fresh = self._replica(partition)
        if record is None:
            rules = self._parts.rules()
            items = _without(view.popular(self._selection(rules, key, scene, view)), exclude, size)
            if explain:
                items = await served.explaining.popular(key, view, items, rules, scene, KINDS)
            return wire.Slate(
                user=user, items=items, strategy=POPULARITY, min_offset=met,
                **self._nothing(served, view), replica=fresh, rules=_offset(rules), placement=named,
            )  # fmt: skip
        diversity, k = _diversity(placement, strength), size + len(set(exclude))
        if diversity.strength and exclude:  # what is left out must not keep items away that are like it
            view, k = view.without(exclude), size
        ask = Ask(key, partition, record, view, k, placement.filter_seen, scene, diversity=diversity)
        scores = await served.scorer.score(ask)
        items = _without(scores.items, exclude, size)
        if explain:
            items = await served.explaining.scored(ask, scores, items)
        return wire.Slate(
            user=user, items=items, strategy=INTEREST, min_offset=met,
            refolded=scores.user.refolded, diversity=diversity.strength,
            **self._known(served, scores.user.state, partition, view), replica=fresh, rules=_offset(scores.rules),
            placement=named,
        )  # fmt: skip

    async def rerank(self, call: Call) -> Answer:
        """Answer POST rerank."""
        query: wire.RerankQuery = call.body
        user, key, partition = self._user(query.user)
        record, met, served, view = await self._fresh(key, partition, query.min_offset, None, _filter(query.filter))
        candidates = list(dict.fromkeys(query.candidates))
        snapshot, rules = view.snapshot, self._parts.rules()
        seq = 0 if record is None else interest.decode(record).seq
        selection = self._selection(rules, key, None, view, seq, OF_ITEMS)
        bias = snapshot.bias if selection is None else selection.bias
        live = [one for one in candidates if (row := snapshot.row(one)) != UNKNOWN and bias[row] > DEAD]
        left_out = [one for one in candidates if one not in set(live)]
        fresh = self._replica(partition)
        if record is None or not live:
            known = self._nothing(served, view)
            if record is not None:
                known = self._known(served, interest.decode(record), partition, view)
            counted = view.counts(live)
            if query.explain:
                counted = await served.explaining.popular(key, view, counted, rules, None, LEAVING_OUT)
            return Answer(
                wire.Ranked(
                    user=user, items=counted, left_out=left_out, min_offset=met,
                    strategy=POPULARITY if record is None else INTEREST, **known, replica=fresh, rules=_offset(rules),
                )
            )  # fmt: skip
        ask = Ask(key, partition, record, view.only(live), len(live), filter_seen=False, kinds=OF_ITEMS)
        scores = await served.scorer.score(ask)
        items = scores.items
        if query.explain:
            items = await served.explaining.scored(ask, scores, items)
        return Answer(
            wire.Ranked(
                user=user, items=items, left_out=left_out, strategy=INTEREST, min_offset=met,
                refolded=scores.user.refolded, **self._known(served, scores.user.state, partition, view), replica=fresh,
                rules=_offset(scores.rules),
            )
        )  # fmt: skip

    async def session(self, call: Call) -> Answer:
        """Answer POST sessions/recommendations."""
        self._ready()
        query: wire.SessionQuery = call.body
        served = self._parts.served()
        placement = self._placement(query.placement, served)
        view = served.catalogue.view(query.scene, _both(placement.filtered, _filter(query.filter)))
        size, named = query.n or placement.size, placement.name or UNSET
        fresh = wire.Replica(-1, -1, 0.0)
        if not query.events:
            rules = self._parts.rules()
            popular = view.popular(self._selection(rules, NOBODY, query.scene, view))
            items = _without(popular, query.exclude, size)
            if query.explain:
                items = await served.explaining.popular(NOBODY, view, items, rules, query.scene, KINDS)
            return Answer(
                wire.Slate(
                    user="", items=items, strategy=POPULARITY,
                    **self._nothing(served, view), replica=fresh, rules=_offset(rules), placement=named,
                )
            )  # fmt: skip
        events = await self._session_events(served.encoder, query.events)
        diversity, k = _diversity(placement, query.diversity), size + len(set(query.exclude))
        if diversity.strength and query.exclude:
            view, k = view.without(query.exclude), size
        ask = Ask(NOBODY, 0, None, view, k, placement.filter_seen, query.scene, events=events, diversity=diversity)
        scores = await served.scorer.score(ask)
        items = _without(scores.items, query.exclude, size)
        if query.explain:
            items = await served.explaining.scored(ask, scores, items)
        known = self._known(served, scores.user.state, 0, view) | {"applied": {}}
        return Answer(
            wire.Slate(
                user="", items=items, strategy=INTEREST,
                diversity=diversity.strength, **known, replica=fresh, rules=_offset(scores.rules), placement=named,
            )
        )  # fmt: skip

    async def _session_events(self, encoder: Encoder, events: Sequence[wire.SessionEvent]) -> list[SourceEvent]:
        now = int(time.time() * 1000)
        if sum(one.type == BEHAVIOURS[COMMENT] for one in events) > MOST_COMMENTS:
            raise ProblemError("invalid", f"expected at most {MOST_COMMENTS} comments", field="events")
        found = []
        for index, one in enumerate(events):
            where = f"events[{index}]"
            behaviour = BEHAVIOURS.index(one.type)
            if name := wire.surplus(one):
                raise ProblemError("invalid", f"a {one.type} has no such field", field=f"{where}.{name}")
            try:
                self._rules.time(one.time, now, f"the time of this server, {now}")
                value = NAN if one.value is None else self._rules.rating(one.value)
            except RecordError as error:
                raise ProblemError("invalid", str(error), field=f"{where}.{error.field}") from None
            if behaviour == RATING and one.value is None:
                raise ProblemError("invalid", "a rating needs it", field=f"{where}.value")
            if behaviour == COMMENT and one.text is None:
                raise ProblemError("invalid", "a comment needs it", field=f"{where}.text")
            event = SourceEvent(
                behaviour, 0, index, now, b"", one.item, one.time, value if behaviour else NAN, one.scene or "",
                one.text or "", "", b"", action=one.action or "" if not behaviour else "",
            )  # fmt: skip
            if behaviour == COMMENT:
                await self._encode(encoder, event)
            found.append(event)
        return found

    async def _encode(self, encoder: Encoder, event: SourceEvent) -> None:
        loop = asyncio.get_running_loop()
        if encoder.reads and event.value != event.value:
            event.vector, event.read = await loop.run_in_executor(
                self._parts.texts, encoder.encode_and_read, event.text
            )
        else:
            event.vector = await loop.run_in_executor(self._parts.texts, encoder.encode, event.text)

    async def user(self, call: Call) -> Answer:
        """Answer GET users/{user}."""
        name, key, partition = self._user(call.path["user"])
        record, met, served, view = await self._fresh(key, partition, call.query.min_offset)
        if record is None:
            raise ProblemError("not-found", "the user has no state", field="user")
        state = interest.decode(record)
        recent = [
            wire.PastEvent(
                BEHAVIOURS[one.behaviour], one.item, one.time, None if one.value != one.value else one.value, one.scene,
                one.id, one.action,
            )
            for one in state.recents()
        ]  # fmt: skip
        return Answer(
            wire.User(
                user=name, last_time=state.last_time, seen=len(state.seen) // 4, state_model=state.model.hex(),
                current=state.model == served.bundle.state_model, recent=recent, min_offset=met,
                **self._known(served, state, partition, view), replica=self._replica(partition),
            )
        )  # fmt: skip

    async def forget(self, call: Call) -> Answer:
        """Answer DELETE users/{user}."""
        name, key, partition = self._user(call.path["user"])
        self._ready("broker")
        written = await self._parts.writer.forget(key, partition, 0.9 * self._settings.serve_timeout)
        records = [f"{one.topic}/{one.partition}/{one.offset}" for one in written]
        accepted = wire.ForgetAccepted(
            user=name, records=records, min_offset=",".join(one.min_offset for one in written)
        )
        return Answer(accepted, 202)

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        """Answer GET users/{user}/stream: the slates of all published placements as they are now, then each new one."""
        user, key, partition = self._user(call.path["user"])
        self._ready()
        listener = await self._parts.slates.listen(key)
        try:
            slates = [await self._now(user, key, partition, one) for one in self._parts.served().published]
        except BaseException:
            self._parts.slates.leave(key, listener)
            raise
        return self._follow(user, key, partition, listener, slates)

    async def _now(self, user: str, key: bytes, partition: int, placement: Placement) -> Recommendation:
        """Return a user's slate of a placement as it is now, in the form of a worker's."""
        record = _lived(self._parts.replica.record(partition, key))
        served = self._parts.served()
        view = served.catalogue.view(None, placement.filtered)
        return _as_recommendation(
            await self._slate(served, user, key, partition, record, "", view, placement, None, (), None)
        )

    async def _instead(self, user: str, key: bytes, partition: int, value: bytes) -> bytes | None:
        """Return what a stream sends for a slate: the slate, unless it shows an item that must no longer be shown.

        In its place comes the slate as it is now. If the state is not there yet, nothing comes: the worker re-issues it.
        A slate of a placement that this gateway does not know is not sent then.
        """
        served = self._parts.served()
        withdrawn = served.withdrawn.found(key, value)
        if withdrawn is None:
            return value
        placement = served.placements.get(withdrawn.placement)
        if placement is None:
            return None
        try:
            now = await self._now(user, key, partition, placement)
        except ProblemError:
            return None
        return self._encoder.encode(now) if now.seq >= withdrawn.seq else None

    async def _follow(
        self, user: str, key: bytes, partition: int, listener: Listener, first: Sequence[Recommendation]
    ) -> AsyncGenerator[bytes, None]:
        try:
            for one in first:
                listener.put(self._encoder.encode(one))
            while not self._parts.closing.is_set():
                value = await listener.next(KEEP_ALIVE)
                if self._parts.closing.is_set():
                    return
                if value is not None and (value := await self._instead(user, key, partition, value)) is None:
                    continue
                yield b": quiet\n\n" if value is None else b"event: slate\ndata: " + value + b"\n\n"
        finally:
            self._parts.slates.leave(key, listener)

    # events and items

    async def post_events(self, call: Call) -> Answer:
        """Answer POST events."""
        self._ready("broker")
        bodies, single = split(call.raw, call.media == NDJSON)
        limit = 0.9 * self._settings.serve_timeout
        events = await self._parts.writer.events(bodies, limit)
        refused = [one.problem for one in events if isinstance(one, Refused)]
        self._parts.metrics().sent(len(events) - len(refused), [str(one.reason or "") for one in refused])
        if single and refused:
            raise ProblemError.of(refused[0])
        found = wire.EventResults(len(events) - len(refused), len(refused), events)
        return Answer(found, 207 if refused else 200)

    async def item(self, call: Call) -> Answer:
        """Answer GET items/{item}."""
        item = _checked(call.path, _ITEM).item
        await self._items(call.query.min_offset)
        served = self._parts.served()
        catalogue = served.catalogue
        message, snapshot = catalogue.message(item), catalogue.view().snapshot
        if message is None:
            raise ProblemError("not-found", "the items topic has no such item", field="item")
        row = snapshot.row(item)
        return Answer(
            wire.ItemAnswer(
                item=message,
                live=row != UNKNOWN and bool(snapshot.bias[row] == 0),
                trained=0 < row <= len(served.bundle.item_ids),
                catalogue=snapshot.offset,
            )
        )

    async def items(self, call: Call) -> Answer:
        """Answer GET items."""
        query: wire.ItemsQuery = call.query
        if query.query is not None and query.item:
            raise ProblemError("invalid", "expected either query or item", field="item")
        filtered = _filter(query.filter)
        await self._items(query.min_offset)
        catalogue, rules = self._parts.served().catalogue, self._parts.rules()
        view = catalogue.view(query.scene, filtered)
        selection = self._selection(rules, NOBODY, query.scene, view, kinds=LEAVING_OUT)
        bias = view.snapshot.bias if selection is None else selection.bias

        def live(item: str) -> bool:
            row = view.snapshot.row(item)
            return row != UNKNOWN and row < len(bias) and bool(bias[row] > DEAD)

        n = query.n or (wire.MOST_NAMED if query.item else self._settings.slate_size)
        if query.item:
            names = list(dict.fromkeys(query.item))[:n]
        elif query.query is not None:
            wanted = query.query
            names = await asyncio.to_thread(lambda: catalogue.titles().find(wanted, n, live))
        else:
            names = [one.item for one in view.popular(selection)[:n]]
        items = [
            wire.CatalogueItem(item, message.title, list(message.categories or ()), live(item))
            for item in names
            if (message := catalogue.message(item)) is not None
        ]
        return Answer(wire.CatalogueItems(items=items, catalogue=view.snapshot.offset, rules=_offset(rules)))

    async def catalogue(self, call: Call) -> Answer:
        """Answer GET catalogue."""
        await self._items(call.query.min_offset)
        served, settings = self._parts.served(), self._settings
        snapshot = served.catalogue.view().snapshot
        low, high = settings.rating_scale
        strength = served.placements[DEFAULT_PLACEMENT].diversity.strength
        return Answer(
            wire.CatalogueAnswer(
                live=snapshot.live, known=snapshot.known, categories=_most_named(snapshot.columns.categories()),
                scenes=_most_named(snapshot.columns.scenes()), rating_scale=(low, high), key=settings.key,
                slate_size=settings.slate_size, diversity=strength, bundle=served.bundle.id,
                catalogue=snapshot.offset,
            )
        )  # fmt: skip

    async def put_item(self, call: Call) -> Answer:
        """Answer PUT items/{item}."""
        item = _checked(call.path, _ITEM).item
        self._ready("broker")
        return Answer(wire.ItemWritten(item=item, **await self._write_item(item, item_of(call.raw, item))))

    async def delete_item(self, call: Call) -> Answer:
        """Answer DELETE items/{item}."""
        item = _checked(call.path, _ITEM).item
        self._ready("broker")
        existed = self._parts.served().catalogue.message(item) is not None if self._has("catalogue") else UNSET
        return Answer(wire.ItemRemoved(item=item, existed=existed, **await self._write_item(item, None)))

    async def _write_item(self, item: str, value: bytes | None) -> dict[str, Any]:
        return _place(await self._parts.writer.item(item, value, 0.9 * self._settings.serve_timeout))

    async def rules(self, call: Call) -> Answer:
        """Answer GET rules."""
        await self._items(call.query.min_offset)
        found = self._parts.rules()
        return Answer(wire.RuleAnswers(_shown(found, _now()), found.offset))

    async def rule(self, call: Call) -> Answer:
        """Answer GET rules/{rule}."""
        name = _checked(call.path, _RULE).rule
        await self._items(call.query.min_offset)
        for one in _shown(self._parts.rules(), _now()):
            if one.rule == name:
                return Answer(one)
        raise ProblemError("not-found", "the rules topic has no such rule", field="rule")

    async def put_rule(self, call: Call) -> Answer:
        """Answer PUT rules/{rule}."""
        name = _checked(call.path, _RULE).rule
        self._ready("broker", "rules")
        put = rule_of(call.raw, name, self._settings.key)
        async with self._rule_writes:
            rules = await self._written_rules()
            if refusal := rules.refusal(put):
                raise ProblemError("not-accepted", refusal, field="rule", reason=CONTRADICTION)
            warnings = of_times(put, _now())
            if self._has("catalogue"):
                columns = self._parts.served().catalogue.view().snapshot.columns
                warnings += await asyncio.to_thread(of_items, put, rules.rules, columns)
            return Answer(wire.RuleWritten(rule=name, warnings=warnings, **await self._write_rule(name, call.raw)))

    async def delete_rule(self, call: Call) -> Answer:
        """Answer DELETE rules/{rule}."""
        name = _checked(call.path, _RULE).rule
        self._ready("broker")
        async with self._rule_writes:
            existed = name in (await self._written_rules()).known if self._has("rules") else UNSET
            return Answer(wire.RuleDeleted(rule=name, existed=existed, **await self._write_rule(name, None)))

    async def _written_rules(self) -> RuleSet:
        """Return the rules with those that this gateway wrote last: a rule that is put next may contradict them."""
        until = asyncio.get_running_loop().time() + self._settings.serve_wait
        await self._parts.positions.wait_rules(self._last_rule, until)
        return self._parts.rules()

    async def _write_rule(self, rule: str, value: bytes | None) -> dict[str, Any]:
        written = await self._parts.writer.rule(rule, value, 0.9 * self._settings.serve_timeout)
        self._last_rule = written.offset
        return _place(written)

    async def similar(self, call: Call) -> Answer:
        """Answer GET items/{item}/similar."""
        item = _checked(call.path, _ITEM).item
        query: wire.SimilarQuery = call.query
        filtered = _filter(query.filter)
        await self._items(query.min_offset)
        served = self._parts.served()
        view = served.catalogue.view(query.scene, filtered)
        row = view.snapshot.row(item)
        if row == UNKNOWN:
            raise ProblemError("not-found", "neither the bundle nor the catalogue has the item", field="item")
        n = query.n or self._settings.slate_size
        loop = asyncio.get_running_loop()
        rules = self._parts.rules()
        selection = self._selection(rules, NOBODY, query.scene, view, kinds=LEAVING_OUT)
        items = await loop.run_in_executor(self._parts.models, partial(view.similar, row, n, selection))
        return Answer(self._list(served, items, SIMILAR, view, rules))

    async def popular(self, call: Call) -> Answer:
        """Answer GET popular."""
        query: wire.PopularQuery = call.query
        filtered = _filter(query.filter)
        await self._items(query.min_offset)
        served = self._parts.served()
        view = served.catalogue.view(query.scene, filtered)
        rules = self._parts.rules()
        popular = view.popular(self._selection(rules, NOBODY, query.scene, view))
        items = _without(popular, query.exclude, query.n or self._settings.slate_size)
        return Answer(self._list(served, items, POPULARITY, view, rules))

    async def trending(self, call: Call) -> Answer:
        """Answer GET trending."""
        query: wire.TrendingQuery = call.query
        filtered = _filter(query.filter)
        self._ready()
        trends, served = self._parts.trends, self._parts.served()
        view = served.catalogue.view(query.scene, filtered)
        rules = self._parts.rules()
        selection = self._selection(rules, NOBODY, query.scene, view, kinds=LEAVING_OUT)
        snapshot, window, complete = view.snapshot, trends.window, trends.complete
        grown: Sequence[tuple[str, float]] = trends.growth()
        if self._settings.popular_by == TRENDING and snapshot.tables is not None and snapshot.tables.trend is not None:
            rising = popular_items(snapshot.tables.trend, snapshot, MOST_RANKED, by=TRENDING)
            grown = [(one.item, round(one.score, 5)) for one in rising if one.score > 0]
            window, complete = snapshot.tables.trend_seconds, True
        bias = snapshot.bias if selection is None else selection.bias
        live = [
            Scored(item, float(growth))
            for item, growth in grown
            if (row := snapshot.row(item)) != UNKNOWN and bias[row] > DEAD
        ]
        return Answer(
            wire.Trending(
                items=_without(live, query.exclude, query.n or self._settings.slate_size), strategy=TRENDING,
                bundle=served.bundle.id, catalogue=snapshot.offset, window_seconds=window,
                counted_seconds=round(trends.seconds, 1), complete=complete, rules=_offset(rules),
            )
        )  # fmt: skip

    # the server

    async def show_figures(self, call: Call) -> Answer:
        """Answer GET figures."""
        return Answer(self._parts.figures.answer(*self._hit_rate.read()))

    async def show_demo(self, call: Call) -> Answer:
        """Answer GET demo and its files."""
        return self._parts.demo_page.answer(call.path.get("file"))

    async def root(self, call: Call) -> Answer:
        """Answer GET /: the documentation is at /docs."""
        return Answer(
            status=307, media="text/plain", headers={"Location": "docs"}
        )  # relative: a proxy may add a prefix

    async def icon(self, call: Call) -> Answer:
        """Answer GET favicon.ico, which browsers ask for on their own."""
        return self._parts.demo_page.answer("icon.svg")

    async def document(self, call: Call) -> Answer:
        """Answer GET openapi.json."""
        return Answer(self._parts.document())

    async def page(self, call: Call) -> Answer:
        """Answer GET docs."""
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
        return Answer(self._parts.page(), media="text/html; charset=utf-8", headers=headers)

    async def show_metrics(self, call: Call) -> Answer:
        """Answer GET metrics."""
        return Answer(generate_latest(self._parts.metrics().registry), media=CONTENT_TYPE_LATEST)

    async def alive(self, call: Call) -> Answer:
        """Answer GET healthz."""
        return Answer(wire.Alive(True, round(self._parts.heartbeat(), 3)))

    async def is_ready(self, call: Call) -> Answer:
        """Answer GET readyz."""
        missing = self._parts.missing()
        return Answer(wire.Ready(not missing, missing), 503 if missing else 200)

    # what they share

    def _placement(self, name: str | None, served: Served | None = None) -> Placement:
        """Return a placement by its name. Raises ProblemError, which lists the known ones."""
        placements = (served or self._parts.served()).placements
        found = placements.get(DEFAULT_PLACEMENT if name is None else name)
        if found is None:
            known = ", ".join(placements)
            raise ProblemError("invalid", f"found {name!r}, expected one of {known}", field="placement")
        return found

    def _user(self, user: str) -> tuple[str, bytes, int]:
        """Return a user, the key and the partition. Raises ProblemError if the id is not acceptable or not served here."""
        _checked({"user": user}, _USER)
        try:
            key = key_of(user, self._settings.key)
        except RecordError as error:
            raise ProblemError("invalid", str(error), field="user") from None
        partition = self._parts.acceptance.partition(key)
        if partition not in self._parts.replica.partitions:
            served = ", ".join(map(str, self._parts.replica.partitions))
            raise ProblemError(
                "misdirected", f"the user is on partition {partition}, and this server has {served}", field="user"
            )
        return user, key, partition

    def _ready(self, *needed: str) -> None:
        """Raise ProblemError while something is missing that the request needs; by default all."""
        missing = [one for one in self._parts.missing() if not needed or one in needed]
        if missing:
            raise ProblemError(
                "not-ready", f"waits for {', '.join(missing)}", missing=missing, headers={"Retry-After": "1"}
            )

    def _has(self, part: str) -> bool:
        """Return whether one of the conditions for ready is met."""
        return part not in self._parts.missing()

    async def _fresh(
        self,
        key: bytes,
        partition: int,
        min_offset: str | None,
        scene: str | None = None,
        filtered: Filter | None = None,
    ) -> tuple[bytes | None, str, Served, View]:
        """Return a user's record that contains what is asked for, how it was met, and what the answer is made with: its view
        of the catalogue contains what is asked for, too."""
        self._ready()
        parts = self._parts
        read = partial(parts.replica.record, partition, key)
        if min_offset is None:
            served = parts.served()
            return _lived(read()), "", served, served.catalogue.view(scene, filtered)
        wanted = self._wanted(min_offset, partition)
        with self._waiting() as how:
            until = asyncio.get_running_loop().time() + self._settings.serve_wait
            await parts.positions.wait_items(wanted.items, until)
            await parts.positions.wait_rules(wanted.rules, until)
            record, how[0] = await parts.positions.wait(key, partition, read, wanted, until, self._topics)
            how[0] = how[0] or "applied"
        served = parts.served()
        return _lived(record), how[0], served, served.catalogue.view(scene, filtered)

    async def _items(self, min_offset: str | None) -> None:
        """Wait for the catalogue and the rules."""
        self._ready("bundle", "catalogue", "rules", "tables")
        if min_offset is None:
            return
        wanted = self._wanted(min_offset, None)
        with self._waiting() as how:
            until = asyncio.get_running_loop().time() + self._settings.serve_wait
            await self._parts.positions.wait_items(wanted.items, until)
            await self._parts.positions.wait_rules(wanted.rules, until)
            how[0] = "applied"

    def _wanted(self, min_offset: str, partition: int | None) -> Wanted:
        settings = self._settings
        return parse(min_offset, self._topics, settings.items_topic, partition, settings.rules_topic)

    @contextmanager
    def _waiting(self) -> Iterator[list[str]]:
        began, how = time.perf_counter(), ["late"]
        try:
            yield how
        finally:
            self._parts.metrics().waited(how[0], time.perf_counter() - began)

    def _replica(self, partition: int) -> wire.Replica:
        replica = self._parts.replica
        return wire.Replica(partition, replica.offset(partition), round(replica.age(partition) * 1000, 1))

    def _known(self, served: Served, state: Interest, partition: int, view: View) -> dict[str, Any]:
        applied = {
            f"{topic}/{partition}": offset
            for topic, offset in zip(self._topics, state.applied, strict=True)
            if offset >= 0
        }
        return {
            "seq": state.seq, "chain": state.chain.hex(), "applied": applied, "bundle": served.bundle.id,
            "catalogue": view.snapshot.offset, "tables": epoch_of(view.snapshot),
        }  # fmt: skip

    def _nothing(self, served: Served, view: View) -> dict[str, Any]:
        return {
            "seq": 0, "chain": ZERO_CHAIN.hex(), "applied": {}, "bundle": served.bundle.id,
            "catalogue": view.snapshot.offset,
        }  # fmt: skip

    def _list(self, served: Served, items: list[Scored], strategy: str, view: View, rules: RuleSet) -> wire.Items:
        return wire.Items(
            items=items, strategy=strategy, bundle=served.bundle.id, catalogue=view.snapshot.offset,
            rules=_offset(rules),
        )  # fmt: skip

    def _selection(
        self,
        rules: RuleSet,
        key: bytes,
        scene: str | None,
        view: View,
        seq: int = 0,
        kinds: tuple[str, ...] = KINDS,
    ) -> Selection | None:
        """Return what rules do to an answer that no model scores."""
        if not rules.rules:
            return None
        now = int(time.time() * 1000)
        return Ruling(rules, scene, now, self._selections, kinds).of(key, seq, view.snapshot)


def _place(at: wire.Written) -> dict[str, Any]:
    """Return what an answer says of where a record was written."""
    return {"topic": at.topic, "partition": at.partition, "offset": at.offset, "min_offset": at.min_offset}


def _now() -> int:
    return int(time.time() * 1000)


def _shown(rules: RuleSet, now_ms: int) -> list[wire.RuleAnswer]:
    found = [
        wire.RuleAnswer(
            rule=one.rule, offset=rules.known[one.rule], in_force=True, state=one.state(now_ms), message=one.message
        )
        for one in rules.rules
    ]
    found += [
        wire.RuleAnswer(
            rule=one.rule,
            offset=one.offset,
            in_force=False,
            state=REFUSED,
            refused=one.message,
            field=one.field or UNSET,
        )
        for one in rules.refused
    ]
    return sorted(found, key=lambda one: one.offset)


def _offset(rules: RuleSet) -> int | UnsetType:
    """Return what an answer says of the rules."""
    return rules.offset if rules.rules else UNSET


def _diversity(placement: Placement, strength: float | None) -> Diversity:
    """Return how a slate is re-ranked: as asked for, or else as the workers do it."""
    return placement.diversity if strength is None else placement.diversity._replace(strength=strength)


def _both(one: Filter | None, other: Filter | None) -> Filter | None:
    """Return a filter that holds where both do."""
    parts = tuple(part for part in (one, other) if part is not None)
    return Every(parts) if len(parts) > 1 else next(iter(parts), None)


def _filter(document: dict[str, Any] | None) -> Filter | None:
    """Return a request's filter. Raises ProblemError, which names the part that is wrong."""
    try:
        return None if document is None else parse_filter(document)
    except FilterError as error:
        raise ProblemError("invalid", str(error), field=error.path[:FIELD]) from None


def _most_named(rows: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the names that most rows have, the most frequent first."""
    return heapq.nsmallest(wire.MOST_LABELS, rows, key=lambda name: (-len(rows[name]), name))


def _checked(values: dict[str, str], kind: Any) -> Any:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise refused(error, values) from None


def _without(items: Sequence[Scored], exclude: Sequence[str], n: int) -> list[Scored]:
    """Return the first n items that are not excluded."""
    hidden = frozenset(exclude)
    return [one for one in items if one.item not in hidden][:n]


def _lived(record: bytes | None) -> bytes | None:
    """Return a state record; None for one without events: the user was forgotten, and it will be deleted."""
    return None if record is not None and interest.is_empty(record) else record


def _as_recommendation(slate: wire.Slate) -> Recommendation:
    """Return a slate as the recommendations topic has it: one of a state without new events, so it is a replay."""
    now = int(time.time() * 1000)
    return Recommendation(
        user=slate.user, slate=f"{slate.chain[:16]}-{now:x}", seq=slate.seq, chain=slate.chain, items=slate.items, time=now,
        latency_ms=-1, events=[], applied=slate.applied, catalogue=slate.catalogue, bundle=slate.bundle,
        strategy=slate.strategy, replay=True, rules=slate.rules, diversity=slate.diversity or UNSET,
        placement=slate.placement, tables=slate.tables,
    )  # fmt: skip


def routes(api: Api) -> tuple[Route, ...]:
    """Return the table of all routes."""
    slate = {200: (wire.Slate, "The slate")}
    items = {200: (wire.Items, "The items")}
    answer = ("invalid", "not-ready", "late", "overloaded")
    about_user = (*answer, "misdirected")
    write = ("not-accepted", "media-type", "broker", "not-ready")
    done = "The record is acknowledged by all replicas"
    return (
        Route(
            "POST", "/v1/events", api.post_events, WRITE,
            "Write one event, a list, or one a line (NDJSON). Acceptable events are written even if others are refused.",
            {200: (wire.EventResults, "All are acknowledged"), 207: (wire.EventResults, "Some are refused; see each")},
            media=(JSON, NDJSON), problems=(*write, "invalid"),
        ),
        Route(
            "GET", "/v1/users/{user}/recommendations", api.recommend, READ,
            "The best items for a user; for an unknown user the popular ones.",
            slate, query=wire.SlateQuery, problems=about_user,
        ),
        Route(
            "POST", "/v1/users/{user}/recommendations", api.recommend, READ,
            "The same, with the parameters in the body.",
            slate, body=wire.SlateQuery, media=(JSON,), problems=(*about_user, "media-type"),
        ),
        Route(
            "GET", "/v1/users/{user}/stream", api.stream, READ,
            "The user's slates now, of each published placement, and each new one, as server-sent events `slate` with a "
            "recommendation (messages.md).",
            {200: (EVENTS, "Events until the client goes away")}, streams=True, problems=about_user,
        ),
        Route(
            "GET", "/v1/users/{user}", api.user, ADMIN, "A user's state and last events.",
            {200: (wire.User, "The state")}, query=wire.OffsetQuery, problems=(*about_user, "not-found"),
        ),
        Route(
            "DELETE", "/v1/users/{user}", api.forget, ADMIN,
            "Forget a user: delete the state, the last events and the slate. It cannot be undone.",
            {202: (wire.ForgetAccepted, "The control records are written")},
            problems=("invalid", "misdirected", "broker", "not-ready"),
        ),
        Route(
            "POST", "/v1/sessions/recommendations", api.session, READ,
            "The best items for a visitor whose events are in the body. Nothing is kept.",
            slate, body=wire.SessionQuery, media=(JSON,),
            problems=("invalid", "not-ready", "overloaded", "media-type"),
        ),
        Route(
            "POST", "/v1/rerank", api.rerank, READ, "Put candidates in the order of a user's interest.",
            {200: (wire.Ranked, "The candidates")}, body=wire.RerankQuery, media=(JSON,),
            problems=(*about_user, "media-type"),
        ),
        Route(
            "GET", "/v1/popular", api.popular, READ, "The items with the most interactions in training.",
            items, query=wire.PopularQuery, problems=answer,
        ),
        Route(
            "GET", "/v1/trending", api.trending, READ,
            "The items whose interactions have grown most, counted by this server over the users that it serves.",
            {200: (wire.Trending, "The items")}, query=wire.TrendingQuery, problems=("invalid", "not-ready"),
        ),
        Route(
            "GET", "/v1/items/{item}/similar", api.similar, READ, "The live items that are most like an item.",
            items, query=wire.SimilarQuery, problems=(*answer, "not-found"),
        ),
        Route(
            "GET", "/v1/items", api.items, READ,
            "Live items by words of their titles, or else the popular ones; or the items that the request names.",
            {200: (wire.CatalogueItems, "The items")}, query=wire.ItemsQuery, problems=answer,
        ),
        Route(
            "GET", "/v1/catalogue", api.catalogue, READ,
            "The catalogue's size, categories and scenes, and the settings that a client needs.",
            {200: (wire.CatalogueAnswer, "The catalogue")}, query=wire.OffsetQuery, problems=answer,
        ),
        Route(
            "GET", "/v1/figures", api.show_figures, READ,
            "Events per second and the time from an event to its slate, counted while a client follows slates.",
            {200: (wire.Figures, "The figures")},
        ),
        Route(
            "GET", "/v1/items/{item}", api.item, READ, "An item as the catalogue has it.",
            {200: (wire.ItemAnswer, "The item")}, query=wire.OffsetQuery, problems=(*answer, "not-found"),
        ),
        Route(
            "PUT", "/v1/items/{item}", api.put_item, ADMIN, "Write an item. The body's item is that of the address.",
            {200: (wire.ItemWritten, done)}, media=(JSON,), problems=(*write, "invalid"), raw=Item,
        ),
        Route(
            "DELETE", "/v1/items/{item}", api.delete_item, ADMIN, "Remove an item, known or not: `existed` says which.",
            {200: (wire.ItemRemoved, done)}, problems=("invalid", "broker", "not-ready"),
        ),
        Route(
            "GET", "/v1/rules", api.rules, READ, "All rules, those that are refused, too.",
            {200: (wire.RuleAnswers, "The rules")}, query=wire.OffsetQuery, problems=answer,
        ),
        Route(
            "GET", "/v1/rules/{rule}", api.rule, READ, "A rule as the rules topic has it.",
            {200: (wire.RuleAnswer, "The rule")}, query=wire.OffsetQuery, problems=(*answer, "not-found"),
        ),
        Route(
            "PUT", "/v1/rules/{rule}", api.put_rule, ADMIN, "Write a rule. The body's rule is that of the address.",
            {200: (wire.RuleWritten, done)}, media=(JSON,), problems=(*write, "invalid"), raw=Rule,
        ),
        Route(
            "DELETE", "/v1/rules/{rule}", api.delete_rule, ADMIN, "Delete a rule, known or not: `existed` says which.",
            {200: (wire.RuleDeleted, done)}, problems=("invalid", "broker", "not-ready"),
        ),
        Route("GET", "/", api.root, "", "To the description.", {307: ("text/plain", "/docs")}, open=True, documented=False),
        Route(
            "GET", "/favicon.ico", api.icon, "", "The icon.", {200: ("image/svg+xml", "The icon")}, open=True,
            documented=False,
        ),
        Route("GET", "/openapi.json", api.document, "", "This description.", {200: (JSON, "OpenAPI 3.1")}, open=True),
        Route("GET", "/docs", api.page, "", "The description for people.", {200: ("text/html", "A page")}, open=True),
        Route(
            "GET", "/demo", api.show_demo, "", "A page on which events move slates.", {200: ("text/html", "A page")},
            open=True,
        ),
        Route(
            "GET", "/demo/{file}", api.show_demo, "", "A file of that page.", {200: ("*/*", "The file")},
            problems=("not-found",), open=True,
        ),
        Route(
            "GET", "/metrics", api.show_metrics, "", "Metrics for Prometheus.",
            {200: ("text/plain", "Prometheus text format")}, open=True, unlimited=True,
        ),
        Route(
            "GET", "/healthz", api.alive, "", "Whether the process works.", {200: (wire.Alive, "It does")}, open=True,
            unlimited=True,
        ),
        Route(
            "GET", "/readyz", api.is_ready, "", "Whether requests are answered.",
            {200: (wire.Ready, "They are"), 503: (wire.Ready, "They are not yet")}, open=True, unlimited=True,
        ),
    )  # fmt: skip
