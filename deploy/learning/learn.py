"""The loop of `freshet learn`: capture, train, judge, export, publish. A turn that is killed at any moment is gone on with.

    RUNS/NAME/                   a run (models/training/run.py), with learn.json beside it: what it was made of
    RUNS/NAME/gate.json          what the gate said
    RUNS/NAME/bundle.json        the bundle that it became
    RUNS/.texts.npz .checkpoints/ .half-*   text vectors, epochs of a training that was cut off, unfinished work

Every file and folder comes into being by a rename. What was trained on is in the key of learn.json, so that one part of the
data is trained on once, however often the loop is started.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import numpy as np
import polars as pl
from safetensors.numpy import load as load_tensors

from deploy.learning.durable import sync
from stream.core.errors import BundleError, DataError, DiskError
from stream.core.validation import Rules

if TYPE_CHECKING:
    from deploy.learning.remote import Remote
    from models.data import DataSet
    from models.evaluation.gate import Limits, Verdict
    from models.interfaces import ProgressCallback
    from models.training.run import Run
    from stream.inference.bundle import Bundle

log = logging.getLogger("freshet.learn")

FULL: Final = "full"
HEAD: Final = "head"
AUTO: Final = "auto"
UPDATES: Final = (HEAD, FULL, AUTO)
PUBLISHED: Final = "published"
REFUSED: Final = "refused"
NOTHING: Final = "nothing-new"
OUTCOMES: Final = (PUBLISHED, REFUSED, NOTHING)
ABOUT: Final = "learn.json"
GATE: Final = "gate.json"
BUNDLE: Final = "bundle.json"
HALF: Final = ".half-"
LOCK: Final = ".lock"
PARITY: Final = "parity"
GOLDEN: Final = "golden"
DAY: Final = 86_400_000
CHECKPOINTS: Final = ".checkpoints"
TEXTS: Final = ".texts.npz"
ADVANTAGE: Final = (
    "the run in use was not made by this loop: if it was trained on some of the days that are judged, it has an advantage there, "
    "and the update may be refused until the data is newer"
)
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class LearnSettings:
    """What to learn from, how, and where to.

    Attributes:
        folder: The data.
        runs: Folder of the runs.
        bundles: Folder of the bundles and CURRENT.
        update: How a run is made from the served one: one of UPDATES. AUTO makes a head update unless the last full one is
            `full_days` old.
        full_days: See `update`.
        start: The run that the served bundle was exported from; None if it is in `runs`.
        seed: Seed of the training.
        preset: Preset of a first training.
        epochs: Most epochs; None for the preset's.
        max_minutes: Limit of a training.
        days: Newest days that are learned from in every epoch.
        replay: Share of what is older in an epoch.
        limits: Limits of the gate; None for its own.
        keep: Runs, and bundles of this loop, that stay beside the served ones.
        oldest: Times before it (epoch ms) are refused.
        rating_scale: Of a first training; None for the data's.
    """

    folder: Path
    runs: Path
    bundles: Path
    update: str = AUTO
    full_days: float = 7.0
    start: Path | None = None
    seed: int = 0
    preset: str = "auto"
    epochs: int | None = None
    max_minutes: float = 60.0
    days: float = 30.0
    replay: float = 0.2
    limits: Limits | None = None
    keep: int = 5
    oldest: int = 0
    rating_scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a turn did.

    Attributes:
        outcome: One of OUTCOMES.
        bundle: Id of the bundle that was published, or of the one that stays; "" if there is none.
        run: Name of the run that was made; "" for none.
        update: How it was made.
        reasons: Why it was refused: name and text each.
        figures: What the gate measured.
        seconds: Time of the turn.
    """

    outcome: str
    bundle: str = ""
    run: str = ""
    update: str = ""
    reasons: tuple[tuple[str, str], ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self) | {"reasons": [{"reason": name, "text": text} for name, text in self.reasons]}


@dataclass(frozen=True)
class _Served:
    """The bundle that is served and the run that it was exported from."""

    bundle: Bundle
    run: Run
    name: str


class Serving(Protocol):
    """What decides which bundle is served."""

    by_current: bool
    """Whether it is the file CURRENT."""

    def bundle(self) -> str:
        """Return the id of the bundle that is served; "" for none."""
        ...

    def switch(self, bundle: str, reason: str) -> None:
        """Have a published bundle served."""
        ...


class ByCurrent:
    """The file CURRENT decides; publishing changes it."""

    by_current = True

    def __init__(self, bundles: Path) -> None:
        self._bundles = bundles

    def bundle(self) -> str:
        """See Serving. Raises BundleError if CURRENT holds no id."""
        from stream.inference.bundle import CURRENT, current

        return current(self._bundles).name if (self._bundles / CURRENT).exists() else ""

    def switch(self, bundle: str, reason: str) -> None:
        """Do nothing: publishing has changed CURRENT."""


class Learner:
    """The loop over one folder of runs. One process at a time may have it; use `alone`.

    Args:
        settings: See LearnSettings.
        capture: Brings the data up to date; None if the folder is filled by others.
        serving: What decides which bundle is served; None for CURRENT.
        remote: Where bundles are copied to, besides.
        report: Called with the progress.
    """

    def __init__(
        self,
        settings: LearnSettings,
        capture: Callable[[], None] | None = None,
        serving: Serving | None = None,
        remote: Remote | None = None,
        report: ProgressCallback | None = None,
    ) -> None:
        from models.interfaces import silent

        self._settings = settings
        self._capture = capture
        self._serving = serving or ByCurrent(settings.bundles)
        self._remote = remote
        self._report = report or silent

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder of runs. Raises DataError if another process does."""
        runs = self._settings.runs
        runs.mkdir(parents=True, exist_ok=True)
        with (runs / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{runs}: another process learns into it") from None
            yield

    def turn(self) -> Outcome:
        """Do everything once.

        Raises:
            DataError: The data cannot be learned from, or there is no run of the served bundle.
            BundleError: The served bundle is damaged.
            DiskError: A folder cannot be read or written.
            And what capturing raises.
        """
        try:
            return self._turn()
        except OSError as error:
            raise DiskError(_trouble(error, self._settings.runs)) from None

    def _turn(self) -> Outcome:
        from models.network.text_store import StoredTexts

        began = time.monotonic()
        for half in self._settings.runs.glob(f"{HALF}*"):
            shutil.rmtree(half, ignore_errors=True)
        for gone in self._settings.bundles.glob(".*"):
            if _ID.fullmatch(gone.name[1:]):  # a kill came while it was deleted
                shutil.rmtree(gone, ignore_errors=True)
        if self._capture is not None:
            self._capture()
        served = self._served()
        data = self._data(served)
        encoder = StoredTexts(self._settings.runs / TEXTS)
        outcome = self._updated(data, served, encoder)
        encoder.save()
        self._copy()
        self._prune()
        return replace(outcome, seconds=round(time.monotonic() - began, 1))

    def _updated(self, data: DataSet, served: _Served | None, encoder: Any) -> Outcome:
        from models.data.dataset import fingerprint
        from models.evaluation.gate import Limits, judged_since
        from models.training.run import load_run

        limits = self._settings.limits or Limits()
        since = judged_since(data, limits)
        part = replace(data, events=data.events.filter(pl.col("time") < since))
        mark = fingerprint(part.events)
        update = self._update(served, int(part.events["time"][-1]))
        bundle = served.bundle.id if served else ""
        if served and (served.run.data.sha256 == mark or served.run.lineage.get("until", 0) >= since):
            return Outcome(NOTHING, bundle)
        key = sha256(mark.encode()).hexdigest()
        name = self._made(key)
        if name and (self._settings.runs / name / GATE).exists():
            reasons, _ = _said(self._settings.runs / name / GATE)
            if reasons or (self._settings.runs / name / BUNDLE).exists():
                return Outcome(NOTHING, bundle)
        if not name:
            name = self._train(part, served, encoder, key, update)
        run = load_run(self._settings.runs / name)
        path = self._settings.runs / name / GATE
        if not path.exists():
            if served is not None and "until" not in served.run.lineage:
                self._report("note", 1, 1, ADVANTAGE)
            _write(path, _verdict(self._judge(data, since, served, run, encoder, limits)))
        reasons, figures = _said(path)
        if not reasons:
            run = replace(run, lineage=dict(run.lineage) | {"gate": figures})
            try:
                identity = self._publish(run, served)
            except BundleError as error:
                reasons = ((PARITY if "away from torch" in str(error) else GOLDEN, str(error)),)
                told = [{"reason": one, "text": text} for one, text in reasons]
                _write(path, {"reasons": told, "figures": figures})
        if reasons:
            return Outcome(REFUSED, bundle, name, str(run.lineage["update"]), reasons, figures)
        _write(self._settings.runs / name / BUNDLE, {"bundle": identity})
        return Outcome(PUBLISHED, identity, name, str(run.lineage["update"]), (), figures)

    def _data(self, served: _Served | None) -> DataSet:
        """Read the data with the choices, weights and rating scale of the served run. Raises DataError."""
        from models.data import read
        from models.data.checked import require_accepted

        scale = served.run.spec.rating_scale if served else self._settings.rating_scale
        data = read(self._settings.folder, scale)
        require_accepted(data.name, data.events, Rules(data.rating_scale, self._settings.oldest), data.oldest)
        if served:
            data = replace(data, choices=served.run.spec.choices, weights=served.run.spec.weights)
        return data

    def _served(self) -> _Served | None:
        """Return what is served; None if no bundle is. Raises DataError if its run is not there."""
        from models.training.run import load_run
        from stream.inference.bundle import load

        identity = self._serving.bundle()
        if not identity:
            if self._settings.start is not None:
                raise DataError(
                    f"{self._settings.bundles}: no bundle is in use, so none was exported from {self._settings.start}: export it "
                    "first, correct --bundles, or leave --from out to train from nothing"
                )
            return None
        bundle = load(self._settings.bundles / identity)
        weights = {
            name: value for name, value in load_tensors(bundle.read("weights.safetensors")).items() if name != "text"
        }
        for folder in self._runs():
            if _same(folder, bundle, weights):
                _finish(folder, identity)
                return _Served(bundle, load_run(folder), folder.name)
        start = self._settings.start
        if start is None or not _same(start, bundle, weights):
            raise DataError(
                f"{start or self._settings.runs}: {'is not the' if start else 'holds no'} run with the weights of the bundle in "
                f"use, {bundle.id[:12]}...; name the run that it was exported from: --from RUN"
            )
        name = f"{_now()}-{bundle.id[:12]}"
        half = self._settings.runs / f"{HALF}{name}"
        shutil.copytree(start, half)
        _name(half, self._settings.runs / name)
        return _Served(bundle, load_run(self._settings.runs / name), name)

    def _made(self, key: str) -> str:
        """Return the name of the run that was made of this data from this bundle; "" for none."""
        for folder in self._runs():
            if (folder / ABOUT).exists() and _read(folder / ABOUT).get("key") == key:
                return folder.name
        return ""

    def _update(self, served: _Served | None, until: int) -> str:
        """Return HEAD or FULL for a training on events up to `until`."""
        if served is None:
            return FULL
        if self._settings.update != AUTO:
            return self._settings.update
        # without a time of its own, the run was not made by this loop: nothing says how old its step is
        full = served.run.lineage.get("full_until", 0)
        return FULL if until - full >= self._settings.full_days * DAY else HEAD

    def _train(self, part: DataSet, served: _Served | None, encoder: Any, key: str, update: str) -> str:
        """Train, and return the name of the run."""
        from models.evaluation.gate import day_of
        from models.training.curve import write_curve
        from models.training.run import save_run
        from models.training.train import TrainSettings, train

        own = self._settings
        settings = TrainSettings(
            seed=own.seed,
            holdout=0,
            preset=own.preset if served is None else "auto",
            epochs=own.epochs,
            max_minutes=own.max_minutes,
            days=own.days,
            replay=own.replay,
            head=update == HEAD,
        )
        trained = train(
            part,
            settings,
            encoder,
            self._report,
            checkpoints=own.runs / CHECKPOINTS,
            start=served.run if served else None,
        )
        times = part.events["time"]
        lineage = {
            "parent": served.bundle.id if served else "",
            "update": update,
            "until": int(times[-1]),
            "full_until": int(times[-1])
            if update == FULL or served is None
            else served.run.lineage.get("full_until", 0),
            "days": [day_of(int(times[0])), day_of(int(times[-1]))],
            "new_days": own.days if served else 0,
            "replay": own.replay if served else 1.0,
        }
        name = f"{_now()}-{lineage['update']}"
        half = own.runs / f"{HALF}{name}"
        shutil.rmtree(half, ignore_errors=True)
        save_run(replace(trained.run, lineage=lineage), half)
        write_curve(trained.curve, trained.floor, half)
        _write(half / ABOUT, {"key": key, "parent_run": served.name if served else "", **lineage})
        _name(half, own.runs / name)
        return name

    def _judge(
        self, data: DataSet, since: int, served: _Served | None, run: Run, encoder: Any, limits: Limits
    ) -> Verdict:
        """Judge the run; the first one only has to be finite."""
        from models.evaluation.gate import Reason, Verdict, judge, not_finite

        if served is None:
            broken = not_finite(run)
            return Verdict((Reason("not-finite", broken),) if broken else ())
        return judge(data, since, served.run, run, encoder, limits, self._report)

    def _publish(self, run: Run, served: _Served | None) -> str:
        """Export and publish. Return the bundle's id. Raises BundleError if the graphs do not compute what torch does."""
        import torch

        from export.publish import build, publish
        from stream.inference.bundle import CURRENT

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the network is small; more threads only take cores from others
        try:
            text = served.bundle.read("text.onnx") if served and not served.bundle.reading else None
            base = served.bundle if served else None
            # without any bundle, processes that follow no activations (the tally) would have none
            switch = self._serving.by_current or not (self._settings.bundles / CURRENT).exists()
            folder = publish(build(run, text=text, base=base), self._settings.bundles, switch=switch)
        finally:
            torch.set_num_threads(threads)
        if self._remote is not None and not self._serving.by_current:  # workers may have their bundles from there
            try:
                self._remote.send(folder)
            except DiskError as error:
                log.error("the bundle is activated before it is copied: %s", error)
        self._serving.switch(folder.name, f"freshet learn: {run.lineage.get('update', FULL)} update")
        return folder.name

    def _copy(self) -> None:
        """Bring the remote folder up to what is served, also after a turn that was killed before it did."""
        served = self._serving.bundle()
        if self._remote is not None and served and self._remote.current() != served:
            self._remote.send(self._settings.bundles / served)

    def _runs(self) -> list[Path]:
        """Return the folders of finished runs, newest first."""
        found = [path.parent for path in self._settings.runs.glob("*/run.json") if not path.parent.name.startswith(".")]
        return sorted(found, key=lambda folder: folder.name, reverse=True)

    def _prune(self) -> None:
        """Delete all but the newest runs, and the bundles of those deleted; never what is served or its parent."""
        own, served = self._settings, self._serving.bundle()
        bundles = {folder.name: _bundle_of(folder) for folder in self._runs()}
        kept = {served, ByCurrent(own.bundles).bundle()}
        for name, mine in bundles.items():
            if mine == served and (own.runs / name / ABOUT).exists():
                kept.add(str(_read(own.runs / name / ABOUT).get("parent")))
        for number, folder in enumerate(self._runs()):
            mine = bundles[folder.name]
            if number < own.keep or (mine and mine in kept) or not (folder / ABOUT).exists():
                continue  # without learn.json it came from elsewhere
            if mine and (own.bundles / mine).is_dir():
                if self._remote is not None:
                    self._remote.remove(mine)
                gone = own.bundles / f".{mine}"
                (own.bundles / mine).rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
            half = own.runs / f"{HALF}{folder.name}"
            folder.rename(half)
            shutil.rmtree(half, ignore_errors=True)


def _bundle_of(folder: Path) -> str:
    """Return the bundle that a run became; "" if none. Raises DataError."""
    if not (folder / BUNDLE).exists():
        return ""
    bundle = str(_read(folder / BUNDLE).get("bundle"))
    if not _ID.fullmatch(bundle):
        raise DataError(f"{folder / BUNDLE}: expected the id of a bundle, 64 hex digits")
    return bundle


def _finish(folder: Path, bundle: str) -> None:
    """Write which bundle a run of this loop became, if a kill came between: else neither it nor its parent is known as ours."""
    if (folder / ABOUT).exists() and (folder / GATE).exists() and not (folder / BUNDLE).exists():
        reasons, _ = _said(folder / GATE)
        if not reasons:  # a refused one was exported by hand
            _write(folder / BUNDLE, {"bundle": bundle})


def _same(folder: Path, bundle: Bundle, weights: Mapping[str, Any]) -> bool:
    """Return whether a bundle was made from a run: of the same data, with exactly these weights.

    Weights alone would not do: no epoch of an update may have been kept.
    """
    try:
        if _read(folder / "run.json")["data"]["sha256"] != bundle.data.get("sha256"):
            return False
        mine = load_tensors((folder / "weights.safetensors").read_bytes())
    except (DataError, OSError, ValueError, KeyError, TypeError):
        return False
    return mine.keys() == weights.keys() and all(np.array_equal(mine[name], value) for name, value in weights.items())


def _verdict(found: Verdict) -> dict[str, Any]:
    return {
        "reasons": [{"reason": one.name, "text": one.text} for one in found.reasons],
        "figures": dict(found.figures),
    }


def _said(path: Path) -> tuple[tuple[tuple[str, str], ...], dict[str, Any]]:
    """Return what a gate.json says: the reasons, name and text each, and the figures. Raises DataError."""
    found = _read(path)
    try:
        return tuple((str(one["reason"]), str(one["text"])) for one in found["reasons"]), dict(found["figures"])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: expected `reasons` and `figures`: delete the folder {path.parent}") from None


def _trouble(error: OSError, folder: Path) -> str:
    """Return what the disk says, and where."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):  # of each file that could not be copied
        return f"{folder}: {str(error.args[0][0][-1])[:200]}"
    return f"{error.filename or folder}: {error.strerror or str(error)[:200]}"


def _now() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def _read(path: Path) -> dict[str, Any]:
    """Return the content of one of the loop's files. Raises DataError."""
    try:
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{path}: {error}") from None
    return found


def _name(half: Path, path: Path) -> None:
    """Give a finished folder its name, once all of it is on disk."""
    for one in (*half.rglob("*"), half):
        sync(one)
    half.rename(path)
    sync(path.parent)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file, synced, by a rename."""
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
