"""The figures by which tables are counted and read, and where each comes from: settings, the folder, the bundle. Pure.

The sums depend on COUNTED: sums of two half-lives do not mix. A new bundle with other ones may come every day, and counting
again needs records that may be deleted. So what the folder was counted with stays, unless an operator decides otherwise: by
a setting, or by `freshet tally --recount`. READ decides only how sums are read, and follows the newest bundle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from stream.inference.bundle import TablesEntry
from stream.settings import Settings

DAY: Final = 86_400_000
DEFAULTS: Final[Mapping[str, float]] = {
    "half_life": 1095.0, "prior_half_life": 365.0, "reach": 10, "decay": 0.8, "back": 0.5, "shrink": 5.0,
}  # fmt: skip
COUNTED: Final = ("half_life", "prior_half_life", "reach", "decay")
READ: Final = ("back", "shrink")
SETTING: Final = "setting"
FOLDER: Final = "folder"
BUNDLE: Final = "bundle"
DEFAULT: Final = "default"


class Figure(NamedTuple):
    """A figure, and where it comes from: SETTING, FOLDER, BUNDLE or DEFAULT. Half-lives are in days."""

    value: float
    source: str


def choose(settings: Settings, bundle: TablesEntry | None, kept: Mapping[str, float]) -> dict[str, Figure]:
    """Return the figures by name.

    Args:
        settings: A figure that is set there comes from there.
        bundle: What the bundle says; None for nothing.
        kept: What the sums of the folder were counted with, of COUNTED.
    """
    asked: dict[str, float | None] = {
        "half_life": settings.tally_half_life, "prior_half_life": settings.tally_prior_half_life,
        "reach": settings.tally_reach, "decay": settings.tally_decay, "back": settings.tally_back,
        "shrink": settings.tally_shrink,
    }  # fmt: skip
    found = {}
    for name, value in DEFAULTS.items():
        given = asked[name]
        if given is not None:
            found[name] = Figure(given, SETTING)
        elif name in kept:
            found[name] = Figure(kept[name], FOLDER)
        elif bundle is not None:
            found[name] = Figure(getattr(bundle, name), BUNDLE)
        else:
            found[name] = Figure(value, DEFAULT)
    return found


def kept_in(shape: str, given: tuple[str, ...]) -> dict[str, float]:
    """Return the figures of COUNTED that the sums of a folder were counted with, and that no setting had given.

    Args:
        shape: What the sums depend on, as stream.tally.process.shape_text writes it; "" for no sums.
        given: Names of the figures that settings had given.
    """
    try:
        fields = json.loads(shape)
        found = {
            "half_life": fields["half_life"] / DAY, "prior_half_life": fields["prior_half_life"] / DAY,
            "reach": fields["reach"], "decay": fields["decay"],
        }  # fmt: skip
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: value for name, value in found.items() if name not in given}


def passed_over(figures: Mapping[str, Figure], settings: Settings, bundle: TablesEntry | None) -> dict[str, Figure]:
    """Return the figures that a folder without sums would have, of those that the folder's sums have otherwise."""
    fresh = choose(settings, bundle, {})
    return {
        name: fresh[name]
        for name, figure in figures.items()
        if figure.source == FOLDER and _whole(name, figure.value) != _whole(name, fresh[name].value)
    }


def described(figures: Mapping[str, Figure]) -> dict[str, str]:
    """Return name -> value and source, for the log."""
    return {
        name: f"{figure.value:g}{' days' if 'half_life' in name else ''} ({figure.source})"
        for name, figure in figures.items()
    }


def half_life_ms(days: float) -> int:
    """Return a half-life in ms."""
    return round(days * DAY)


def _whole(name: str, value: float) -> float:
    return half_life_ms(value) if "half_life" in name else value
