"""The setting `placements`: named slates, each with what differs from the default one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from stream.core.filters import FilterError, parse
from stream.core.refusals import found
from stream.settings import wording

DEFAULT: Final = "default"
"""The placement that the settings slate_size, filter_seen and diversity describe. Its slates do not name it."""
MOST: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHOWN: Final = 64
"""Characters of a wrong name that an error shows."""


class Placement(BaseModel):
    """One placement. What it does not say is as in the default one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int | None = Field(None, ge=1, le=100, description="maximum number of items; by default slate_size")
    filter: dict[str, Any] | None = Field(
        None, description="which items may be in it ([filters](rules.md#filters)); by default all"
    )
    diversity: float | None = Field(None, ge=0, le=1, description="strength of the re-ranking; by default as elsewhere")
    filter_seen: bool | None = Field(
        None, description="never show an item that the user has interacted with; by default filter_seen"
    )


def wrong(value: object) -> Iterator[str]:
    """Yield, for each part of a value that is not acceptable: its path, what was found, and what was expected."""
    if not isinstance(value, Mapping):
        yield f"found {found(value, texts=False)}, expected name -> placement, as a table or a JSON object"
        return
    if len(value) > MOST:
        yield f"found {len(value)} placements, expected at most {MOST}"
        return
    for name, one in value.items():
        path = f"placements.{_shown(name)}"
        if isinstance(one, Placement):
            continue
        if name == DEFAULT:
            yield f"{path}: slate_size, filter_seen and diversity describe this one; expected another name"
        elif not _NAME.fullmatch(str(name)):
            yield f"{path}: expected a name of 1 to 64 letters, digits, dots, underscores and hyphens"
        elif not isinstance(one, Mapping):
            yield f"{path}: found {found(one, texts=False)}, expected a table or a JSON object"
        else:
            yield from _wrong_fields(path, one)


def _wrong_fields(path: str, one: Mapping[str, Any]) -> Iterator[str]:
    fields = Placement.model_json_schema()["properties"]
    for name, value in one.items():
        if name not in fields:
            yield f"{path}.{_shown(name)}: there is no such field; expected one of {', '.join(fields)}"
        elif name == "filter":
            if not isinstance(value, dict):
                yield f"{path}.filter: found {found(value, texts=False)}, expected a filter as a table or a JSON object"
                continue
            try:
                parse(value)
            except FilterError as error:
                yield f"{path}.{error.path}: {error}"
        elif not _fits(name, value):
            yield f"{path}.{name}: {wording.wrong(fields[name], value)}"


def _fits(name: str, value: object) -> bool:
    if name == "filter_seen":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= 1 if name == "diversity" else isinstance(value, int) and 1 <= value <= 100


def _shown(name: object) -> str:
    return repr(str(name)[:_SHOWN])[1:-1]
