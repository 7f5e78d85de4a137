"""The replica's RocksDB: only states that count, where it was left, and what does not fit is read back."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from stream.core.errors import DiskError, SettingsError
from stream.core.fencing_log import CLAIM_KEY, Claim, Written, encode, stamp
from stream.core.keys import FORMS, user_of
from stream.gateway.replica_store import ORIGIN, REACHED, Reached, ReplicaStore


def store(folder: Path, id: str = "one") -> ReplicaStore:  # noqa: A002
    return ReplicaStore(folder, "cluster", "app-interest-changelog", id)


def state(offset: int, user: bytes, value: bytes, epoch: int) -> Written:
    return Written(offset, user, value, stamp(epoch))


def claim(offset: int, epoch: int) -> Written:
    return Written(offset, CLAIM_KEY, encode(Claim(epoch, uuid.uuid4().hex, 0)), stamp(epoch))


def test_claims_are_respected_and_fenced_records_left_out(tmp_path: Path) -> None:
    found = store(tmp_path)
    assert found.open(0) == Reached()
    sifted = found.apply(0, [claim(0, 1), state(1, b"ann", b"1", 1), claim(2, 2), state(3, b"ann", b"stale", 1)], 5)
    assert (len(sifted.fenced), sifted.forged) == (1, [])
    assert found.read(0, b"ann") == b"1"
    forged = found.apply(0, [claim(4, 9_000_000), state(5, b"ann", b"forged", 9_000_000), state(6, b"*", b"x", 2)], 5)
    assert (len(forged.fenced), len(forged.forged)) == (1, 2)
    assert (found.read(0, b"ann"), found.read(0, b"*")) == (b"1", None)
    found.apply(0, [state(7, b"ann", b"2", 2)], 6)
    assert found.read(0, b"ann") == b"2"
    found.close()
    again = store(tmp_path)
    assert again.open(0) == Reached(7, 6)
    assert again.read(0, b"ann") == b"2"
    assert again.claim(0).epoch == 2  # and so a stale record that comes later is fenced, too
    again.apply(0, [state(8, b"ann", b"stale", 1)], 6)
    assert again.read(0, b"ann") == b"2"
    again.close()


def test_a_folder_of_another_changelog_or_with_damage_is_read_back(tmp_path: Path) -> None:
    found = store(tmp_path)
    found.open(0)
    found.apply(0, [state(0, b"ann", b"1", 0)], 0)
    found.close()
    other = store(tmp_path, "another")
    assert other.open(0) == Reached()
    assert other.read(0, b"ann") is None
    other.apply(0, [state(0, b"ann", b"1", 0)], 0)
    other.close()
    for file in (tmp_path / "states-0").glob("MANIFEST-*"):
        file.write_bytes(b"damaged")
    again = store(tmp_path, "another")
    assert again.open(0) == Reached()
    again.apply(0, [state(0, b"ann", b"1", 0)], 0)
    again.mark_damaged(0)
    again.close()
    assert store(tmp_path, "another").open(0) == Reached()


@pytest.mark.parametrize("file", ["states-0/thesis.txt", "states-0/CURRENT", "states-0.damaged", "notes.txt"])
def test_a_folder_that_no_gateway_made_is_refused_and_left_alone(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("my thesis")
    with pytest.raises(SettingsError, match=r"not made by `freshet serve`.*set FRESHET_REPLICA_DIR to a new or empty"):
        store(tmp_path).open(0)
    assert [one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("*") if one.is_file()] == [file]


def test_a_strange_file_among_rocksdbs_is_not_deleted(tmp_path: Path) -> None:
    found = store(tmp_path)
    found.open(0)
    found.mark_damaged(0)
    found.close()
    thesis = tmp_path / "states-0" / "thesis.txt"
    thesis.write_text("my thesis")
    before = sorted(thesis.parent.iterdir())
    with pytest.raises(SettingsError, match=r"found .*thesis.txt, which is not a file of RocksDB.*nothing was deleted"):
        store(tmp_path).open(0)
    assert sorted(thesis.parent.iterdir()) == before
    thesis.unlink()
    again = store(tmp_path)
    assert again.open(0) == Reached()
    again.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "below", "Not a directory")):
        with pytest.raises(DiskError, match=f"replica_dir: {folder} cannot be used: {reason}"):
            store(folder).open(0)


def test_two_gateways_do_not_share_a_folder(tmp_path: Path) -> None:
    found = store(tmp_path)
    found.open(0)
    with pytest.raises(SettingsError, match="in use by another `freshet serve`"):
        store(tmp_path).open(0)
    found.close()


def test_no_user_has_the_keys_of_the_folders_own_notes() -> None:
    for key in (REACHED, ORIGIN, CLAIM_KEY):
        assert all(user_of(key, form) is None for form in FORMS)
