"""Faults 12 to 15: a full disk, flipped bits and lost files in RocksDB's folders, a changelog that was cut off.

The folder is a cache of the changelog: whatever happens to it, no state of it may be taken for a new user's or an older one
go on. One worker, so that every partition that is damaged is opened again by it.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.clients.arguments import client_arguments
from deploy.verify import Report, Scope, run
from deploy.verify.local_store import LocalStore
from stream.core.errors import DataError
from stream.settings import Settings
from tests.chaos.outcomes import Outcome, record
from tests.chaos.steps import work
from tests.chaos.trial import RATE, Trial
from tests.worker_process import Events, WorkerProcess, until

Damage = Callable[[Path, random.Random], str]
MEGABYTES = 48  # of the small disk
USERS = 2000


# 12


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs at `folder` -> the file that can fill it. Skips the test where this process may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder / "filler"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> int:
    """Leave no byte -> how many were taken."""
    size = 1 << 20
    with file.open("ab", buffering=0) as out:
        while size:
            try:
                out.write(bytes(size))
            except OSError:
                size //= 2
    return file.stat().st_size


def full_disk(settings: Settings, bundles: Path, folder: Path, seed: int, *, rate: float = RATE) -> None:
    """Fault 12: the disk is full while the worker works, still full when it is started again, and before its first start."""
    with small_disk(folder / "data-w1") as filler:
        trial = Trial(
            12, "full disk", seed, settings, bundles, folder, workers=1, rate=rate, users=USERS, allowed=(74,)
        )
        worker = trial.workers[0]
        fill(filler)
        first = ends_full(worker.start())
        filler.unlink()
        with trial:
            trial.works(200)
            trial.pause(1, 4)
            taken = fill(filler)
            until(lambda: len(trial.exits) >= 1, 60, f"the worker stops:\n{worker.tail()}")
            at_work = last_words(worker)
            until(lambda: len(trial.exits) >= 2 + trial.draw.randrange(2), 60, f"it stops again:\n{worker.tail()}")
            assert {code for _, code in trial.exits} == {74}, trial.exits
            assert all("No space left on device" in line for line in [first, at_work, *criticals(worker)]), (
                worker.tail()
            )
            filler.unlink()
            trial.works(200, 60)
            trial.note = (
                f"{MEGABYTES} MB disk filled by {taken >> 20} MB at work and before a start: exit 74 each time "
                f"({len(trial.exits) + 1} times), the line says why; with space again it went on"
            )


def ends_full(worker: WorkerProcess) -> str:
    """The worker, started on a full disk, ends with 74 -> its last words."""
    try:
        code = worker.wait(60)
    finally:
        worker.close()
    assert code == 74, f"ended with {code}:\n{worker.tail()}"
    return last_words(worker)


def last_words(worker: WorkerProcess) -> str:
    return worker.tail(1)


def criticals(worker: WorkerProcess) -> list[str]:
    """Last words of all runs so far."""
    lines = worker.log.read_text(errors="replace").splitlines()
    return [line for line in lines if '"CRITICAL"' in line or line.startswith("freshet: ")]


# 13 and 14


def halt(trial: Trial, worker: WorkerProcess) -> None:
    """SIGKILL, and it stays down."""
    trial.down.add(worker.name)
    worker.kill()
    trial.kills += 1


def databases(worker: WorkerProcess) -> list[Path]:
    """Folders of the partitions, in order."""
    return sorted(path for path in worker.data_dir.glob("**/interest-*.db") if path.is_dir())


def with_files(trial: Trial, worker: WorkerProcess) -> None:
    """Work until every partition has an SST (RocksDB writes its log out when it opens), and some more; then SIGKILL."""
    trial.works(300)
    halt(trial, worker)
    trial.start(worker)
    trial.wait_ready()
    trial.works(100)
    trial.pause(1, 3)
    halt(trial, worker)
    assert all(list(path.glob("*.sst")) for path in databases(worker))


def noticed(worker: WorkerProcess) -> dict[str, int]:
    """How the worker noticed damage, by its log: at the open, or when it read or wrote (then it ended with 70)."""
    log = worker.log.read_text()
    return {
        "at the open": log.count("damaged, read back from the changelog"),
        "at work": log.count("is damaged, the next start reads it back"),
    }


def damage_at_work_only(worker: WorkerProcess) -> None:
    """No worker ended for another reason than damage that it found."""
    assert all("is damaged, the next start reads it back" in line for line in criticals(worker)), criticals(worker)


def bit_flip(settings: Settings, bundles: Path, folder: Path, seed: int, *, rate: float = RATE) -> None:
    """Fault 13: one bit of one SST is another. It is noticed at the open, at work, or by verify's look at the disk; or it
    lies where nobody reads."""
    trial = Trial(
        13, "bit flip in an SST", seed, settings, bundles, folder, workers=1, rate=rate, users=USERS,
        allowed=(-signal.SIGKILL, 70),
    )  # fmt: skip
    with trial:
        worker = trial.workers[0]
        with_files(trial, worker)
        file = trial.draw.choice([file for path in databases(worker) for file in sorted(path.glob("*.sst"))])
        where_it_is = f"{file.parent.name}/{file.name} ({file.stat().st_size} bytes)"
        bit = flip(file, trial.draw)
        trial.start(worker)
        until(lambda: trial.exits or trial.ready(worker), 60, "the worker is ready, or has ended")
        trial.wait_ready()
        trial.works(1500)
        where = ", ".join(how for how, times in noticed(worker).items() if times)
        if not where:
            trial.stop(worker)
            where = by_verify(settings, worker) or "nowhere: bytes that hold nothing current"
            trial.start(worker)
            trial.works(100)
        damage_at_work_only(worker)
        trial.note = f"bit {bit % 8} of byte {bit // 8} of {where_it_is} flipped; noticed {where}"


def flip(file: Path, draw: random.Random) -> int:
    """Flip a seeded bit -> which one."""
    content = bytearray(file.read_bytes())
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return bit


def by_verify(settings: Settings, worker: WorkerProcess) -> str:
    """The worker did not notice: does the check of the disk? Then the folder is deleted, as its reader would."""
    try:
        report = run(settings, scope=Scope(data_dirs=(worker.data_dir,)))
    except DataError:
        pass
    else:
        assert set(report.kinds) <= {"store"}, report.kinds
        if not report.kinds:
            return ""
    shutil.rmtree(worker.data_dir)
    return "by verify --data-dir"


def cut_manifest(path: Path, draw: random.Random) -> str:
    file = max(path.glob("MANIFEST-*"))
    size = file.stat().st_size
    return cut(file, draw.randrange(size), size)


def no_current(path: Path, draw: random.Random) -> str:
    (path / "CURRENT").unlink()
    return "CURRENT deleted"


def no_table(path: Path, draw: random.Random) -> str:
    file = draw.choice(sorted(path.glob("*.sst")))
    file.unlink()
    return f"{file.name} deleted"


def cut_log(path: Path, draw: random.Random) -> str:
    """Records at the log's end go, and with them the offset that came with them: what is left is an earlier whole."""
    file = max(path.glob("*.log"))
    size = file.stat().st_size
    number = int(path.stem.rpartition("-")[2])
    before = LocalStore(path, number).offset
    what = cut(file, draw.randrange(size // 4, size), size)
    after = LocalStore(path, number).offset
    assert after < before, f"the log was cut, the offset is still {after}"
    return f"{what}, its changelog offset {before} -> {after}"


def cut(file: Path, to: int, size: int) -> str:
    with file.open("r+b") as out:
        out.truncate(to)
    return f"{file.name} cut from {size} to {to} bytes"


KINDS: tuple[Damage, ...] = (cut_manifest, no_current, no_table, cut_log)


def lost_files(settings: Settings, bundles: Path, folder: Path, seed: int, *, rate: float = RATE) -> None:
    """Fault 14: in one go, each partition loses something else: a part of MANIFEST, CURRENT, an SST, the log's end."""
    trial = Trial(
        14, "cut and missing files", seed, settings, bundles, folder, workers=1, rate=rate, users=USERS,
        allowed=(-signal.SIGKILL, 70),
    )  # fmt: skip
    with trial:
        worker = trial.workers[0]
        with_files(trial, worker)
        paths = databases(worker)
        kinds = [KINDS[(seed + index) % len(KINDS)] for index in range(len(paths))]
        done = [kind(path, trial.draw) for kind, path in zip(kinds, paths, strict=True)]
        trial.start(worker)
        trial.wait_ready()
        trial.works(500)
        found = noticed(worker)
        expected = [kind for kind in kinds if kind in (no_current, no_table)]
        assert sum(found.values()) >= len(expected), f"{found}, {done}"
        damage_at_work_only(worker)
        trial.note = f"{'; '.join(done)}: {found['at the open']} partitions found damaged at the open and read back"


# 15


def cut_changelog(settings: Settings, bundles: Path, folder: Path, seed: int, *, count: int = 1500) -> None:
    """Fault 15: the changelog's records are deleted. The folder holds them all: the worker goes on. It is behind, or gone:
    the worker refuses to start until it is told to, and says what is lost. Verify never says that all is well."""
    began = time.monotonic()
    draw = random.Random(seed)
    events = Events(settings, seed=seed, users=USERS)
    worker = WorkerProcess(settings, folder, bundles=bundles)
    accepting = WorkerProcess(settings, folder, bundles=bundles, accept_loss=True)
    older = folder / "older"
    try:
        events.send_items()
        work(worker.start().wait_ready(), events, count)
        assert worker.terminate() == 0
        shutil.copytree(worker.data_dir, older)
        work(worker.start().wait_ready(), events, count)
        assert worker.terminate() == 0
        deleted = delete_records(settings)
        work(worker.start().wait_ready(), events, draw.randrange(200, 500))
        kept = unverifiable_report(settings)
        assert kept.exit_code == 3, [str(one) for one in kept.violations[:5]]
        assert worker.terminate() == 0
        refusals = 0
        for folder_then in draw.sample([older, None], 2):
            shutil.rmtree(worker.data_dir)
            if folder_then is not None:
                shutil.copytree(folder_then, worker.data_dir)
            refuses(worker, settings)
            refusals += 1
        work(accepting.start().wait_ready(), events, draw.randrange(200, 500))
        lost = accepting.metric("freshet_accepted_loss_records_total")
        assert lost > 0
        warnings = [line for line in accepting.lines() if "going on, since accept_loss is set" in line["message"]]
        assert warnings
        assert accepting.terminate() == 0
        after = unverifiable_report(settings)
    finally:
        events.close()
        worker.close()
        accepting.close()
    note = (
        f"{deleted} changelog records deleted: went on with the folder kept (verify: exit {kept.exit_code}, "
        f"{kept.unverifiable} unverifiable); folder behind and gone: exit 76 both times; told to go on, it said that "
        f"{lost:.0f} records are lost (verify: exit {after.exit_code}, {dict(after.kinds) or 'nothing wrong in what is left'})"
    )
    record(
        Outcome(15, "changelog cut off", seed, events=events.sent, restarts=refusals, repeats=after.replays,
                seconds=round(time.monotonic() - began, 1), note=note)
    )  # fmt: skip


def delete_records(settings: Settings) -> int:
    """All records of the changelog as of now -> how many. The broker refuses it while the topic is compacted only."""
    admin = KafkaAdminClient(**client_arguments(settings))
    try:
        keep(admin, settings, "delete")
        tps = [TopicPartition(settings.changelog_topic, number) for number in range(settings.partitions)]
        done = admin.delete_records(dict.fromkeys(tps, -1))
        keep(admin, settings, "compact")
        return sum(low_watermark(done[tp]) for tp in tps)
    finally:
        admin.close()


def keep(admin: KafkaAdminClient, settings: Settings, policy: str) -> None:
    configs = {"cleanup.policy": policy}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.changelog_topic, configs)])


def low_watermark(result: Any) -> int:
    return int(result["low_watermark"] if isinstance(result, dict) else result)


def unverifiable_report(settings: Settings) -> Report:
    """Deleted records cannot be checked: never 0."""
    report = run(settings, wait=60)
    assert report.exit_code != 0, report
    assert report.unverifiable > 0
    return report


def refuses(worker: WorkerProcess, settings: Settings) -> None:
    """Exit 76, one line that names partition and records."""
    assert worker.start().wait(60) == 76, worker.tail()
    (line,) = [line for line in worker.lines() if line["level"] == "CRITICAL"]
    assert settings.changelog_topic in line["message"], line
    assert "are gone, and with them states; see --accept-loss" in line["message"], line
