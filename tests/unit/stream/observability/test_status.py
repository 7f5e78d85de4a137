"""The status page: what it tells of bundle and catalogue, and that nothing of a bundle gets into it as markup."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from stream.core.features import InputSpec
from stream.inference.bundle import BlendEntry, Bundle, Card
from stream.observability.status import Live, page

EMPTY = np.zeros((1, 16), np.float32)
BUNDLE = Bundle(
    id="ab" * 32, folder=Path(), state_model=bytes(16), spec=InputSpec((1, 5), (), 384), item_dim=16, hidden=16,
    text_dim=384, max_tokens=64, item_ids=("a", "b"), items=EMPTY, popularity=EMPTY[0], parity={}, files={},
    blend=BlendEntry(20, 0.6, 0.5, 0.25, 2.0, 100),
    card=Card(
        "last item of each user", {"test NDCG@10": (0.05, 0.07)}, 12345, 91_000_000, 600.0, (1, 2),
        {"text.onnx": "Apache-2.0"},
    ),
    data={"name": "beauty", "sha256": "cd" * 32, "events": 198_502}, metrics={"test NDCG@10": 0.06, "test HR@10": 0.1},
)  # fmt: skip


class Text(HTMLParser):
    """The words of a page, and its tags."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(" ".join(data.split()))


def words(bundle: Bundle, live: Live) -> list[str]:
    return Text(page(bundle, "1.2", "cpu", live)).words


def test_what_a_person_reads() -> None:
    found = words(BUNDLE, Live((), 2, 3, 41))
    for text in (
        "ready", BUNDLE.id, "2 items", "3 items", "41", "beauty: 198502 events", "12,345 without the text network", "91.0 MB",
        "10 min; 1, 2", "weight 0.5: 100 of each of the last 20 choices, faded by 0.6", "weight 0.25, half of it after 2 events",
        "Apache-2.0", "Protocol: last item of each user", "0.0600", "0.0500 to 0.0700", "0.1000", "not known",
    ):  # fmt: skip
        assert text in found, text


def test_a_worker_that_is_not_ready_says_why() -> None:
    assert "not ready: joined, catalogue" in words(BUNDLE, Live(("joined", "catalogue"), 0, 2, -1))


def test_what_a_bundle_does_not_say() -> None:
    card = Card("", {}, 0, 0, 0.0, (), {})
    bare = replace(BUNDLE, card=card, data={}, metrics={}, blend=BlendEntry(20, 0.6, 0.0, 0.0, 2.0, 0))
    found = words(bare, Live((), 0, 0, -1))
    assert "No figures were measured." in found
    assert "not known; not known" in found
    assert found.count("none") == 2


def test_a_name_is_never_markup() -> None:
    data = {"name": "<script>alert(1)</script>", "sha256": "<img>", "events": 1}
    tags = Text(page(replace(BUNDLE, data=data), "<b>", "cpu", Live((), 0, 0, 0))).tags
    assert not tags & {"script", "img", "b"}
