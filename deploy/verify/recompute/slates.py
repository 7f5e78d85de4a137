"""Slates scored again from the states that they show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from deploy.verify.keys import ANYONE_KEY
from deploy.verify.recent_events import recents
from deploy.verify.recompute.context import Context
from deploy.verify.recompute.diversity import Pool, Walk, wrong_place
from deploy.verify.recompute.epochs import Made, counts_of, gone_back
from deploy.verify.recompute.events import COMMENT
from deploy.verify.recompute.filters import holds
from deploy.verify.recompute.items import LiveItems
from deploy.verify.recompute.reissues import without_reason
from deploy.verify.recompute.rules import Effect, Reranking, Rules, Viewer, choices, effect, misplaced
from deploy.verify.recompute.sample import SampledUser, Slate
from stream.core.features import UNKNOWN
from stream.core.score_tables import ScoreTables
from stream.core.state import MAX_SEEN, Interest, Recent
from stream.settings import DEFAULT_PLACEMENT, Placement, placement_of

NEAR = 1e-3
"""Scores closer than this count as equal."""

ALIKE: Final = 1e-5
"""Decayed counts are float32; zeros are equal up to TINY."""
TINY: Final = 1e-9

ENOUGH = 20
"""Times the slate's size: more items are scored only if one of the slate is not found."""


class Feed(NamedTuple):
    """What the score graph reads besides h and the items.

    Attributes:
        seen: int64 [S, 2], rows that must not appear.
        recent: int64 [R, 3], rows of the last choices.
        count: int64 [1], the number of events.
        tables: Those of the slate's epoch; None for the bundle's own.
    """

    seen: Any
    recent: Any
    count: Any
    tables: ScoreTables | None


def _size(placement: Placement) -> int:
    return placement.size or 0  # placement_of always says it


class Slates:
    """Scores all items by a state, and compares the best ones with a slate."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._report = context.report
        self._effects: dict[tuple[int, str, int, tuple[str, ...], bool], Effect] = {}
        self._views: dict[tuple[int, str], LiveItems] = {}
        self._made: list[Made] = []
        settings = context.settings
        self._placements = {name: placement_of(settings, name) for name in settings.placement_names}

    def check(
        self,
        user: SampledUser,
        states: list[tuple[int, Interest]],
        slates: list[tuple[int, Slate]],
        live: dict[int, LiveItems],
    ) -> None:
        """Check each slate of a user by the states of its chain and of this bundle's model.

        After a change of the bundle and back there may be several such states, each with other numbers. Those with the slate's
        `applied` are preferred, and the slate is right if it fits one of them.
        """
        by_chain: dict[str, list[Interest]] = {}
        claims: dict[str, int] = {}
        for offset, state in states:
            by_chain.setdefault(state.chain.hex(), []).append(state)
            claims.setdefault(state.chain.hex(), user.claims.get(offset, 0))
        for offset, slate in slates:
            if (
                slate["events"] and not slate["replay"] and slate["chain"] in claims
            ):  # by the worker that folded its events
                made = user.partition, claims[slate["chain"]], offset, slate.get("tables", 0), user.key, slate["seq"]
                self._made.append(Made(*made))
            known = by_chain.get(slate["chain"])
            if known is None or slate["strategy"] != "interest":
                continue  # deploy.verify.slates reports it
            if slate["bundle"] != self._context.bundle.id:
                self._leave_out(slate)
                continue
            shown = self._shown(known, slate)
            if not shown:
                self._report.numbers_unverifiable += 1
                continue
            placement = self._placements.get(slate.get("placement", DEFAULT_PLACEMENT))
            if placement is None:
                continue  # deploy.verify.slates reports it
            if not self._is_tabled(user, offset, slate):
                continue
            self._report.ranked += 1
            items = self._view(slate, live[slate["catalogue"]], placement)
            if "withdrawn" in slate:
                self._check_reason(user, offset, slate, live[slate["catalogue"]])
            wrong = ""
            for state in shown:
                if "rules" in slate:
                    viewer = Viewer(slate["user"], user.key, slate["seq"], slate["time"])
                    wrong = self._misruled(state, items, slate, viewer, placement)
                else:
                    strength = float(slate.get("diversity", 0.0))
                    wrong = self._misranked(state, items, slate, strength, placement)
                if not wrong:
                    break
            if wrong and self._lost(slate):
                continue
            mixed = len({state.model for state in known}) > 1
            if wrong and (not items.whole or (mixed and user.holes)):  # the slate's own state may be gone
                self._report.numbers_unverifiable += 1
            elif wrong:
                self._add(wrong, user.key, slate["seq"], user.partition, offset)

    def check_order(self) -> None:
        """Check that no worker has gone back to an older epoch of the tables. Called once all slates were checked."""
        for slate, newest in gone_back(self._made):
            message = f"it names epoch {slate.tables} of the tables, but the same worker named epoch {newest} before"
            position = self._context.settings.recommendations_topic, slate.partition, slate.offset
            self._context.add("epoch-stale", message, slate.key, slate.seq, position)

    def _is_tabled(self, user: SampledUser, offset: int, slate: Slate) -> bool:
        """Return whether the tables that a slate names are known; report it if it cannot have been made with them."""
        if "tables" not in slate:
            return True
        epochs = self._context.epochs
        if wrong := epochs.impossible(slate["tables"], slate["time"]):
            position = self._context.settings.recommendations_topic, user.partition, offset
            self._context.add("epoch-unknown", wrong, user.key, slate["seq"], position)
            return False
        if slate["tables"] in epochs.found:
            return True
        self._context.lost_tables += 1
        self._report.numbers_unverifiable += 1
        return False

    def _check_reason(self, user: SampledUser, offset: int, slate: Slate, live: LiveItems) -> None:
        """Check that the items which a re-issued slate names as withdrawn could no longer be shown."""
        viewer = Viewer(slate["user"], user.key, slate["seq"], slate["time"])
        ruled = "rules" in slate
        moments = choices(self._context.rules[slate["rules"]], viewer) if ruled else [()]
        wrong = without_reason(
            slate,
            live,
            self._context.items.row,
            moments,
            lambda rules: self._effect(slate, rules, live, filtered=False),
        )
        if not wrong or self._lost(slate):
            return
        if live.whole:
            position = self._context.settings.recommendations_topic, user.partition, offset
            self._context.add("reissue", wrong, user.key, slate["seq"], position)
        else:
            self._report.numbers_unverifiable += 1

    def check_anyone(self, partition: int, offset: int, slate: Slate, items: Mapping[int, LiveItems]) -> None:
        """Check the slate for anyone unknown: it holds the live items with the most interactions, each with its count."""
        bundle = self._context.bundle
        if slate["bundle"] != bundle.id:
            self._leave_out(slate)
            return
        live = items[slate["catalogue"]]
        counts = self._popular(partition, offset, slate, live)
        if counts is None:
            return
        self._report.ranked += 1
        if "rules" in slate:
            wrong = self._anyone_misruled(slate, live, counts)
            if wrong and not self._lost(slate):
                if live.whole:
                    self._add(wrong, ANYONE_KEY, 0, partition, offset)
                else:
                    self._report.numbers_unverifiable += 1
            return
        best = np.sort(counts[live.bias == 0])[::-1][: self._context.settings.slate_size]
        scored = [(self._context.items.row(live, one["item"]), one["score"]) for one in slate["items"]]
        near, zero = (
            (ALIKE, TINY) if "tables" in slate else (0.0, 0.0)
        )  # counts of training are the same on every machine
        right = len(scored) == len(best) and all(
            live.bias[row] == 0 and np.allclose([counts[row], highest], score, rtol=near, atol=zero)
            for (row, score), highest in zip(scored, best, strict=True)
        )
        if right:
            return
        if not live.whole:
            self._report.numbers_unverifiable += 1
            return
        message = "the items are not the most popular live ones with their counts"
        self._add(message, ANYONE_KEY, 0, partition, offset)

    def _popular(self, partition: int, offset: int, slate: Slate, live: LiveItems) -> NDArray[np.float64] | None:
        """Return what the slate for anyone unknown ranks by, f64 [rows]; None if its epoch is not known, which is reported."""
        if "tables" not in slate:
            trained = self._context.bundle.popularity
            counts = np.zeros(len(live.bias))
            counts[: len(trained)] = trained[: len(counts)]
            return counts
        epochs, number = self._context.epochs, slate["tables"]
        if wrong := epochs.impossible(number, slate["time"]):
            position = self._context.settings.recommendations_topic, partition, offset
            self._context.add("epoch-unknown", wrong, ANYONE_KEY, 0, position)
            return None
        if number not in epochs.found:
            self._context.lost_tables += 1
            self._report.numbers_unverifiable += 1
            return None
        trending = self._context.settings.popular_by == "trending"
        row_of = partial(self._context.items.row, live)
        return counts_of(epochs.found[number], row_of, len(live.bias), trending=trending)

    def _lost(self, slate: Slate) -> bool:
        """Return whether the rules of a slate that does not fit may be gone, and count it then."""
        lost = "rules" in slate and not self._context.rules[slate["rules"]].whole
        self._context.lost_rules += lost
        self._report.numbers_unverifiable += lost
        return lost

    def _view(self, slate: Slate, live: LiveItems, placement: Placement) -> LiveItems:
        """Return the items, of which only those that the placement's filter allows are live."""
        wanted = placement.filter
        if wanted is None:
            return live
        key = slate["catalogue"], slate.get("placement", DEFAULT_PLACEMENT)
        found = self._views.get(key)
        if found is None:
            names = self._context.items.names
            bias = live.bias.copy()
            for row in np.flatnonzero(bias == 0).tolist():
                if not holds(wanted, names[row], live.bodies.get(row, {}), live=True):
                    bias[row] = -np.inf
            found = self._views[key] = replace(live, bias=bias)
        return found

    def _misruled(self, state: Interest, live: LiveItems, slate: Slate, viewer: Viewer, placement: Placement) -> str:
        """Return what is wrong with a slate under its rules; "" if it fits those of one moment before it was sent."""
        feed = self._feed(state, live, placement, slate)
        seen = {self._context.items.names[row] for _, row in feed[0].tolist()}
        wrong = ""
        for rules in choices(self._context.rules[slate["rules"]], viewer):
            found = self._effect(slate, rules, live, filtered=placement.filter is not None)
            bias = np.array([-np.inf if one is None else one for one in found.added], np.float32)
            best = self._best(state, replace(live, bias=bias), feed, len(live.matrix))
            reranking = self._reranking(state, live, best, float(slate.get("diversity", 0.0)), placement)
            wrong = self._misplaced(slate, found, best, seen, live, _size(placement), reranking)
            if not wrong:
                break
        return wrong

    def _reranking(
        self, state: Interest, live: LiveItems, best: dict[str, float], strength: float, placement: Placement
    ) -> Reranking | None:
        """Return how a slate of this strength was re-ranked; None if it was not."""
        if not strength:
            return None
        size = self._candidates(placement)

        def walk(names: Sequence[str]) -> Walk:
            return Walk(self._pool(live, names, best, size), self._own(state, live), strength)

        return Reranking(strength, 2 * size, walk)

    def _candidates(self, placement: Placement) -> int:
        return max(_size(placement), self._context.settings.diversity_candidates)

    def _pool(self, live: LiveItems, names: Sequence[str], best: dict[str, float], size: int) -> Pool:
        rows = [self._context.items.row(live, name) for name in names]
        return Pool(
            np.array([best[name] for name in names], np.float64),
            live.matrix[rows],
            [live.categories.get(row, frozenset()) for row in rows],
            min(len(rows), size),
        )

    def _own(self, state: Interest, live: LiveItems) -> list[frozenset[str]]:
        """Return the categories of the user's last choices."""
        return [live.categories.get(row, frozenset()) for row in self._chosen(recents(state.recent), live)]

    def _anyone_misruled(self, slate: Slate, live: LiveItems, popularity: NDArray[np.float64]) -> str:
        """Return what is wrong with the slate for anyone unknown under its rules. popularity: See `_popular`."""
        names, wrong = self._context.items.names, ""
        for rules in choices(self._context.rules[slate["rules"]], Viewer("", b"", 0, slate["time"])):
            found = self._effect(slate, rules, live, filtered=False)
            counts = {
                names[row]: (float(popularity[row]) if row < len(popularity) else 0.0) * math.exp(added)
                for row, added in enumerate(found.added)
                if added is not None
            }
            best = dict(sorted(counts.items(), key=lambda one: -one[1]))
            wrong = self._misplaced(slate, found, best, set(), live, self._context.settings.slate_size)
            if not wrong:
                break
        return wrong

    def _effect(self, slate: Slate, rules: Rules, live: LiveItems, *, filtered: bool) -> Effect:
        """Return what rules do to live items, of which a filter may have left some out."""
        names = tuple(rule.rule for rule in rules)
        key = slate["catalogue"], slate.get("placement", DEFAULT_PLACEMENT), slate.get("rules", -1), names, filtered
        found = self._effects.get(key)
        if found is None:
            found = self._effects[key] = effect(rules, self._context.items.names, live.bodies, live.bias.tolist())
        return found

    def _misplaced(
        self,
        slate: Slate,
        found: Effect,
        best: dict[str, float],
        seen: set[str],
        live: LiveItems,
        size: int,
        reranking: Reranking | None = None,
    ) -> str:
        items = self._context.items
        allowed = {
            place: item
            for place, item in found.pins.items()
            if place < size and item not in seen and (row := items.row(live, item)) and found.added[row] is not None
        }
        categories = {items.names[row]: body.get("categories") or () for row, body in live.bodies.items()}
        return misplaced(slate["items"], size, best, allowed, found.caps, categories, reranking)

    def _leave_out(self, slate: Slate) -> None:
        """Count a slate of another bundle, unless that one is judged, too."""
        if self._context.counts and slate["bundle"] not in self._context.judged:
            self._context.other_slates += 1
            self._report.numbers_unverifiable += 1

    def _shown(self, known: list[Interest], slate: Slate) -> list[Interest]:
        """Return those of the states with the slate's chain that it may show."""
        mine = [state for state in known if state.model == self._context.bundle.state_model]
        applied = sorted(offset for offset in slate["applied"].values() if offset >= 0)
        exact = [state for state in mine if sorted(offset for offset in state.applied if offset >= 0) == applied]
        return [state for state in exact or mine if self._context.fits(state)]

    def _misranked(self, state: Interest, live: LiveItems, slate: Slate, strength: float, placement: Placement) -> str:
        """Return what is wrong with a slate of this strength of diversity; "" if nothing is."""
        items = slate["items"]
        feed = self._feed(state, live, placement, slate)
        size, candidates = _size(placement), self._candidates(placement)
        best: dict[str, float] = {}
        for k in (max(ENOUGH * size, 2 * candidates if strength else 0), len(live.matrix)):
            best = self._best(state, live, feed, min(k, len(live.matrix)))
            if all(scored["item"] in best for scored in items):
                break
        top = list(best.values())[:size]
        if len(items) != len(top):
            return f"the slate has {len(items)} items, expected {len(top)}"
        for rank, (scored, expected) in enumerate(zip(items, top, strict=True)):
            name, score = scored["item"][:100], scored["score"]
            mine = best.get(scored["item"])
            if mine is None:
                return f"item {name!r} is not live, or the user has seen it"
            if abs(mine - score) > NEAR or (not strength and abs(mine - expected) > NEAR):
                return f"rank {rank}: {name!r} at {score:g}, but it scores {mine:g}; expected {expected:g}"
        return self._wrong_order(state, live, items, best, strength, candidates) if strength else ""

    def _wrong_order(
        self,
        state: Interest,
        live: LiveItems,
        items: list[dict[str, Any]],
        best: dict[str, float],
        strength: float,
        candidates: int,
    ) -> str:
        """Return what is wrong with the order of a re-ranked slate; "" if nothing is. best: item -> score, best first."""
        names = list(best)
        pool = self._pool(live, names, best, candidates)
        own = self._own(state, live)
        place, short = wrong_place([names.index(scored["item"]) for scored in items], pool, own, strength)
        if place < 0:
            return ""
        return (
            f"rank {place}: {items[place]['item'][:100]!r}, but with diversity {strength:g} another item is better there by "
            f"{short:g}; the setting diversity_candidates must be the workers'"
        )

    def _feed(self, state: Interest, live: LiveItems, placement: Placement, slate: Slate) -> Feed:
        """Return what the score graph reads besides h and the items."""
        recent = recents(state.recent)
        seen = np.frombuffer(state.seen, np.uint32)
        if len(seen) >= MAX_SEEN:
            seen = np.union1d(seen, np.array([crc32(event.item.encode()) for event in recent], np.uint32))
        hidden = self._context.items.named(seen, len(live.matrix)) if placement.filter_seen else []
        chosen = self._chosen(recent, live)[: self._context.models.last]
        tables, number = None, slate.get("tables", 0)
        if number:
            tables = self._context.epochs.over(
                number, slate["catalogue"], lambda item: self._context.items.row(live, item), len(live.matrix)
            )
        return Feed(
            np.array([(0, row) for row in hidden], np.int64).reshape(-1, 2),
            np.array([(0, row, age) for age, row in enumerate(chosen)], np.int64).reshape(-1, 3),
            np.array([state.seq], np.int64),
            tables,
        )

    def _chosen(self, recent: list[Recent], live: LiveItems) -> list[int]:
        """Return the rows of the items that the user chose last, the newest first."""
        models = self._context.models
        return [
            row
            for event in reversed(recent)
            if event.behaviour in models.choices
            and event.action not in models.refused
            and (event.behaviour != COMMENT or not math.isnan(event.value))
            and (row := self._context.items.row(live, event.item)) != UNKNOWN
        ]

    def _best(self, state: Interest, live: LiveItems, feed: Feed, k: int) -> dict[str, float]:
        """Return the k best items -> their scores, best first."""
        seen, recent, count, tables = feed
        scores, order = self._context.models.score(
            state.h[None], live.score_items, live.bias, seen, recent, count, k, tables
        )
        pairs = zip(order[0].tolist(), scores[0].tolist(), strict=True)
        return {self._context.items.names[row]: score for row, score in pairs if not math.isinf(score)}

    def _add(self, message: str, key: bytes, seq: int, partition: int, offset: int) -> None:
        position = self._context.settings.recommendations_topic, partition, offset
        self._context.add("ranking", message, key, seq, position)
