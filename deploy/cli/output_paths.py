"""Where a long command writes in the end: looked at before it begins, so that no work is lost for a folder."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from deploy.clients.printable import printable
from stream.core.errors import DiskError


def require_folder(option: str, folder: Path) -> None:
    """Raises DiskError, naming the option, where a folder can neither be made there nor written. What had to be made to know it
    is removed."""
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
                f"{option}: found {folder}, expected a folder that can be made or written ({why}): name another one"
            )
        ) from None
    finally:
        for one in made:
            with suppress(OSError):
                one.rmdir()


def require_file(option: str, file: Path) -> None:
    """The same of a file: its folder can be written, and it is no folder itself."""
    if file.is_dir():
        raise DiskError(printable(f"{option}: found {file}, a folder, expected a file to write: name one"))
    require_folder(option, file.parent)
