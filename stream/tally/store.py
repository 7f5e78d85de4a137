"""RocksDB of the tally: users' records, all sums, and how far the source topics are counted, written in one batch each time.

So a tally that is killed at any moment goes on exactly where it was: what was read and not written is read again. Sums
are also kept in memory; a start reads them. Nothing else has them: if the folder is lost, the sums are counted again from
what the source topics still hold.

    b"m"                          Meta, as JSON
    b"u" + user's key             the user's record (stream.tally.counting)
    b"i" + item                   [count, popular, touched], as JSON
    b"p" + length of first (2 bytes) + first + second     the pair's sum, as decimal digits
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import rocksdict

from stream.core.errors import DiskError, FreshetError, SettingsError
from stream.core.unreadable import UNREADABLE
from stream.kafka.rocksdb_folder import is_damage, open_whole, remove, set_layout, take_folder
from stream.tally.counting import Changed, ItemSums, Sums

META: Final = b"m"
USER: Final = b"u"
ITEM: Final = b"i"
PAIR: Final = b"p"
LENGTH: Final = 2
MARK: Final = "FRESHET-TALLY"
MARK_TEXT: Final = (
    "The sums of `freshet tally`. If it is deleted, they are counted again from what the source topics hold.\n"
)
WRITE_BUFFER: Final = 16 << 20  # bytes


class Meta(msgspec.Struct, frozen=True):
    """What the sums are made of.

    Attributes:
        shape: What the sums depend on besides the events, as text; "" for an empty folder.
        landmark: Epoch ms of weight 1.
        cluster: Kafka's id of the cluster.
        topics: Source topic -> its id.
        offsets: "topic/partition" -> first source offset that is not counted.
        now: Epoch ms of the newest event.
        given: Names of the figures in `shape` that settings had given (stream.tally.figures).
    """

    shape: str = ""
    landmark: int = 0
    cluster: str = ""
    topics: dict[str, str] = {}
    offsets: dict[str, int] = {}
    now: int = 0
    given: tuple[str, ...] = ()


class TallyStore:
    """The folder of one tally. It can be opened once at a time.

    Args:
        folder: The setting `tally_dir`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database: Any = None

    def open(self) -> Meta:
        """Open the folder. Return what its sums are made of.

        Raises:
            SettingsError: It is in use, or is not a tally's.
            DiskError: It cannot be made, read or written.
            FreshetError: It is damaged.
        """
        take_folder(self._folder, "tally_dir", "freshet tally", MARK, MARK_TEXT)
        try:
            self._database = open_whole(self._folder / "sums", _options())
            found = self._database.get(META)
            return Meta() if found is None else msgspec.json.decode(found, type=Meta)
        except Exception as error:
            if "lock" in str(error).lower():
                raise SettingsError(
                    f"tally_dir: {self._folder} is in use by another `freshet tally`; one is enough for a deployment"
                ) from None
            self._stop(error)

    def load(self, meta: Meta) -> Sums:
        """Read all sums. Raises FreshetError, DiskError."""
        sums = Sums(now=meta.now)
        try:
            for key, value in self._with(ITEM):
                sums.items[str(key, "utf-8")] = ItemSums(*msgspec.json.decode(value, type=tuple[int, int, int]))
            for key, value in self._with(PAIR):
                end = LENGTH + int.from_bytes(key[:LENGTH], "big")
                sums.ahead.setdefault(str(key[LENGTH:end], "utf-8"), {})[str(key[end:], "utf-8")] = int(value)
        except (*UNREADABLE, ValueError) as error:
            raise self._damaged(error) from None
        except Exception as error:
            self._stop(error)
        return sums

    def read(self, users: Sequence[bytes]) -> list[bytes | None]:
        """Return the users' records, None for unknown users. Raises FreshetError, DiskError."""
        try:
            found: list[bytes | None] = self._database.get([USER + user for user in users])
        except Exception as error:
            self._stop(error)
        return found

    def write(self, meta: Meta, sums: Sums, changed: Changed) -> None:
        """Write what a micro-batch has changed, and how far it goes. Raises FreshetError, DiskError."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for user, record in changed.users.items():
            _put(batch, USER + user, record)
        for item in changed.items:
            one = sums.items.get(item)
            _put(batch, ITEM + item.encode(), None if one is None else msgspec.json.encode(one))
        for first, second in changed.pairs:
            total, name = sums.pair(first, second), first.encode()
            key = PAIR + len(name).to_bytes(LENGTH, "big") + name + second.encode()
            _put(batch, key, b"%d" % total if total else None)
        batch.put(META, msgspec.json.encode(meta))
        try:
            self._database.write(batch)
        except Exception as error:
            self._stop(error)

    def begin_again(self) -> Meta:
        """Delete all that the folder holds. Raises DiskError, SettingsError."""
        self.close()
        remove(self._folder / "sums", "tally_dir")
        return self.open()

    def close(self) -> None:
        """Close the folder. May be called twice."""
        database, self._database = self._database, None
        if database is not None:
            with suppress(Exception):
                database.close()

    def _with(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield what follows the prefix, and the value, of each key that begins with it."""
        for key, value in self._database.items(from_key=prefix):
            if not key.startswith(prefix):
                return
            yield key[len(prefix) :], value

    def _stop(self, error: Exception) -> NoReturn:
        if is_damage(error) or isinstance(error, msgspec.MsgspecError):
            raise self._damaged(error) from None
        raise DiskError(f"tally_dir: {self._folder} cannot be used: {error}") from None

    def _damaged(self, error: Exception) -> FreshetError:
        return FreshetError(
            f"tally_dir: {self._folder} is damaged: {error}; restore it from a copy, or delete it: the sums are then counted "
            "again from what the source topics hold"
        )


def _put(batch: Any, key: bytes, value: bytes | None) -> None:
    if value is None:
        batch.delete(key)
    else:
        batch.put(key, value)


def _options() -> Any:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    set_layout(options)
    return options


def place(topic: str, partition: int) -> str:
    """Return the name of a source partition in `offsets`."""
    return f"{topic}/{partition}"
