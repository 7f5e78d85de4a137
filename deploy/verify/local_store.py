"""The RocksDB folders of stopped workers, opened read-only: is what lies there the changelog's head, up to where it says?"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from deploy.verify.changelog import Changelog
from deploy.verify.fencing import CLAIM
from deploy.verify.report import Report, Violation
from deploy.verify.source_index import SourceIndex
from stream.core.errors import DataError, StateError
from stream.core.state import decode

OFFSET_KEY = b"__faust\0offset__"
"""Under it Faust keeps the offset of the last changelog record that the folder holds."""

LONGEST_OFFSET = 20  # digits of 2**63

NOTE_KEY = b"\xffchangelog"
"""Under it a worker notes which changelog that is."""

EXPOSED = b"\xffexposed\0"
"""So begins the key of a note that a user's state is to be written again."""


class LocalStore:
    """One partition's database of one worker. offset: -1 where it names none."""

    def __init__(self, path: Path, partition: int) -> None:
        self.path = path
        self.partition = partition
        self.offset = -1
        self._heads: dict[bytes, bytes] = {}
        database = self._open()
        try:
            found = database.get(OFFSET_KEY)
        finally:
            database.close()
        if found is not None:
            if not (found.isdigit() and len(found) < LONGEST_OFFSET):
                raise DataError(
                    f"{path}: its changelog offset is {found[:40]!r}, expected a number: it is no worker's folder"
                )
            self.offset = int(found)

    def take(self, offset: int, key: bytes, value: bytes) -> None:
        """A state record of the changelog passes by, in order."""
        if offset <= self.offset:
            self._heads[key] = blake2b(value, digest_size=8).digest()

    def check(self, source_index: SourceIndex, changelog: Changelog, topic: str, report: Report) -> None:
        """Every value against the changelog: its user's last record up to `offset`, or a later one.

        A later one is right where the broker did not say how far a write reached: the next start reads it again.
        """

        def blame(message: str, key: bytes, seq: int = -1) -> None:
            name = source_index.keys.name(key)
            report.add(Violation("store", f"{self.path}: {message}", name, seq, topic, self.partition, self.offset))

        if self.offset >= changelog.end:
            blame(f"goes up to changelog offset {self.offset}, the log ends at {changelog.end}", b"")
        database = self._open()
        missing = dict(self._heads)
        try:
            for key, value in database.items():
                if key in (OFFSET_KEY, NOTE_KEY, CLAIM) or key.startswith(EXPOSED):
                    continue
                report.stored += 1
                head = missing.pop(key, b"")
                if head == blake2b(value, digest_size=8).digest():
                    continue
                number = source_index.find(key)
                try:
                    state = decode(value)
                except StateError as error:
                    blame(str(error), key)
                    continue
                rows = [] if number is None else changelog.rows(source_index.users[number], state.seq)
                known = any(changelog.chain(r) == state.chain and changelog.has_applied(r, state.applied) for r in rows)
                if known and changelog.offset(rows[0]) > self.offset:
                    report.stored_ahead += 1
                elif changelog.gone and not head:
                    report.unverifiable += 1
                elif known:
                    blame("an older state than the changelog's up to there", key, state.seq)
                else:
                    blame("a state that the changelog does not have", key, state.seq)
            for key in missing:  # asked for by name: at a damaged block an iterator ends early, and only `get` says why
                if database.get(key) is not None:
                    raise DataError("its index does not lead to a state that is there")
                blame("a state of the changelog is not there", key)
        except Exception as error:
            raise DataError(f"{self.path} cannot be read: {error}") from None
        finally:
            database.close()

    def _open(self) -> Any:
        import rocksdict

        try:
            options = rocksdict.Options(raw_mode=True)
            return rocksdict.Rdict(str(self.path), options=options, access_type=rocksdict.AccessType.read_only())
        except Exception as error:  # rocksdict raises plain Exception
            raise DataError(f"{self.path} cannot be opened: {error}") from None


def local_stores(folders: Sequence[Path], partition: int) -> list[LocalStore]:
    """The databases of one partition below workers' data folders (`data_dir` of their settings)."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        paths = sorted(folder.glob(f"**/interest-{partition}.db"))
        found += [LocalStore(path, partition) for path in paths if path.is_dir()]
    return found
