"""Replay the held-out events, closed loop per user: send, measure the time to the slate, look the item up in the slate before."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from deploy.demo.client import Feed, Slate
from deploy.demo.closed_loop import ClosedLoop, Held
from deploy.demo.hit_rate import HitCounter
from deploy.demo.progress import Board, Figures, Spot
from stream.core.errors import FreshetError

STALL: Final = 60.0  # seconds without any slate after which the demo gives up
LOOK: Final = 0.25  # seconds between two updates of the board
LATELY: Final = 2.0  # window of the recent rate, in seconds
LIVE_DRAWS: Final = 200  # draws of the bootstrap while the replay runs; the final figures use the default


class Replay:
    """Sends the held-out events and judges the slates.

    Args:
        feed: Sends events and reads slates.
        loop: Chooses the next events.
        hits: Counts the hits.
        board: Shows the progress.
        slates: Each user's newest slate at the start.
        titles: Item id -> title.
        spot: The user whose slate is shown.
        rate: Maximum number of events/s; 0 for as fast as slates arrive.
        publish: Called with the figures whenever they are computed.
    """

    def __init__(
        self,
        feed: Feed,
        loop: ClosedLoop,
        hits: HitCounter,
        board: Board,
        slates: Mapping[str, Slate],
        titles: Mapping[str, str],
        spot: str,
        rate: float,
        publish: Callable[[Figures], None],
    ) -> None:
        self._feed = feed
        self._loop = loop
        self._hits = hits
        self._board = board
        self._newest = dict(slates)
        self._titles = titles
        self._spot = spot
        self._spot_events = 0
        self._rate = rate
        self._publish = publish
        self._sent_at: dict[str, float] = {}
        self._reported: list[float] = []  # ms, as the slates report
        self._seen: list[float] = []  # ms, as this client measures
        self._lately: deque[tuple[float, int]] = deque()

    def run(self, alive: Callable[[], None], spots: int) -> Figures:
        """Run until a slate has shown every event.

        Args:
            alive: Called often. It raises if the worker has ended.
            spots: How many events the shown user has.

        Raises:
            FreshetError: No slate arrives for STALL seconds.
        """
        began = moved = looked = time.monotonic()
        sent = 0
        while not self._loop.finished:
            now = time.monotonic()
            allowed = int((now - began) * self._rate) + 1 - sent if self._rate else self._loop.total
            sent += self._send(self._loop.take(allowed)) if allowed > 0 else 0
            slates = self._feed.slates(0.002)
            now = time.monotonic()
            for slate in slates:
                self._take(slate, now, spots)
            if slates:
                moved = now
            elif now - moved > STALL:
                raise FreshetError(f"no slate for {STALL:g} s; {self._loop.under_way} events are waiting for theirs")
            if now - looked >= LOOK:
                looked = now
                alive()
                self._board.figures = self.figures(now, LIVE_DRAWS)
                self._publish(self._board.figures)
                self._board.note(_line(self._board.figures))
        found = self.figures(time.monotonic(), overall=time.monotonic() - began)
        self._board.figures = found
        self._publish(found)
        return found

    def _send(self, events: Sequence[Held]) -> int:
        """Send all events together, then wait for their positions. A slate may arrive before the position is known."""
        futures: list[tuple[Held, Any]] = []
        for event in events:
            slate = self._newest.get(event.user)
            if event.counted:
                self._hits.count(event.user, event.item, slate.items if slate else ())
            self._hits.had(event.user, event.item)
            self._sent_at[event.user] = time.monotonic()
            futures.append((event, self._feed.send(event.message)))
        for event, future in futures:
            self._loop.landed(event.user, *self._feed.position(future))
        return len(futures)

    def _take(self, slate: Slate, now: float, spots: int) -> None:
        before = self._newest.get(slate.user)
        if before is not None and slate.seq < before.seq:
            return
        self._newest[slate.user] = slate
        event = self._loop.shown(slate.user, slate.applied)
        if event is None:
            return
        self._seen.append(1000 * (now - self._sent_at.pop(slate.user)))
        if not slate.replay:
            self._reported.append(slate.latency_ms)
        if slate.user == self._spot:
            self._spot_events += 1
            self._board.spot = self._show(event, before, slate, spots)

    def _show(self, event: Held, before: Slate | None, now: Slate, spots: int) -> Spot:
        old = before.items if before else ()
        rank = old.index(event.item) if event.item in old else -1
        return Spot(now.user, self._spot_events, spots, event.words, rank, self._named(old), self._named(now.items))

    def _named(self, items: Sequence[str]) -> tuple[str, ...]:
        return tuple(self._titles.get(item) or item for item in items)

    @property
    def example(self) -> str:
        """An item to try by hand: the best of the shown slate."""
        newest = self._newest.get(self._spot)
        return newest.items[0] if newest and newest.items else next(iter(self._titles), "1")

    def follow(self, wait: float) -> None:
        """Show the newest slate of any user who gets one, without counting it."""
        for slate in self._feed.slates(wait):
            before = self._newest.get(slate.user)
            if before is not None and slate.seq < before.seq:
                continue
            self._newest[slate.user] = slate
            old = self._named(before.items) if before else ()
            self._board.spot = Spot(
                slate.user, slate.seq, slate.seq, "sent by another program", -1, old, self._named(slate.items)
            )

    def figures(self, now: float, draws: int = 2000, overall: float = 0.0) -> Figures:
        """Return the figures as of now.

        Args:
            now: The current monotonic time.
            draws: Number of draws of the bootstrap.
            overall: Seconds that the whole replay took, for the final rate; 0 while it runs.
        """
        self._lately.append((now, self._loop.done))
        while now - self._lately[0][0] > LATELY:
            self._lately.popleft()
        then, done = self._lately[0]
        seconds = overall or max(now - then, LOOK)
        rate = (self._loop.done - (0 if overall else done)) / seconds
        p50, p99 = _quantiles(self._reported)
        hits = self._hits.rate(draws)
        return Figures(
            self._loop.done, self._loop.total, rate, p50, p99, _quantiles(self._seen), hits if hits.counted else None
        )


def _quantiles(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 0.0
    p50, p99 = np.percentile(values, [50, 99])
    return float(p50), float(p99)


def _line(figures: Figures) -> str:
    text = f"{figures.done:,} of {figures.total:,} events, {figures.rate:,.0f}/s, p50 {figures.p50_ms:.0f} ms"
    if figures.hits is not None:
        text += f", hit rate {figures.hits.freshet:.3f}, popularity {figures.hits.popularity:.3f}"
    return text
