"""Placements: named slates, and the part of the catalogue that each may show. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from stream.core.diversity import Diversity
from stream.core.filters import Filter


@dataclass(frozen=True)
class Placement:
    """How the slates of one placement are made.

    Attributes:
        name: Its name; "" for the default one.
        size: Maximum number of items.
        filtered: Which items may be in it; None: all.
        diversity: How they are re-ranked.
        filter_seen: Whether items that the user has interacted with are left out.
    """

    name: str
    size: int
    filtered: Filter | None
    diversity: Diversity
    filter_seen: bool


class Filterable(Protocol):
    """A view of the catalogue of which some items can be left out."""

    def where(self, filtered: Filter) -> Self: ...


Kind = TypeVar("Kind", bound=Filterable)


class Views(Generic[Kind]):
    """Filtered views of one catalogue, kept for as long as it is the same. One thread at a time may use it."""

    def __init__(self) -> None:
        self._of: Kind | None = None
        self._found: dict[Filter, Kind] = {}

    def of(self, catalogue: Kind, filtered: Filter | None) -> Kind:
        """Return the items for which a filter holds; all if it is None."""
        if filtered is None:
            return catalogue
        if self._of is not catalogue:
            self._of, self._found = catalogue, {}
        if filtered not in self._found:
            self._found[filtered] = catalogue.where(filtered)
        return self._found[filtered]
