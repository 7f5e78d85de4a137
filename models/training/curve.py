"""Writes the training curve: figures as JSON, and a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from models.training.train import Epoch


def write_curve(curve: Sequence[Epoch], floor: float, folder: Path) -> None:
    """Write curve.json and curve.png. `floor` is HR@10 of popularity on the same validation part."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    (folder / "curve.json").write_text(json.dumps([asdict(epoch) for epoch in curve], indent=1), "utf-8")
    epochs = [epoch.epoch + 1 for epoch in curve]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.plot(epochs, [epoch.loss for epoch in curve], marker="o")
    left.set(title="training loss", xlabel="epoch", ylabel="nats per state")
    right.plot(epochs, [epoch.hit10 for epoch in curve], marker="o", label="HR@10")
    right.plot(epochs, [epoch.ndcg10 for epoch in curve], marker="o", label="NDCG@10")
    right.axhline(floor, color="grey", linestyle="--", label="popularity HR@10")
    right.set(title="validation, seen items left out", xlabel="epoch", ylim=(0, None))
    right.legend()
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(folder / "curve.png", dpi=120)
    pyplot.close(figure)
