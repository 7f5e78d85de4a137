"""What a check is asked to judge, and which offsets that means."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.clients.envelopes import ENVELOPES
from deploy.clients.log_reader import Log, Place, Span
from deploy.verify.accepted_settings import Accepts, setting
from stream.core import times
from stream.core.errors import DataError, SettingsError
from stream.settings import Settings
from stream.settings.settings import MOST_RATING

RUN_IN = 20_000
"""Records read before the first that is judged, per topic-partition: a state that folded some from before the range and some
in it can then be judged like any other. More than a micro-batch and all events held behind comments."""

MARGIN_MS = 600_000
"""Slates and letters are read from so long before the oldest record that is judged: clocks differ."""


@dataclass(frozen=True)
class Scope:
    """wait: seconds until the group must have committed what is there now; since, until: epoch ms of append times, until is
    exclusive; starts: first offsets to judge; ledger: the producer's; data_dirs: of stopped workers; bundle: a bundle's
    folder, or a folder of bundles with CURRENT, whose models compute states again, of so many `users` (0: of all); min_time: what
    the workers have, where it is not the setting; min_time_before: PLACE=VALUE of former ones (deploy.verify.accepted_settings);
    rating_scale, rating_scale_before: the same of the scale, a VALUE is LOW,HIGH; envelope_before: former ones of `envelope`."""

    wait: float = 0.0
    since: int | None = None
    until: int | None = None
    starts: dict[Place, int] = field(default_factory=dict)
    ledger: Path | None = None
    data_dirs: tuple[Path, ...] = ()
    bundle: Path | None = None
    users: int = 20
    min_time: str | None = None
    min_time_before: Sequence[str] = ()
    rating_scale: tuple[float, float] | None = None
    rating_scale_before: Sequence[str] = ()
    envelope_before: Sequence[str] = ()

    @property
    def ranged(self) -> bool:
        return self.since is not None or bool(self.starts)

    def accepts(
        self, settings: Settings, places: Collection[Place], bundled: tuple[float, float] | None = None
    ) -> Accepts:
        """What the workers took, record by record. places: all source partitions; bundled: the scale of the bundle, which counts
        where nobody has said another one. Raises DataError where it is told wrongly, SettingsError where two contradict."""
        topics = settings.sources
        oldest = settings.oldest if self.min_time is None else _oldest(self.min_time)
        scale = self.rating_scale or settings.rating_scale
        if bundled is not None and scale != bundled:
            if self.rating_scale is not None or "rating_scale" in settings.model_fields_set:
                raise SettingsError(
                    f"rating_scale: found {json.dumps(scale)}, expected {json.dumps(bundled)}, on which the bundle of --bundle "
                    "was trained: leave it out, give the bundle that was served, or say by --rating-scale-before until where "
                    "another one held"
                )
            scale = bundled
        return Accepts(
            setting("--rating-scale-before", scale, self.rating_scale_before, _scale, topics, places),
            setting("--min-time-before", oldest, self.min_time_before, times.parse, topics, places),
            setting("--envelope-before", settings.envelope, self.envelope_before, _envelope, topics, places),
        )

    def due(self, log: Log, spans: dict[Place, Span]) -> dict[Place, tuple[int, int]]:
        """(from, to) of the source records that are judged, within `spans`. Raises DataError where a start names no partition."""
        for place in self.starts:
            if place not in spans:
                raise DataError(f"--from-offset {place[0]}/{place[1]}: no partition of a source topic")
        since = log.at(dict.fromkeys(spans, self.since)) if self.since is not None else {}
        until = log.at(dict.fromkeys(spans, self.until)) if self.until is not None else {}
        found = {}
        for place, span in spans.items():
            begin = max(span.start, self.starts.get(place, since.get(place, span.start)))
            end = min(span.end, until.get(place, span.end))
            found[place] = min(begin, span.end), max(end, min(begin, span.end))
        return found

    def view(self, due: dict[Place, tuple[int, int]], spans: dict[Place, Span]) -> dict[Place, Span]:
        """What is read of the sources: from a little before, to the end."""
        return {place: Span(max(span.start, due[place][0] - RUN_IN), span.end) for place, span in spans.items()}


def _oldest(said: str) -> int:
    try:
        return times.parse(said)
    except ValueError as error:
        raise DataError(f"--min-time {said}: {error}") from None


def _envelope(said: str) -> str:
    """Raises ValueError."""
    if said not in ENVELOPES:
        raise ValueError(f"expected one of {', '.join(ENVELOPES)}")
    return said


def _scale(said: str) -> tuple[float, float]:
    """LOW,HIGH or LOW HIGH. Raises ValueError."""
    try:
        low, high = map(float, said.replace(",", " ").split())
    except ValueError:
        low = high = 0.0
    if not -MOST_RATING <= low < high <= MOST_RATING:
        raise ValueError(f"expected LOW,HIGH, the smallest rating below the largest, both within {MOST_RATING:g}")
    return low, high
