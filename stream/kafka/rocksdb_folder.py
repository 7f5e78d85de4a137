"""Opens and deletes a RocksDB folder that is a cache of a topic, and tells damage from a full disk or a lock."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import rocksdict

from stream.core.errors import DiskError, SettingsError

SST_END: Final = 0x88E241B785F4CFF7.to_bytes(8, "little")  # the magic number of RocksDB's block-based tables
BLOCK: Final = 8 << 10  # bytes, before they are compressed

_OWN: Final = re.compile(
    r"CURRENT|IDENTITY|LOCK|LOG(\.old\.\d+)?|(MANIFEST|OPTIONS)-\d+(\.dbtmp)?|\d+\.(sst|log|blob|dbtmp)|rocksdict-config\.json"
)
"""Names of RocksDB's files."""


def take_folder(folder: Path, setting: str, command: str, mark: str, text: str) -> None:
    """Make a folder with its mark, or see that it has it. Nothing in a folder of somebody else is touched.

    Args:
        folder: The folder.
        setting: Its setting, for errors.
        command: The command that makes it, for errors.
        mark: Name of the file that says whose it is.
        text: Content of that file.

    Raises:
        SettingsError: It has files, and no mark.
        DiskError: It cannot be made, read or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / mark).is_file():
            return
        if found := sorted(folder.iterdir()):
            raise SettingsError(
                f"{setting}: found {found[0]} and no file {mark}: the folder was not made by `{command}`, and nothing in it was "
                f"changed; set FRESHET_{setting.upper()} to a new or empty folder"
            )
        (folder / mark).write_text(text)
    except OSError as error:
        raise DiskError(
            f"{setting}: {folder} cannot be used: {error.strerror}; set FRESHET_{setting.upper()} to a folder that can be "
            "written"
        ) from None


def set_layout(options: Any, cache: Any = None) -> None:
    """Set how records lie in the files: in blocks of 8 KiB, compressed by zstd on the last level, where most of them are.

    Measured on states of 64 events: less than half of their bytes, for about 5 us more a read. Smaller blocks take more bytes,
    larger ones longer; a dictionary adds little. Files that were written otherwise stay readable.

    Args:
        options: rocksdict.Options.
        cache: rocksdict.Cache for unpacked blocks; None: RocksDB's own.
    """
    tables = rocksdict.BlockBasedOptions()
    tables.set_bloom_filter(10, block_based=True)
    tables.set_block_size(BLOCK)
    if cache is not None:
        tables.set_block_cache(cache)
    options.set_block_based_table_factory(tables)
    options.set_bottommost_compression_type(rocksdict.DBCompressionType.zstd())


class DamageError(Exception):
    """A folder has lost data. freshet found this, not RocksDB."""


def open_whole(path: Path, options: Any) -> Any:
    """Open a folder. Raises DamageError if it has a finished file that RocksDB does not know.

    RocksDB opens a MANIFEST that was cut off at the end of an entry without an error. Records that were flushed after
    that entry would be missing, although the log after them is there. A kill just after a file is finished and before
    it is entered also leaves an unknown file. Then the only cost is that the folder is read back.
    """
    lying = {file.name for file in path.glob("*.sst") if _finished(file)}
    options.set_disable_auto_compactions(True)  # it would delete files before they are compared
    database = rocksdict.Rdict(str(path), options=options)
    database.set_read_options(rocksdict.ReadOptions())
    unknown = sorted(lying - {file["name"].lstrip("/") for file in database.live_files()})
    if unknown:
        with suppress(Exception):  # closing writes what is still in memory, which may fail because of damage
            database.close()
        raise DamageError(f"RocksDB does not know {', '.join(unknown)} of {path}")
    database.set_options({"disable_auto_compactions": "false"})
    return database


def remove(path: Path, setting: str) -> None:
    """Delete a database's folder; do nothing if there is none.

    Args:
        path: The folder.
        setting: The setting that led to it.
    Raises:
        SettingsError: It is no folder, or has anything that is not RocksDB's. Nothing is deleted then.
        DiskError: It cannot be deleted.
    """
    try:
        if not path.is_symlink() and not path.exists():
            return
        strange = [] if path.is_dir() and not path.is_symlink() else [path]
        strange = strange or sorted(file for file in path.iterdir() if not _is_own(file))
        if strange:
            raise SettingsError(
                f"{setting}: found {strange[0]}, which is not a file of RocksDB, where a database is to be deleted and read "
                f"back; nothing was deleted. Move it, or set FRESHET_{setting.upper()} to another folder"
            )
        shutil.rmtree(path)
    except OSError as error:
        raise DiskError(f"{setting}: {path} cannot be deleted: {error.strerror}") from None


def _is_own(file: Path) -> bool:
    return _OWN.fullmatch(file.name) is not None and file.is_file()


def is_damage(error: Exception) -> bool:
    """Return whether the error means damage.

    RocksDB's binding has only one type of exception, so only the text distinguishes damage from a full disk or a lock.
    """
    message = str(error)
    return (
        isinstance(error, DamageError)
        or message.startswith("Corruption")
        or "No such file" in message
        or "does not exist" in message
    )


def _finished(file: Path) -> bool:
    """Return whether the file is complete. A kill during a flush or a compaction leaves files without the end mark."""
    try:
        with file.open("rb") as content:
            content.seek(max(0, file.stat().st_size - len(SST_END)))
            return content.read() == SST_END
    except OSError:  # RocksDB will report what is wrong with it
        return False
