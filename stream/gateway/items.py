"""The catalogue of the gateway: the worker's, and the items' own messages, for `GET items`.

A view is one snapshot with some items left out. Everything that is scored together is scored on one view.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.catalogue.catalogue import DEAD, Catalogue, ItemVectors, Rejected, Snapshot
from stream.catalogue.popularity import TRAINING, popular_items
from stream.core.errors import RecordError
from stream.core.features import UNKNOWN
from stream.core.filters import SCENE, Every, Filter, Named
from stream.core.json_body import JsonDecoder
from stream.core.messages import Item, Scored
from stream.core.ruling import Selection
from stream.gateway.search import Titles, folded
from stream.inference.bundle import Bundle

MOST_VIEWS: Final = 64
POPULAR: Final = 256
"""Most items that are ranked by popularity at once: those of a slate and those that a request excludes."""

_ITEM: Final = JsonDecoder(Item)


class View:
    """A snapshot, and what follows from it. Immutable; what is computed late is the same each time."""

    def __init__(self, snapshot: Snapshot, popularity: NDArray[np.float32], by: str = TRAINING) -> None:
        self.snapshot = snapshot
        self._popularity = popularity
        self._by = by
        self._popular: tuple[Selection | None, list[Scored]] | None = None
        self._norms: NDArray[np.float32] | None = None

    def popular(self, selection: Selection | None = None) -> list[Scored]:
        """Return the most popular live items by the setting `popular_by`, at most POPULAR, best first.

        Rules may move some of them.
        """
        kept = self._popular
        if kept is None or kept[0] is not selection:
            found = popular_items(self._popularity, self.snapshot, POPULAR, selection, self._by)
            kept = self._popular = selection, found
        return kept[1]

    def counts(self, items: Collection[str]) -> list[Scored]:
        """Return live items by their number of interactions in training, best first, equal counts in the order given."""
        rows = [row for item in items if (row := self.snapshot.row(item)) != UNKNOWN and self.snapshot.bias[row] == 0]
        count = [float(self._popularity[row]) if row < len(self._popularity) else 0.0 for row in rows]
        order = sorted(range(len(rows)), key=lambda index: -count[index])
        return [Scored(self.snapshot.item(rows[index]), count[index]) for index in order]

    def similar(self, row: int, n: int, selection: Selection | None = None) -> list[Scored]:
        """Return the n live items whose vectors have the largest cosine with that of a row, without that row.

        Items that rules leave out are left out; rules change nothing else.
        """
        snapshot = self.snapshot
        if self._norms is None:
            self._norms = np.maximum(np.linalg.norm(snapshot.items, axis=1), np.float32(1e-12))
        scores = snapshot.items @ snapshot.items[row] / (self._norms * self._norms[row]) + snapshot.bias
        if selection is not None:
            scores[selection.bias == DEAD] = DEAD
        scores[row] = DEAD
        k = min(n, len(scores))
        best = np.argpartition(-scores, k - 1)[:k]
        best = best[np.argsort(-scores[best], kind="stable")]
        return [Scored(snapshot.item(int(one)), round(float(scores[one]), 5)) for one in best if scores[one] > DEAD]

    def without(self, items: Collection[str]) -> View:
        """Return a view without some items."""
        snapshot = self.snapshot
        bias = snapshot.bias.copy()
        bias[[snapshot.row(item) for item in items]] = DEAD
        return View(replace(snapshot, bias=bias), self._popularity, self._by)

    def only(self, items: Collection[str]) -> View:
        """Return a view of some of the live items."""
        snapshot = self.snapshot
        rows = np.fromiter({snapshot.row(item) for item in items} - {UNKNOWN}, np.int64)
        bias = np.full(len(snapshot.bias), DEAD)
        bias[rows] = snapshot.bias[rows]
        return View(replace(snapshot, bias=bias), self._popularity, self._by)


class ItemCatalogue(Catalogue):
    """The catalogue with the items' messages. It has one writer thread, and any reader.

    Args:
        bundle: The bundle.
        item_vectors: As for Catalogue.
        by: The setting `popular_by`.
    """

    def __init__(self, bundle: Bundle, item_vectors: ItemVectors, by: str = TRAINING) -> None:
        super().__init__(bundle, item_vectors)
        self._by = by
        self._popularity = bundle.popularity
        self._values: dict[str, bytes] = {}
        self._titles: dict[str, str] = {}  # replaced, never changed: another thread may read it
        self._by_title: tuple[dict[str, str], Titles] = self._titles, Titles(())
        self._views: tuple[Snapshot, dict[Filter | None, View]] = self.snapshot, {}

    def apply(self, records: Sequence[tuple[int, bytes | None, bytes | None]]) -> list[Rejected]:
        """Apply records, as Catalogue does, and keep the accepted messages."""
        rejected = super().apply(records)
        refused = {one.offset for one in rejected}
        titles = dict(self._titles)
        for offset, key, value in records:
            if offset in refused or key is None:
                continue
            item = str(key, "utf-8")
            if value is None:
                self._values.pop(item, None)
                titles.pop(item, None)
            else:
                self._values[item] = value
                titles[item] = folded(_ITEM.decode(value).title)
        self._titles = titles
        return rejected

    @property
    def offset(self) -> int:
        """Offset in the items topic that views have."""
        return self.snapshot.offset

    def message(self, item: str) -> Item | None:
        """Return an item's message; None if the items topic has none."""
        value = self._values.get(item)
        try:
            return None if value is None else _ITEM.decode(value)
        except RecordError:  # it was accepted once, so this cannot be
            return None

    def titles(self) -> Titles:
        """Return the index of all titles. Any thread may call it: at worst, two make the same."""
        titles, snapshot = self._titles, self.snapshot
        made, index = self._by_title
        if made is titles:
            return index
        counts = {
            item: float(self._popularity[row])
            for item in titles
            if 0 < (row := snapshot.row(item)) < len(self._popularity)
        }
        index = Titles(sorted(titles.items(), key=lambda one: -counts.get(one[0], 0.0)))
        self._by_title = titles, index
        return index

    def view(self, scene: str | None = None, filtered: Filter | None = None) -> View:
        """Return the live items, or those of them that may be shown in a scene and for which a filter holds.

        An item without scenes may be anywhere.
        """
        snapshot = self.snapshot
        if self._views[0] is not snapshot:
            self._views = snapshot, {}
        views = self._views[1]
        wanted = filtered
        if scene is not None and (scenes := snapshot.columns.scenes()):
            named = Named(SCENE, (scene,) if scene in scenes else ())  # all that no item names share one view
            wanted = named if filtered is None else Every((named, filtered))
        found = views.get(wanted)
        if found is None:
            if len(views) >= MOST_VIEWS:
                views.clear()
            if wanted is not None:
                snapshot = snapshot.where(wanted)
            found = views[wanted] = View(snapshot, self._popularity, self._by)
        return found
