"""The tally's RocksDB: what is written comes back, offsets and sums together, and a folder that is not ours is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.core.errors import FreshetError, SettingsError
from stream.tally.counting import Changed, ItemSums, Sums
from stream.tally.store import MARK, Meta, TallyStore


def written(folder: Path) -> tuple[Meta, Sums]:
    """A folder with some sums, closed."""
    store = TallyStore(folder)
    assert store.open() == Meta()
    sums = Sums({"a": ItemSums(1 << 90, 5, 2), "ä\0": ItemSums(3, 4, 1)}, now=7)
    for first, second, total in (("a", "ä\0", 1 << 80), ("ä\0", "a", 3), ("a", "b", 9)):
        sums.set_pair(first, second, total)
    pairs = {(first, second) for first, row in sums.ahead.items() for second in row}
    changed = Changed({b"u": b"record", b"v": b"other"}, set(sums.items), pairs)
    meta = Meta("shape", 5, "cluster", {"clicks": "id"}, {"clicks/0": 12}, 7)
    store.write(meta, sums, changed)
    store.close()
    return meta, sums


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    meta, sums = written(tmp_path / "t")
    store = TallyStore(tmp_path / "t")
    assert store.open() == meta
    assert store.load(meta) == sums
    assert store.read([b"v", b"unknown", b"u"]) == [b"other", None, b"record"]
    store.close()
    store.close()


def test_what_is_gone_is_deleted(tmp_path: Path) -> None:
    meta, sums = written(tmp_path / "t")
    store = TallyStore(tmp_path / "t")
    store.open()
    del sums.items["ä\0"]
    sums.set_pair("a", "b", 0)
    store.write(meta, sums, Changed({b"u": None}, {"ä\0"}, {("a", "b")}))
    assert store.load(meta) == sums
    assert store.read([b"u", b"v"]) == [None, b"other"]
    store.close()


def test_a_beginning_from_nothing(tmp_path: Path) -> None:
    written(tmp_path / "t")
    store = TallyStore(tmp_path / "t")
    store.open()
    assert store.begin_again() == Meta()
    assert store.load(Meta()) == Sums()
    store.close()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_text("x")
    with pytest.raises(SettingsError, match=r"photo.png and no file FRESHET-TALLY"):
        TallyStore(tmp_path).open()
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]


def test_a_folder_in_use_is_said(tmp_path: Path) -> None:
    store = TallyStore(tmp_path / "t")
    store.open()
    with pytest.raises(SettingsError, match="is in use by another"):
        TallyStore(tmp_path / "t").open()
    store.close()


def test_damage_is_said(tmp_path: Path) -> None:
    written(tmp_path / "t")
    (manifest,) = (tmp_path / "t" / "sums").glob("MANIFEST-*")
    manifest.write_bytes(b"x" * 100)
    with pytest.raises(FreshetError, match="is damaged") as error:
        TallyStore(tmp_path / "t").open()
    assert error.value.exit_code == 70
    assert (tmp_path / "t" / MARK).exists()
