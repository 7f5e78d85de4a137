"""The partitions' folders: whatever is done to their files, no state is taken for a new user's or is an older one."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import numpy as np
import pytest
import rocksdict
from faust.types import TP

from stream.core import state as interest
from stream.core.errors import DiskError, FreshetError, SettingsError
from stream.core.fencing_log import Written
from stream.core.messages import SourceEvent
from stream.kafka.state_store import DAMAGED, InterestStore, apply_changelog, interest_table
from tests.worker_process import until

LOG = TP("log", 0)
COUNT = 1000
BUSY = (
    "rocksdb.mem-table-flush-pending", "rocksdb.num-running-flushes", "rocksdb.num-running-compactions",
)  # fmt: skip


def opened(folder: Path, buffer: int = 64 << 10) -> tuple[Any, InterestStore]:
    app = faust.App("store-test", store="rocksdb://", datadir=str(folder))
    table = interest_table(app, 1)
    table.options["write_buffer_size"] = buffer
    app.conf.tabledir.mkdir(parents=True, exist_ok=True)
    return table, InterestStore(table)


def value(number: int) -> bytes:
    return b"%08d" % number + os.urandom(500)


def filled(folder: Path, first: int, last: int, *, compact: bool = True) -> None:
    """In a process that is killed, between two flushes: each user is written once, so that no later record makes good for
    a lost one. Spawned, not forked: RocksDB's threads do not come along."""
    child = multiprocessing.get_context("spawn").Process(target=_fill, args=(folder, first, last, compact))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


def _fill(folder: Path, first: int, last: int, compact: bool) -> None:
    table, store = opened(folder)
    store.prepare(0)
    if not compact:
        table.data._dbs[0].set_options({"disable_auto_compactions": "true"})
    for number in range(first, last):
        store.write(0, [(b"user%d" % number, value(number))], number)
    quiet_since = time.monotonic()

    def quiet() -> bool:
        """For half a second: one that is pending need not begin."""
        nonlocal quiet_since
        if any(map(table.data._dbs[0].property_int_value, BUSY)):
            quiet_since = time.monotonic()
        return time.monotonic() - quiet_since > 0.5

    until(quiet, 20, "flushed and compacted")
    os.kill(os.getpid(), signal.SIGKILL)


def partition(folder: Path) -> Path:
    (found,) = folder.glob("**/interest-0.db")
    return found


def test_a_strange_file_among_rocksdbs_is_not_deleted(tmp_path: Path) -> None:
    store = opened(tmp_path)[1]
    store.prepare(0)
    store.drop(0)
    thesis = store._path(0) / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("my thesis")
    (thesis.parent / "CURRENT").write_text("x")
    with pytest.raises(SettingsError, match=r"data_dir: found .*thesis.txt, .*set FRESHET_DATA_DIR to another folder"):
        opened(tmp_path)[1].prepare(0)
    assert [(thesis.parent / name).read_text() for name in ("CURRENT", "thesis.txt")] == ["x", "my thesis"]


def whole(store: InterestStore, count: int) -> None:
    """Every user up to the offset that the folder names is there, and none after it."""
    offset = store.offset(0)
    for number in range(count):
        (found,) = store.read(0, [b"user%d" % number])
        assert (found is not None) == (number <= offset), f"user{number} at offset {offset}"
        assert found is None or int(found[:8]) == number


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 states in several SSTs, a MANIFEST with their entries, and a log."""
    folder = tmp_path_factory.mktemp("store")
    filled(folder, 0, 200)
    filled(folder, 200, 500)
    filled(folder, 500, COUNT, compact=False)  # else it is a matter of timing how many SSTs are left
    assert len(list(partition(folder).glob("*.sst"))) > 2
    return folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def test_a_kill_loses_nothing(copy: Path) -> None:
    _, store = opened(copy)
    assert store.prepare(0)
    assert store.offset(0) == COUNT - 1
    whole(store, COUNT)


def test_a_manifest_cut_anywhere(original: Path, tmp_path: Path) -> None:
    (manifest,) = partition(original).glob("MANIFEST-*")
    size = manifest.stat().st_size
    sound = []
    for cut in range(0, size, 50):
        folder = Path(shutil.copytree(original, tmp_path / str(cut)))
        with (partition(folder) / manifest.name).open("r+b") as file:
            file.truncate(cut)
        table, store = opened(folder)
        sound.append(store.prepare(0))
        whole(store, COUNT)
        assert sound[-1] or store.offset(0) == -1
        table.data._dbs.pop(0).close()
        shutil.rmtree(folder)
    assert not all(sound)


@pytest.mark.parametrize("name", ["CURRENT", "*.sst", "MANIFEST-*", "*.log"])
@pytest.mark.parametrize("cut", [None, 0, 10])
def test_a_file_is_missing_or_cut(copy: Path, name: str, cut: int | None) -> None:
    file = sorted(partition(copy).glob(name))[0]
    if cut is None:
        file.unlink()
    else:
        with file.open("r+b") as out:
            out.truncate(cut)
    _, store = opened(copy)
    sound = store.prepare(0)
    assert sound == (name == "*.log"), "a log that is cut: an earlier offset, and all up to it"
    assert store.offset(0) >= 0 or not sound
    whole(store, COUNT)


def flipped(file: Path, index: int) -> None:
    content = bytearray(file.read_bytes())
    content[index] ^= 4
    file.write_bytes(content)


def test_a_flipped_bit_is_no_other_state(copy: Path) -> None:
    file = sorted(partition(copy).glob("*.sst"))[0]
    flipped(file, file.stat().st_size // 3)
    table, store = opened(copy)
    assert store.prepare(0), "RocksDB does not read the data when it opens"
    with pytest.raises(FreshetError, match="damaged, the next start reads it back: Corruption"):
        whole(store, COUNT)
    assert partition(copy).with_name("interest-0.db" + DAMAGED).exists()
    with suppress(Exception):  # a compaction may have met the flipped bit
        table.data._dbs.pop(0).close()
    _, store = opened(copy)
    assert not store.prepare(0)
    assert store.offset(0) == -1


def recovering(table: Any) -> Any:
    return SimpleNamespace(
        tp_to_table={LOG: table}, active_tps={LOG}, standby_tps=set(), active_offsets={}, standby_offsets={}, buffers={}
    )


def fails(table: Any, message: str) -> None:
    """Every write to the partition fails with `message`, as RocksDB's binding says it."""

    def write(batch: Any) -> None:
        raise Exception(message)

    database = table.data._dbs[0]
    table.data._dbs[0] = SimpleNamespace(get=database.get, iter=database.iter, write=write)


def recover(table: Any, store: InterestStore) -> None:
    apply_changelog(recovering(table), {LOG: [Written(0, b"user1", b"value", [])]})


def write(table: Any, store: InterestStore) -> None:
    store.write(0, [(b"user1", b"value")], 0)


@pytest.mark.parametrize("use", [recover, write])
def test_a_full_disk_is_no_damage(tmp_path: Path, use: Callable[[Any, InterestStore], None]) -> None:
    table, store = opened(tmp_path)
    store.prepare(0)
    fails(table, "IO error: No space left on device: While appending to file: 000004.log")
    with pytest.raises(DiskError, match=r"partition 0 of the table cannot be used: .*No space left"):
        use(table, store)
    assert not list(tmp_path.glob(f"**/*{DAMAGED}"))


@pytest.mark.parametrize("use", [recover, write])
def test_damage_is_marked_wherever_it_is_found(tmp_path: Path, use: Callable[[Any, InterestStore], None]) -> None:
    table, store = opened(tmp_path)
    store.prepare(0)
    fails(table, "Corruption: block checksum mismatch")
    with pytest.raises(FreshetError, match="damaged, the next start reads it back"):
        use(table, store)
    assert list(tmp_path.glob(f"**/*{DAMAGED}"))


def test_states_take_less_than_half_their_bytes_once_compacted(tmp_path: Path) -> None:
    """States of 64 events, h and c of 128 units. RocksDB's default layout takes 59 %."""
    chance = np.random.default_rng(0)
    states = {b"user%d" % user: _state(chance) for user in range(600)}
    _, store = opened(tmp_path)
    store.prepare(0)
    store.write(0, list(states.items()), len(states))
    (database,) = store._table.data._dbs.values()
    database.flush()
    forced = rocksdict.CompactOptions()
    forced.set_bottommost_level_compaction(rocksdict.BottommostLevelCompaction.force())
    database.compact_range(None, None, forced)
    assert store.read(0, list(states)) == list(states.values())
    lying = sum(file["size"] for file in database.live_files())
    assert lying < 0.5 * sum(map(len, states.values()))


def _state(chance: np.random.Generator) -> bytes:
    state = interest.new(bytes(16), 128)
    items, times = chance.zipf(1.3, 64) % 10_000, 1_700_000_000_000 + chance.exponential(3_600_000, 64).cumsum()
    for number, (item, time_) in enumerate(zip(items.tolist(), times.tolist(), strict=True)):
        event = SourceEvent(
            0, 0, number, 0, b"", f"item-{item}", int(time_), math.nan, "home", "", "", b"", action=""
        )  # fmt: skip
        interest.fold(state, event, "clicks")
    state.folded = []
    state.h, state.c = chance.standard_normal((2, 128)).astype(np.float16)
    return interest.encode(state)
