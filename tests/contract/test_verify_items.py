"""`freshet verify` follows the items topic with code of its own: the same items are live, with the same vectors."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import numpy as np
import pytest

from deploy.verify.recompute.items import Items
from stream.catalogue.catalogue import Catalogue
from stream.inference.bundle import Bundle
from stream.inference.text_encoder import Encoder
from tests.unit.synthetic import NOW, Row


def records(seed: int) -> Iterator[Row]:
    """Items known and unknown to the bundle: made, changed, withdrawn, removed, made again, and what is not acceptable."""
    draw = random.Random(seed)
    names = ["item-1", "item-2", "new-1", "new-2", "new-3"]
    for offset in range(60):
        name = draw.choice(names)
        body: object = {"item": name, "title": draw.choice("abc"), "available": draw.random() < 0.8}
        kind = draw.random()
        if kind < 0.15:
            value = None
        elif kind < 0.3:
            value = draw.choice((b"", b"{", b"[]", b'{"item": "item-1"}', b'{"item": "other", "title": "t"}', b"\xff"))
        else:
            value = json.dumps(body).encode()
        key = draw.choice((None, b"", b"\xff")) if draw.random() < 0.05 else name.encode()
        yield Row(0, offset, NOW, key, value)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_items_are_live(bundle: Bundle, encoder: Encoder, seed: int) -> None:
    catalogue = Catalogue(bundle, encoder.item_vectors)
    items = Items(bundle, encoder)
    frozen = []
    for record in records(seed):
        catalogue.apply([(record.offset, record.key, record.value)])
        items.take(record)
        frozen.append((catalogue.snapshot, items.freeze(True)))
    names = ["item-1", "item-2", "item-3", "new-1", "new-2", "new-3", "never"]
    for snapshot, live in frozen:  # later records change nothing of what was frozen
        for name in names:
            mine, theirs = items.row(live, name), snapshot.row(name)
            assert np.array_equal(live.matrix[mine], snapshot.items[theirs])
            assert np.array_equal(live.score_items[mine], snapshot.score_items[theirs])
            assert live.bias[mine] == snapshot.bias[theirs]
        assert int((live.bias == 0).sum()) == snapshot.live
    assert {items.names[row] for row in np.flatnonzero(frozen[-1][1].bias == 0)} <= set(names)
