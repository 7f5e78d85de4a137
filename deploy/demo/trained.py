"""The demo's bundle: trained and exported once for this data, these settings and this code, then reused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from models.data import DataSet
from models.data.dataset import fingerprint
from models.network.text import TextEncoder
from models.training.run import Run, load_run, save_run
from models.training.train import TrainSettings, train
from stream.inference.bundle import CURRENT

ROOT = Path(__file__).resolve().parents[2]
CODE = ("models", "export", "stream/core/features.py", "stream/inference/bundle.py")


@dataclass(frozen=True)
class Prepared:
    """A trained run with its bundle.

    Attributes:
        run: The trained network and its popularity counts.
        bundles: Folder for `freshet worker`.
        fresh: Created by this call, not found from an earlier demo.
    """

    run: Run
    bundles: Path
    fresh: bool


def prepare(
    data: DataSet,
    home: Path,
    settings: TrainSettings,
    report: Callable[[str, int, int, str], None],
    exporting: Callable[[Run], None],
) -> Prepared:
    """Train on the training part and export, or reuse the result of an earlier demo.

    Args:
        data: The data set.
        home: Folder below which the result is kept.
        settings: Settings of the training.
        report: Receives progress, as in models.training.train.
        exporting: Called between training and export.

    Raises:
        DataError: The data cannot be trained on.
        BundleError: The bundle cannot be built.
    """
    import torch

    from export.publish import build, publish

    folder = home.absolute() / f"trained-{_key(data, settings)}"
    bundles = folder / "bundles"
    if (bundles / CURRENT).is_file():
        run = load_run(folder)
        exporting(run)
        return Prepared(run, bundles, fresh=False)
    trained = train(data, settings, TextEncoder(), report)
    save_run(trained.run, folder)
    exporting(trained.run)
    torch.set_num_threads(1)  # the network is small; more threads only take cores from others
    run = load_run(folder)
    publish(build(run), bundles)
    return Prepared(run, bundles, fresh=True)


def _key(data: DataSet, settings: TrainSettings) -> str:
    """Return 16 hex digits that depend on events, items, training settings, and the code that trains and exports."""
    digest = sha256(fingerprint(data.events).encode())
    digest.update(repr(data.items).encode())
    digest.update(json.dumps(asdict(settings), sort_keys=True).encode())
    for name in CODE:
        path = ROOT / name
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
