"""The TOML file of the settings: the one that FRESHET_CONFIG names, else freshet.toml in the current folder."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic_settings import TomlConfigSettingsSource

NAME: Final = "freshet.toml"


def path() -> Path:
    """Return the file that is read if it exists."""
    return Path(os.environ.get("FRESHET_CONFIG") or NAME)


def description() -> str:
    """Return which file was read, or that there was none: the end of an error that a wrong folder may have caused."""
    file = path().absolute()
    if file.is_file():
        return f"settings file: {file}"
    return f"no {file.name} was found in {file.parent}"


class Source(TomlConfigSettingsSource):
    """The settings in a TOML file. It may begin with a byte order mark, which Windows editors write."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        """Read a file. Raises TOMLDecodeError, UnicodeDecodeError."""
        return tomllib.loads(file_path.read_bytes().decode("utf-8-sig"))
