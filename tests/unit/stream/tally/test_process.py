"""What the tally takes from settings and bundle, and when it counts everything again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stream.core.errors import LossError
from stream.core.features import InputSpec
from stream.core.tables import EpochClosed
from stream.settings import load
from stream.tally.counting import Changed, ItemSums, Sums
from stream.tally.process import TallyProcess, shape_text, table_settings
from stream.tally.store import Meta

DAY = 86_400_000
IDS = {"clicks": "c", "ratings": "r", "comments": "m", "items": "i"}


def bundle(neighbours: int = 0, **spec: Any) -> Any:
    return SimpleNamespace(
        id="b", spec=InputSpec((0.5, 5.0), (), 384, **spec), blend=SimpleNamespace(neighbours=neighbours)
    )


def closed(**changed: Any) -> EpochClosed:
    values: dict[str, Any] = {
        "epoch": 3, "landmark": 77, "now": 99, "near_half_life": 1, "prior_half_life": 1, "back": 0.5, "shrink": 5.0,
        "keep": 2, "reach": 10, "decay": 0.8, "cap": 3, "offsets": {"clicks/0": 7}, "rows": 2, "hash": "0" * 64,
        "bundle": "b", "created": 5,
    }  # fmt: skip
    return EpochClosed(**values | changed)


def test_settings_of_the_tables() -> None:
    given = table_settings(load(tally_back=0.3, tally_half_life=2), bundle(40, choices=("ratings",)), 5)
    assert given.back == 307 / 1024
    assert (given.keep, given.bundle) == (40, "b")
    assert (given.shape.near.half_life, given.shape.near.landmark, given.shape.prior.half_life) == (
        2 * DAY,
        5,
        365 * DAY,
    )
    assert given.shape.chosen == frozenset([1])
    assert given.shape.weights["purchase"] == 3.0
    assert table_settings(load(tally_keep=7), bundle(40), 5).keep == 7
    assert table_settings(load(), bundle(), 5).keep == 100


class Started:
    """A process whose folder is open, as after the start of its clients."""

    def __init__(self, folder: Path, newest: EpochClosed | None = None, begins: int = 0, **values: Any) -> None:
        self.settings = load(tally_dir=folder, **values)
        self.process = TallyProcess(self.settings, bundle(), IDS, "k")
        self.process._publisher.closed = newest
        self.process._begins = {"clicks/0": begins}

    def prepare(self, **meta: Any) -> Meta:
        """Prepare with a folder that holds one item. meta: what differs in what it is made of."""
        process = self.process
        found = process._store.open()
        if meta:
            shape = table_settings(self.settings, bundle(), 5).shape
            values: dict[str, Any] = {
                "shape": shape_text(shape, "utf8"), "landmark": 5, "cluster": "k", "topics": dict(list(IDS.items())[:3]),
                "offsets": {"clicks/0": 9}, "now": 8,
            }  # fmt: skip
            found = Meta(**values | meta)
            process._store.write(found, Sums({"a": ItemSums(1, 1, 1)}), Changed(items={"a"}))
        try:
            process._prepare(found)
        finally:
            process._store.close()
        return process._meta


def test_what_fits_is_kept(tmp_path: Path) -> None:
    started = Started(tmp_path / "t", closed(), begins=4)
    meta = started.prepare(now=8)
    assert (meta.offsets, meta.landmark) == ({"clicks/0": 9}, 5)
    assert started.process._sums.items == {"a": ItemSums(1, 1, 1)}


@pytest.mark.parametrize(
    ("values", "newest", "landmark"),
    [
        ({}, None, 946_684_800_000),
        ({}, closed(), 77),
        ({"tally_landmark": "1970-01-02"}, closed(), DAY),
        ({"min_time": "off"}, None, 0),
    ],
)
def test_the_landmark_of_a_new_folder(
    tmp_path: Path, values: dict[str, Any], newest: EpochClosed | None, landmark: int
) -> None:
    meta = Started(tmp_path / "t", newest, **values).prepare()
    assert (meta.landmark, meta.offsets) == (landmark, {})


@pytest.mark.parametrize(
    ("values", "meta"),
    [
        ({"tally_reach": 3}, {"shape": "other"}),
        ({"tally_landmark": "2020-01-01"}, {"now": 8}),
        ({}, {"cluster": "another"}),
        ({}, {"topics": {"clicks": "recreated"}}),
    ],
)
def test_what_does_not_fit_is_counted_again(
    tmp_path: Path, values: dict[str, Any], meta: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    started = Started(tmp_path / "t", None, **values)
    assert started.prepare(**meta).offsets == {}
    assert started.process._sums == Sums()
    assert "everything is counted again" in caplog.text
    lost = Started(tmp_path / "lost", None, begins=4, **values)
    with pytest.raises(LossError, match="cannot be counted again"):
        lost.prepare(**meta)
    accepted = Started(tmp_path / "accepted", None, begins=4, accept_loss=True, **values)
    assert accepted.prepare(**meta).offsets == {}
    assert accepted.process._metrics.registry.get_sample_value("freshet_tally_accepted_losses_total") == 1


def test_an_empty_folder_needs_what_the_newest_epoch_had_counted(tmp_path: Path) -> None:
    with pytest.raises(LossError, match="tally_dir is empty"):
        Started(tmp_path / "t", closed(), begins=4).prepare()
    assert Started(tmp_path / "u", None, begins=4).prepare().offsets == {}
