"""The bundles in a folder: which are there, what each was trained on, and which one a prefix of an id means."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from stream.core.errors import DataError

CURRENT = "CURRENT"
MANIFEST = "manifest.json"

_ID = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{1,64}")


class Listed(NamedTuple):
    """A bundle of the folder by its manifest alone; its other files are not read.

    Attributes:
        bundle: Hex id.
        created: Epoch ms; 0 if unknown.
        data: What it was trained on.
        metrics: Its figures.
        unusable: Why it cannot be used; "" as far as the manifest shows.
    """

    bundle: str
    created: int = 0
    data: Mapping[str, Any] = MappingProxyType({})
    metrics: Mapping[str, Any] = MappingProxyType({})
    unusable: str = ""


def listed(bundles: Path) -> list[Listed]:
    """Return the bundles in a folder, the oldest first. Raises DataError if it is no folder."""
    return sorted((_listed(path) for path in _folders(bundles)), key=lambda one: (one.created, one.bundle))


def current(bundles: Path) -> str:
    """Return the id that the file CURRENT names; "" if there is none."""
    try:
        text = (bundles / CURRENT).read_text("utf-8", "replace").strip()
    except OSError:
        return ""
    return text if _ID.fullmatch(text) else ""


def find(bundles: Path, prefix: str) -> str:
    """Return the id of the one bundle whose id begins with `prefix`. Raises DataError if none does, or several do."""
    known = [path.name for path in _folders(bundles)]
    found = [name for name in known if name.startswith(prefix)] if _PREFIX.fullmatch(prefix) else []
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{prefix}: {len(found)} bundles begin with it ({_short(found)}): give more digits")
    if not _PREFIX.fullmatch(prefix):
        raise DataError(
            f"{prefix[:80]}: expected the first hex digits of a bundle's id, as `freshet bundles list` shows them"
        )
    there = f"there are {_short(known)}" if known else "it holds no bundle: `freshet export RUN` makes one"
    raise DataError(f"{prefix}: no bundle in {bundles.absolute()} begins with it; {there}")


def _short(names: list[str]) -> str:
    shown = ", ".join(f"{name[:12]}..." for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _folders(bundles: Path) -> list[Path]:
    try:
        return sorted(path for path in bundles.iterdir() if _ID.fullmatch(path.name) and path.is_dir())
    except OSError as error:
        raise DataError(f"bundles: {bundles.absolute()} cannot be read: {error.strerror}") from None


def _listed(folder: Path) -> Listed:
    try:
        raw = (folder / MANIFEST).read_bytes()
        if sha256(raw).hexdigest() != folder.name:
            return Listed(folder.name, unusable=f"{MANIFEST} is not the one of this id: the file was changed")
        body = json.loads(raw)
        data, metrics = dict(body.get("data") or {}), dict(body.get("metrics") or {})
        return Listed(folder.name, int(body["created"]), data, metrics)
    except OSError as error:
        return Listed(folder.name, unusable=f"{MANIFEST} cannot be read: {error.strerror}")
    except (ValueError, TypeError, KeyError, AttributeError):
        return Listed(folder.name, unusable=f"{MANIFEST} has another form")
