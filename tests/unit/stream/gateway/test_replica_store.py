"""The replica's RocksDB: only states that count, where it was left, and what does not fit is read back."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from stream.core.errors import SettingsError
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


def test_two_gateways_do_not_share_a_folder(tmp_path: Path) -> None:
    found = store(tmp_path)
    found.open(0)
    with pytest.raises(SettingsError, match="in use by another `freshet serve`"):
        store(tmp_path).open(0)
    found.close()


def test_no_user_has_the_keys_of_the_folders_own_notes() -> None:
    for key in (REACHED, ORIGIN, CLAIM_KEY):
        assert all(user_of(key, form) is None for form in FORMS)
