"""A partition's folder that was filled from another changelog, over real RocksDB."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from stream.core.errors import LossError
from stream.core.fencing_log import CLAIM_KEY, Claim, Written, encode, stamp
from stream.kafka.state_store import InterestStore
from stream.kafka.store_identity import NOTE_KEY, Changelog, FolderCheck
from tests.stores import plain_store

OURS = Changelog("cluster-1", "app-interest-changelog", "id-1")
SOURCES = {"clicks": "a", "ratings": "b", "comments": "c"}


class Folder:
    """One data folder, opened as a worker of `ours` opens it."""

    def __init__(self, path: Path, *, accept_loss: bool = False) -> None:
        self._path = path
        self._accept_loss = accept_loss
        self.losses: list[str] = []

    def _lose(self, error: LossError) -> None:
        if not self._accept_loss:
            raise error
        self.losses.append(str(error))

    def opened(self, ours: Changelog, sources: dict[str, str] = SOURCES) -> tuple[InterestStore, int]:
        """The store, and up to where it is read back."""
        store = plain_store(self._path, ours.topic)
        damaged: list[int] = []
        offset = FolderCheck(store, ours, sources, lambda: damaged.append(0), self._lose).prepare(0)
        assert not damaged
        return store, offset

    def fill(self, ours: Changelog | None, claimed: dict[str, str] | None = None) -> None:
        """A worker of `ours` reads a claim and a state; None: one that leaves no note."""
        store = plain_store(self._path, "app-interest-changelog") if ours is None else self.opened(ours)[0]
        if ours is None:
            store.prepare(0)
        claim = encode(Claim(1, "0" * 32, 0, claimed or {}))
        store.apply(0, [Written(0, CLAIM_KEY, claim, stamp(1)), Written(1, b"ann", b"state", stamp(1))])
        close(store)


def close(store: InterestStore) -> None:
    store._table.data._dbs.pop(0).close()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "data")


def test_a_folder_of_the_same_changelog_is_taken(folder: Folder) -> None:
    folder.fill(OURS)
    store, offset = folder.opened(OURS)
    assert (offset, store.read(0, [b"ann"])) == (1, [b"state"])


@pytest.mark.parametrize(
    "elsewhere",
    [Changelog("cluster-2", OURS.topic, "id-2"), Changelog(OURS.cluster, "other-interest-changelog", "id-2")],
    ids=["of another cluster", "of another app_id"],
)
def test_a_folder_of_elsewhere_is_dropped_and_read_back(
    folder: Folder, elsewhere: Changelog, caplog: pytest.LogCaptureFixture
) -> None:
    folder.fill(elsewhere)
    store, offset = folder.opened(OURS)
    assert (offset, store.read(0, [b"ann"])) == (-1, [None])
    assert f"{elsewhere.topic} (id id-2) of cluster {elsewhere.cluster}" in caplog.text
    close(store)
    folder.fill(OURS)
    assert folder.opened(OURS)[1] == 1, "it is ours now"


def test_a_changelog_recreated_is_a_loss_and_the_folder_is_kept(folder: Folder) -> None:
    folder.fill(OURS)
    new = Changelog(OURS.cluster, OURS.topic, "id-2")
    with pytest.raises(LossError, match=r"recreated: it has the id id-2.* was read from id-1"):
        folder.opened(new)


def test_told_to_go_on_without_the_changelog_the_states_are_dropped(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data", accept_loss=True)
    folder.fill(OURS)
    assert folder.opened(Changelog(OURS.cluster, OURS.topic, "id-2"))[1] == -1
    assert len(folder.losses) == 1


def test_a_folder_without_a_note_is_taken_where_its_claim_proves_the_cluster(folder: Folder) -> None:
    folder.fill(None, SOURCES)
    store, offset = folder.opened(OURS)
    assert offset == 1
    close(store)
    store, _ = folder.opened(OURS, {"clicks": "of another"})
    assert store.read(0, [b"ann"]) == [b"state"], "the note was made"


@pytest.mark.parametrize("claimed", [{}, SOURCES | {"clicks": "z"}], ids=["no ids", "other ids"])
def test_a_folder_without_a_note_or_proof_is_read_back(folder: Folder, claimed: dict[str, str]) -> None:
    folder.fill(None, claimed)
    store, offset = folder.opened(OURS)
    assert (offset, store.read(0, [b"ann"])) == (-1, [None])


def test_a_broker_without_ids_leaves_the_folder_as_it_is(folder: Folder) -> None:
    folder.fill(OURS)
    store, offset = folder.opened(Changelog("", OURS.topic, ""))
    assert (offset, store.read(0, [b"ann"])) == (1, [b"state"])


def test_the_folder_of_another_partition_is_dropped_and_read_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its offset says nothing: states of its users would be taken for those of partition 0, whose own users would be new."""
    source = Folder(tmp_path / "source")
    store = plain_store(tmp_path / "source", OURS.topic)
    FolderCheck(store, OURS, SOURCES, lambda: None, source._lose).prepare(1)
    store.apply(1, [Written(7, b"ann", b"state of partition 1", stamp(1))])
    store._table.data._dbs.pop(1).close()
    (tmp_path / "source" / "1.db").rename(tmp_path / "source" / "0.db")
    store, offset = source.opened(OURS)
    assert (offset, store.read(0, [b"ann"])) == (-1, [None])
    assert f"records of partition 1 of {OURS.topic}" in caplog.text
    close(store)
    source.fill(OURS)
    assert source.opened(OURS)[1] == 1, "it is ours now"


def test_a_note_of_an_earlier_version_names_no_partition_and_is_taken(folder: Folder) -> None:
    folder.fill(OURS)
    store, _ = folder.opened(OURS)
    store.write(0, [(NOTE_KEY, msgspec.json.encode({"cluster": OURS.cluster, "topic": OURS.topic, "id": OURS.id}))], -1)
    close(store)
    store, offset = folder.opened(OURS)
    assert (offset, store.read(0, [b"ann"])) == (1, [b"state"])
    noted = store.read(0, [NOTE_KEY])[0] or b""
    assert msgspec.json.decode(noted)["partition"] == 0
