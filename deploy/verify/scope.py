"""What a check covers, and which offsets that covers."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.clients.envelopes import ENVELOPES
from deploy.clients.log_reader import Log, Span, TopicPartition
from deploy.verify.accepted_settings import Accepts, setting
from stream.core import times
from stream.core.errors import DataError, SettingsError
from stream.settings import Settings
from stream.settings.settings import MOST_RATING

RUN_IN = 20_000
"""How many records are read before the first one to check, per topic-partition.

A state that folded some events from before the range and some in it can then be checked like any other. This is more than a
micro-batch and all events held behind comments."""

MARGIN_MS = 600_000
"""How long before the oldest record to check the reading of slates and dead letters begins. Clocks differ."""

REISSUE_LIMIT = 300.0
"""Seconds, as in the alert FreshetReissuesSlow."""

SWAP_LIMIT = 300.0
"""Seconds."""


@dataclass(frozen=True)
class Scope:
    """What to check, and by what.

    Attributes:
        wait: Seconds within which the group must have committed what is there now.
        since: Check records appended at or after this time (epoch ms).
        until: Check records appended before this time (epoch ms).
        starts: The first offset to check, of the partitions for which one is given.
        producer_log: File in which a producer records its sends.
        data_dirs: Data folders of stopped workers.
        bundle: A bundle's folder, or a folder of bundles with CURRENT. Its models compute states again.
        users: Number of users whose states are computed again; 0: all users.
        min_time: The workers' min_time, if it differs from the setting.
        min_time_before: PLACE=VALUE of earlier values (deploy.verify.accepted_settings).
        rating_scale: The workers' rating scale, if it differs from the setting.
        rating_scale_before: PLACE=VALUE of earlier scales; a VALUE is LOW,HIGH.
        envelope_before: PLACE=VALUE of earlier values of `envelope`.
        published_before: PLACE=VALUE of earlier values of `published`; a VALUE is the names, with commas.
        reissue_limit: Seconds within which slates that show a withdrawn item must be re-issued.
        tables: Whether to count the newest epoch of the tables again.
        swap_limit: Seconds within which the owners of partitions must have followed or refused an activation.
    """

    wait: float = 0.0
    since: int | None = None
    until: int | None = None
    starts: dict[TopicPartition, int] = field(default_factory=dict)
    producer_log: Path | None = None
    data_dirs: tuple[Path, ...] = ()
    bundle: Path | None = None
    users: int = 20
    min_time: str | None = None
    min_time_before: Sequence[str] = ()
    rating_scale: tuple[float, float] | None = None
    rating_scale_before: Sequence[str] = ()
    envelope_before: Sequence[str] = ()
    published_before: Sequence[str] = ()
    reissue_limit: float = REISSUE_LIMIT
    tables: bool = False
    swap_limit: float = SWAP_LIMIT

    @property
    def ranged(self) -> bool:
        return self.since is not None or bool(self.starts)

    def accepts(
        self, settings: Settings, partitions: Collection[TopicPartition], bundled: tuple[float, float] | None = None
    ) -> Accepts:
        """Return the settings by which the workers accepted each record.

        Args:
            settings: Settings of the deployment.
            partitions: All source partitions.
            bundled: The bundle's rating scale. It holds unless another one is set.

        Raises:
            DataError: An earlier value is malformed.
            SettingsError: A rating scale is set that is not the bundle's.
        """
        topics = settings.sources
        oldest = settings.oldest if self.min_time is None else _oldest(self.min_time)
        scale = self.rating_scale or settings.rating_scale
        if bundled is not None and scale != bundled:
            if self.rating_scale is not None or "rating_scale" in settings.model_fields_set:
                raise SettingsError(
                    f"rating_scale: found {json.dumps(scale)}, expected {json.dumps(bundled)}, the scale on which the bundle of "
                    "--bundle was trained: leave out the scale, give the bundle that was served, or name the end of an earlier "
                    "scale with --rating-scale-before"
                )
            scale = bundled
        return Accepts(
            setting("--rating-scale-before", scale, self.rating_scale_before, _scale, topics, partitions),
            setting("--min-time-before", oldest, self.min_time_before, times.parse, topics, partitions),
            setting("--envelope-before", settings.envelope, self.envelope_before, _envelope, topics, partitions),
            setting(
                "--published-before",
                settings.published,
                self.published_before,
                lambda text: _published(text, settings.placement_names),
                topics,
                partitions,
            ),
        )

    def due(self, log: Log, spans: dict[TopicPartition, Span]) -> dict[TopicPartition, tuple[int, int]]:
        """Return (from, to) of the source records to check, within `spans`.

        Raises DataError if a start does not name a source partition.
        """
        for tp in self.starts:
            if tp not in spans:
                raise DataError(f"--from-offset {tp[0]}/{tp[1]}: not a partition of a source topic")
        since = log.at(dict.fromkeys(spans, self.since)) if self.since is not None else {}
        until = log.at(dict.fromkeys(spans, self.until)) if self.until is not None else {}
        found = {}
        for tp, span in spans.items():
            begin = max(span.start, self.starts.get(tp, since.get(tp, span.start)))
            end = min(span.end, until.get(tp, span.end))
            found[tp] = min(begin, span.end), max(end, min(begin, span.end))
        return found

    def view(
        self, due: dict[TopicPartition, tuple[int, int]], spans: dict[TopicPartition, Span]
    ) -> dict[TopicPartition, Span]:
        """Return what to read of the sources: from a little before the first record to check, to the end."""
        return {tp: Span(max(span.start, due[tp][0] - RUN_IN), span.end) for tp, span in spans.items()}


def _oldest(text: str) -> int:
    try:
        return times.parse(text)
    except ValueError as error:
        raise DataError(f"--min-time {text}: {error}") from None


def _envelope(text: str) -> str:
    """Read a value of `envelope`. Raises ValueError."""
    if text not in ENVELOPES:
        raise ValueError(f"expected one of {', '.join(ENVELOPES)}")
    return text


def _published(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read the names of placements. Raises ValueError."""
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r}: expected names of placements with commas, out of {', '.join(known)}")
    return names


def _scale(text: str) -> tuple[float, float]:
    """Read LOW,HIGH or LOW HIGH. Raises ValueError."""
    try:
        low, high = map(float, text.replace(",", " ").split())
    except ValueError:
        low = high = 0.0
    if not -MOST_RATING <= low < high <= MOST_RATING:
        raise ValueError(f"expected LOW,HIGH, the smallest rating below the largest, both within {MOST_RATING:g}")
    return low, high
