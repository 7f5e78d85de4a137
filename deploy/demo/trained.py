"""The demo's bundle: trained and exported once for this data, these settings and this code, then used again."""

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
    """run: the trained network and its popularity counts; bundles: folder for `freshet worker`; fresh: made just now."""

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
    """Train on the training part and export, or find both done. report: as in models.training.train; exporting: called between
    the two. Raises DataError, BundleError."""
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
    """16 hex digits that change with the events, the items, the training settings and the code that trains and exports."""
    digest = sha256(fingerprint(data.events).encode())
    digest.update(repr(data.items).encode())
    digest.update(json.dumps(asdict(settings), sort_keys=True).encode())
    for name in CODE:
        path = ROOT / name
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
