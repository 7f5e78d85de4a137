"""Checks of output paths before a long command begins, so that no work is lost because a folder cannot be written."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from deploy.clients.printable import printable
from stream.core.errors import DiskError


def require_folder(option: str, folder: Path) -> None:
    """Raise DiskError, naming the option, if the folder can be neither created nor written.

    Folders that were created for the check are removed again.
    """
    made: list[Path] = []
    try:
        made = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=".freshet-", dir=folder):
            pass
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise DiskError(
            printable(
                f"{option}: found {folder}, expected a folder that can be created or written ({why}): choose another one"
            )
        ) from None
    finally:
        for one in made:
            with suppress(OSError):
                one.rmdir()


def require_file(option: str, file: Path) -> None:
    """Raise DiskError, naming the option, if the file is a folder or if its folder cannot be written."""
    if file.is_dir():
        raise DiskError(printable(f"{option}: found {file}, a folder, expected a file to write: name a file"))
    require_folder(option, file.parent)
