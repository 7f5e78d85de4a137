"""The fit cache on disk. Nothing is fitted twice, and an interrupted comparison resumes. It uses no pickle.

FOLDER/<key of the fit>/checkpoint.pt          written by models that have epochs; a fit resumes from it
                       /seconds.json           time spent on fitting until that checkpoint
                       /fit.json               a finished fit: seconds, what was chosen, curve
                       /<key of the task>.npz  ranks and lists of one task

Models with `network_settings` keep checkpoint.pt and seconds.json in a folder under the key of these settings, so that
those that differ only in the rest share one fit of the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.interfaces import EvalTask, Model, TrainingData
from models.metrics.top_k import Lists

SCHEMA: Final = 2
"""Increase it if the same settings lead to other results than before."""


@dataclass(frozen=True)
class FitInfo:
    """What is kept of a finished fit.

    Attributes:
        seconds: Time that fitting took.
        chosen: Settings that validation chose.
        curve: Figures of each epoch, if there are any.
    """

    seconds: float
    chosen: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[Mapping[str, Any], ...] = ()


class FitCache:
    """The folder of one fit: one model, one training part, one seed. With folder None nothing is kept.

    `progress` is the folder of the checkpoint, by default the same.
    """

    def __init__(self, folder: Path | None, progress: Path | None = None) -> None:
        self._folder = folder
        self._progress = progress or folder

    @property
    def checkpoint(self) -> Path | None:
        """The file in which the model may keep its progress."""
        return self._progress / "checkpoint.pt" if self._progress else None

    def spent(self) -> float:
        """Return the seconds that went into the checkpoint; 0 if there is none."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return 0.0
        return float(self._json("seconds.json", self._progress).get("seconds", 0.0))

    def keep_spent(self, seconds: float) -> None:
        """Keep the seconds that went into the current checkpoint."""
        if self._progress:
            write(self._progress / "seconds.json", json.dumps({"seconds": seconds}).encode())

    def info(self) -> FitInfo | None:
        """Return the result of a finished fit, or None."""
        content = self._json("fit.json", self._folder)
        return FitInfo(content["seconds"], content["chosen"], tuple(content["curve"])) if content else None

    def keep_info(self, info: FitInfo) -> FitInfo:
        """Keep the result of a fit and return it.

        If there already is one, that one stays and is returned, because its seconds are not those of reading a
        checkpoint.
        """
        if self._folder is None:
            return info
        if earlier := self.info():
            return earlier
        write(self._folder / "fit.json", json.dumps(asdict(info), default=str).encode())
        return info

    def lists(self, key: str) -> Lists | None:
        """Return the lists of an evaluated task, or None."""
        if self._folder is None:
            return None
        try:
            with np.load(self._folder / f"{key}.npz", allow_pickle=False) as content:
                return Lists(content["rank"], content["top"])
        except (OSError, ValueError, KeyError):
            return None  # not there

    def keep_lists(self, key: str, lists: Lists) -> None:
        """Keep the lists of a task."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = self._folder / f"{key}.partial.npz"
        np.savez_compressed(beside, rank=lists.rank, top=lists.top)
        beside.replace(self._folder / f"{key}.npz")

    def _json(self, name: str, folder: Path | None) -> dict[str, Any]:
        if folder is None:
            return {}
        try:
            content: dict[str, Any] = json.loads((folder / name).read_text("utf-8"))
            return content
        except (OSError, ValueError):
            return {}


def write(path: Path, content: bytes) -> None:
    """Write a temporary file, then rename it. A crash leaves the older file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    beside.write_bytes(content)
    beside.replace(path)


def cache_of(cache: Path | None, training: str, model: Model, seed: int) -> FitCache:
    """Return the cache of one fit. `training` is the key of the training data."""
    if cache is None:
        return FitCache(None)
    folder = cache / digest(SCHEMA, training, model.name, dict(model.settings), seed)[:32]
    network: Mapping[str, Any] | None = getattr(model, "network_settings", None)
    if network is None:
        return FitCache(folder)
    return FitCache(folder, cache / digest(SCHEMA, training, "network", dict(network), seed)[:32])


def digest(*parts: Any) -> str:
    """Return the sha256 (hex) of the content of numbers, texts, arrays, dataclasses, and lists and mappings of them."""
    total = sha256()
    for part in parts:
        _feed(total, part)
    return total.hexdigest()


def training_key(training: TrainingData) -> str:
    """Return the key of everything that fitting reads."""
    rows = training.rows
    learned = () if training.learned is None else (training.learned,)
    return digest(training.items, training.spec, training.text, vars(rows), training.use, training.watched, *learned)


def task_key(task: EvalTask, training: str) -> str:
    """Return the key of what is evaluated, and how. `training` is the key of the training data."""
    return digest(
        training,
        task.name,
        dict(task.settings),
        vars(task.rows),
        task.positions,
        task.filter_seen,
        task.candidates,
        task.groups,
    )


def _feed(total: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        total.update(f"array {part.dtype} {part.shape}\0".encode())
        total.update(np.ascontiguousarray(part).data)
    elif is_dataclass(part) and not isinstance(part, type):
        _feed(total, asdict(part))
    elif isinstance(part, Mapping):
        total.update(f"mapping {len(part)}\0".encode())
        for name in sorted(part, key=str):
            _feed(total, name)
            _feed(total, part[name])
    elif isinstance(part, (list, tuple)):
        total.update(f"list {len(part)}\0".encode())
        for one in part:
            _feed(total, one)
    else:
        total.update(f"{type(part).__name__} {part!r}\0".encode())
