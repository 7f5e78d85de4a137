"""Which TOML file the settings come from: the one that FRESHET_CONFIG names, else freshet.toml in the current folder."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic_settings import TomlConfigSettingsSource

NAME: Final = "freshet.toml"


def path() -> Path:
    """The file that is read where it is there."""
    return Path(os.environ.get("FRESHET_CONFIG", NAME))


def told() -> str:
    """For the end of an error that another folder explains: the file that was read, or that there was none."""
    file = path().absolute()
    if file.is_file():
        return f"settings file: {file}"
    return f"no {file.name} was found in {file.parent}"


class Source(TomlConfigSettingsSource):
    """The settings of a TOML file, which may begin with a byte order mark: editors of Windows write one."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        """Raises TOMLDecodeError, UnicodeDecodeError."""
        return tomllib.loads(file_path.read_bytes().decode("utf-8-sig"))
