"""The folders of stopped workers, over real RocksDB: each holds the changelog's head up to its offset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import rocksdict

from deploy.verify import Report, Scope, check
from deploy.verify.local_store import OFFSET_KEY
from stream.core import state as state_module
from stream.core.errors import DataError
from stream.kafka.user_notes import EXPOSED
from tests.unit.deploy.verify.worlds import ALICE, eventful, small, states
from tests.unit.synthetic import World, partition_of


def stored(
    world: World,
    folder: Path,
    offset: int | None = None,
    change: Callable[[dict[bytes, bytes]], object] = lambda values: None,
) -> Report:
    """RocksDB as a worker leaves it: the changelog's values up to an offset (all), then changed."""
    for partition, found in enumerate(world.log.topics[world.settings.changelog_topic]):
        head = len(found) - 1 if offset is None else offset
        path = folder / "v1" / "tables" / f"interest-{partition}.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {row.key or b"": row.value or b"" for row in found if row.offset <= head}
        if partition == partition_of(ALICE):
            change(values)
        database = rocksdict.Rdict(str(path), options=rocksdict.Options(raw_mode=True))
        for key, value in values.items():
            database[key] = value
        database[OFFSET_KEY] = b"%d" % head
        database.close()
    return check(world.log, world.settings, scope=Scope(data_dirs=(folder,)))


def test_a_folder_that_is_the_changelogs_head(tmp_path: Path) -> None:
    world = eventful()
    report = stored(world, tmp_path)
    assert report.violations == []
    assert (report.stored, report.stored_ahead, report.exit_code) == (report.users, 0, 0)


def test_a_folder_with_notes_of_states_to_be_written_again(tmp_path: Path) -> None:
    report = stored(small(), tmp_path, change=lambda values: values.update({EXPOSED.prefix + ALICE.encode(): b""}))
    assert report.violations == []
    assert report.exit_code == 0


def test_a_folder_that_stopped_earlier(tmp_path: Path) -> None:
    report = stored(small(), tmp_path, offset=0)
    assert report.violations == []


def test_a_folder_whose_last_write_did_not_know_its_offset(tmp_path: Path) -> None:
    world = small()
    last = states(world)[0][states(world)[1][-1]].value or b""
    report = stored(world, tmp_path, 0, lambda values: values.update({ALICE.encode(): last}))
    assert report.violations == []
    assert report.stored_ahead == 1


def put(world: World, change: Callable[[state_module.Interest], None]) -> Callable[[dict[bytes, bytes]], None]:
    def changed(values: dict[bytes, bytes]) -> None:
        state = state_module.decode(values[ALICE.encode()])
        change(state)
        values[ALICE.encode()] = state_module.encode(state)

    return changed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: setattr(state, "seq", 9), "does not have"),
        (lambda state: setattr(state, "chain", bytes(16)), "does not have"),
    ],
)
def test_a_state_that_only_the_folder_has(
    tmp_path: Path, change: Callable[[state_module.Interest], None], says: str
) -> None:
    world = small()
    report = stored(world, tmp_path, change=put(world, change))
    assert report.kinds == {"store": 1}
    assert says in report.violations[0].message
    assert report.violations[0].user == ALICE


def test_an_older_state_than_the_folder_says(tmp_path: Path) -> None:
    world = small()
    first = states(world)[0][states(world)[1][0]].value or b""
    report = stored(world, tmp_path, change=lambda values: values.update({ALICE.encode(): first}))
    assert report.kinds == {"store": 1}
    assert "older" in report.violations[0].message


def test_a_state_that_the_folder_lacks(tmp_path: Path) -> None:
    report = stored(small(), tmp_path, change=lambda values: values.pop(ALICE.encode()))
    assert report.kinds == {"store": 1}


def test_a_folder_beyond_the_changelogs_end(tmp_path: Path) -> None:
    assert "store" in stored(small(), tmp_path, offset=99).kinds


@pytest.mark.parametrize("offset", [b"", b"x", b"-1", b"9" * 5000])
def test_a_folder_whose_offset_is_no_number(tmp_path: Path, offset: bytes) -> None:
    world = small()
    stored(world, tmp_path)
    path = tmp_path / "v1" / "tables" / f"interest-{partition_of(ALICE)}.db"
    database = rocksdict.Rdict(str(path), options=rocksdict.Options(raw_mode=True))
    database[OFFSET_KEY] = offset
    database.close()
    with pytest.raises(DataError, match="expected a number"):
        check(world.log, world.settings, scope=Scope(data_dirs=(tmp_path,)))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        check(small().log, small().settings, scope=Scope(data_dirs=(tmp_path / "none",)))
