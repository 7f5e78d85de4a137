"""What a placement is with all settings taken together."""

from __future__ import annotations

from stream.settings.placements import DEFAULT, Placement
from stream.settings.settings import Settings


def placement_of(settings: Settings, name: str) -> Placement:
    """Return a placement with all that the settings say of it; `diversity` is None if the bundle decides.

    Raises KeyError if there is none of this name.
    """
    own = Placement() if name == DEFAULT else settings.placements[name]
    return Placement(
        size=settings.slate_size if own.size is None else own.size,
        filter=own.filter,
        diversity=settings.diversity if own.diversity is None else own.diversity,
        filter_seen=settings.filter_seen if own.filter_seen is None else own.filter_seen,
    )
