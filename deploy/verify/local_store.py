"""The RocksDB folders of stopped workers, opened read-only.

Checks that a folder holds the newest changelog state of each user, up to the offset that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from deploy.verify.changelog import Changelog
from deploy.verify.fencing import CLAIM
from deploy.verify.report import Report, Violation
from deploy.verify.source_index import SourceIndex
from deploy.verify.users import User
from stream.core.errors import DataError, StateError
from stream.core.state import Interest, decode

OFFSET_KEY = b"__faust\0offset__"
"""The key under which Faust keeps the offset of the last changelog record that the folder holds."""

LONGEST_OFFSET = 20  # digits of 2**63

NOTE_KEY = b"\xffchangelog"
"""The key under which a worker notes which changelog that is."""

EXPOSED = b"\xffexposed\0"
"""The prefix of the keys under which a worker notes that a user's state must be written again."""


EMPTY = b"\xffempty\0"
"""The prefix of the keys under which a worker notes that a user's state has no event and is to be deleted."""


STANDING = b"\xffstanding"
"""The prefix of the keys under which a worker keeps what standing slates show, and how far it has read them."""


class LocalStore:
    """The database of one worker for one partition. `offset` is -1 if the database names none."""

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
                    f"{path}: its changelog offset is {found[:40]!r}, expected a number: it is not a worker's folder"
                )
            self.offset = int(found)

    def take(self, offset: int, key: bytes, value: bytes | None) -> None:
        """Note a state record of the changelog; None deletes the user's state. They must come in order."""
        if offset <= self.offset and value is None:
            self._heads.pop(key, None)
        elif offset <= self.offset and value is not None:
            self._heads[key] = blake2b(value, digest_size=8).digest()

    def check(self, source_index: SourceIndex, changelog: Changelog, topic: str, report: Report) -> None:
        """Check every value against the changelog: it must be its user's last record up to `offset`, or a later one.

        A later one is right if the broker did not report how far a write reached: the next start reads it again.
        """

        def add(message: str, key: bytes, seq: int = -1) -> None:
            name = source_index.keys.name(key)
            report.add(Violation("store", f"{self.path}: {message}", name, seq, topic, self.partition, self.offset))

        if self.offset >= changelog.end:
            add(f"the folder goes up to changelog offset {self.offset}, but the log ends at {changelog.end}", b"")
        database = self._open()
        missing = dict(self._heads)
        try:
            for key, value in database.items():
                if key in (OFFSET_KEY, NOTE_KEY, CLAIM) or key.startswith((EXPOSED, EMPTY, STANDING)):
                    continue
                report.stored += 1
                head = missing.pop(key, b"")
                if head == blake2b(value, digest_size=8).digest():
                    continue
                try:
                    state = decode(value)
                except StateError as error:
                    add(str(error), key)
                    continue
                if wrong := self._wrong(source_index.find(key), state, bool(head), changelog, report):
                    add(wrong, key, state.seq)
            # At a damaged block an iterator ends early. Only `get` raises the reason.
            for key in missing:
                if database.get(key) is not None:
                    raise DataError("its index does not find a state that is in it")
                add("it lacks a state of the changelog", key)
        except Exception as error:
            raise DataError(f"{self.path} cannot be read: {error}") from None
        finally:
            database.close()

    def _wrong(self, user: User | None, state: Interest, headed: bool, changelog: Changelog, report: Report) -> str:
        """Return what is wrong with a state that is not its user's last one up to `offset`; "" if nothing is.

        headed: Whether the changelog has a state of the user up to `offset`.
        """
        rows = changelog.rows
        found = [] if user is None else rows.find(user, state.seq)
        known = any(rows.chain(row) == state.chain and rows.has_applied(row, state.applied) for row in found)
        if known and rows.offset(found[0]) > self.offset:
            report.stored_ahead += 1
        elif changelog.gone and not headed:
            report.unverifiable += 1
        elif known:
            return "its state is older than the changelog's last one up to there"
        else:
            return "it has a state that the changelog does not have"
        return ""

    def _open(self) -> Any:
        import rocksdict

        try:
            options = rocksdict.Options(raw_mode=True)
            return rocksdict.Rdict(str(self.path), options=options, access_type=rocksdict.AccessType.read_only())
        except Exception as error:  # rocksdict raises plain Exception
            raise DataError(f"{self.path} cannot be opened: {error}") from None


def local_stores(folders: Sequence[Path], partition: int) -> list[LocalStore]:
    """Open the databases of one partition below the workers' data folders (`data_dir` of their settings)."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        paths = sorted(folder.glob(f"**/interest-{partition}.db"))
        found += [LocalStore(path, partition) for path in paths if path.is_dir()]
    return found
