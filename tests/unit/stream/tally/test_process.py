"""What the tally takes from settings and bundle, and when it counts everything again."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stream.core.errors import LossError
from stream.core.features import InputSpec
from stream.core.tables import EpochClosed
from stream.inference.bundle import TablesEntry
from stream.settings import load
from stream.tally.counting import Changed, ItemSums, Sums
from stream.tally.figures import half_life_ms, kept_in
from stream.tally.process import TallyProcess, shape_text, table_settings
from stream.tally.store import Meta

DAY = 86_400_000
IDS = {"clicks": "c", "ratings": "r", "comments": "m", "items": "i"}


def bundle(neighbours: int = 0, counted: TablesEntry | None = None, **spec: Any) -> Any:
    return SimpleNamespace(
        id="b",
        spec=InputSpec((0.5, 5.0), (), 384, **spec),
        blend=SimpleNamespace(neighbours=neighbours),
        counted=counted,
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


ENTRY = TablesEntry(90.0, 30.0, 5, 0.9, 0.25, 20.0)
"""What a bundle says; the sums of `Started` were counted with the defaults."""


class Started:
    """A process whose folder is open, as after the start of its clients."""

    def __init__(
        self, folder: Path, newest: EpochClosed | None = None, begins: int = 0, counted: TablesEntry | None = None,
        recount: bool = False, **values: Any,
    ) -> None:  # fmt: skip
        self.settings = load(tally_dir=folder, **values)
        self.process = TallyProcess(self.settings, bundle(counted=counted), IDS, "k", recount=recount)
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


def counted_with(process: TallyProcess) -> tuple[float, float, int, float, float, float]:
    """Half-lives in days, reach, decay, back, shrink."""
    tables = process._tables
    near, prior = (decay.half_life / DAY for decay in (tables.shape.near, tables.shape.prior))
    return near, prior, tables.shape.pairs.reach, tables.shape.pairs.decay, tables.back, tables.shrink


def logged(caplog: pytest.LogCaptureFixture, part: str) -> logging.LogRecord:
    (found,) = [one for one in caplog.records if part in one.message]
    return found


def test_a_new_folder_takes_the_bundles_figures_unless_a_setting_says_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    started = Started(tmp_path / "t", counted=ENTRY, tally_reach=7)
    meta = started.prepare()
    assert counted_with(started.process) == (90, 30, 7, 0.9, 0.25, 20.0)
    assert meta.given == ("reach",)
    assert vars(logged(caplog, "by these figures"))["figures"] == {
        "half_life": "90 days (bundle)", "prior_half_life": "30 days (bundle)", "reach": "7 (setting)",
        "decay": "0.9 (bundle)", "back": "0.25 (bundle)", "shrink": "20 (bundle)",
    }  # fmt: skip


def test_a_new_bundle_changes_only_how_the_sums_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started = Started(tmp_path / "t", begins=4, counted=ENTRY)
    assert started.prepare(now=8).offsets == {"clicks/0": 9}
    assert counted_with(started.process) == (1095, 365, 10, 0.8, 0.25, 20.0)
    warned = vars(logged(caplog, "--recount"))
    assert warned["kept"] == {
        "half_life": "1095 days (folder)", "prior_half_life": "365 days (folder)", "reach": "10 (folder)",
        "decay": "0.8 (folder)",
    }  # fmt: skip
    assert set(warned["new"].values()) == {"90 days (bundle)", "30 days (bundle)", "5 (bundle)", "0.9 (bundle)"}


def test_a_bundle_with_the_figures_of_the_folder_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started = Started(tmp_path / "t", counted=TablesEntry(1095.0, 365.0, 10, 0.8, 0.5, 5.0))
    assert started.prepare(now=8).offsets == {"clicks/0": 9}
    assert not caplog.records


def test_recount_takes_the_bundles_figures(tmp_path: Path) -> None:
    started = Started(tmp_path / "t", counted=ENTRY, recount=True)
    assert started.prepare(now=8).offsets == {}
    assert counted_with(started.process) == (90, 30, 5, 0.9, 0.25, 20.0)
    with pytest.raises(LossError, match="cannot be counted again"):
        Started(tmp_path / "lost", begins=4, counted=ENTRY, recount=True).prepare(now=8)
    same = Started(tmp_path / "same", begins=4, recount=True)
    assert same.prepare(now=8).offsets == {"clicks/0": 9}  # there is nothing to count again


def test_a_setting_that_is_taken_back_counts_again(tmp_path: Path) -> None:
    shape = shape_text(table_settings(load(tally_reach=3), bundle(), 5).shape, "utf8")
    started = Started(tmp_path / "t", counted=ENTRY)
    assert started.prepare(shape=shape, given=("reach",)).offsets == {}
    assert counted_with(started.process)[:4] == (1095, 365, 5, 0.8)  # of the rest, what the folder had
    kept = Started(tmp_path / "kept", tally_reach=3, counted=ENTRY)
    assert kept.prepare(shape=shape, given=("reach",)).given == ("reach",)
    assert kept.process._sums.items == {"a": ItemSums(1, 1, 1)}


@pytest.mark.parametrize("days", [0.0, 0.1, 1 / 3, 90.0, 36_500.0])
def test_half_lives_come_back_from_the_folder_as_they_were(days: float) -> None:
    shape = shape_text(table_settings(load(tally_half_life=days), bundle(), 5).shape, "utf8")
    assert half_life_ms(kept_in(shape, ())["half_life"]) == half_life_ms(days)
    assert kept_in("", ()) == kept_in("[1]", ()) == kept_in("{}", ()) == {}
