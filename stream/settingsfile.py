"""Which TOML file the settings come from: the one that FRESHET_CONFIG names, else freshet.toml in the current folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

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
