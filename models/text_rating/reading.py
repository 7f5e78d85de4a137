"""A learned text rating as a folder: reading.json and reading.safetensors (tuned layers and head; no pickle)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.data.histories import Doubles
from models.network.text import TEXT_DIM, load_bert
from models.text_rating.head import HeadSettings, RatingHead
from models.text_rating.tuned import Feed, TunedReader, TuneSettings
from stream.core.errors import DataError

SCHEMA: Final = 1


@dataclass(frozen=True)
class Reading:
    """A text rating that is ready for use.

    Attributes:
        reader: The network.
        settings: How it was tuned.
        classes: The values that occurred in training.
        scale: (min, max) of its data.
        curve: Validation RMSE before training and after each epoch.
        epochs: The epoch of the weights.
        seconds: Time that training took.
        data: For people: what it was trained on.
        metrics: For people: its figures.
    """

    reader: TunedReader
    settings: TuneSettings
    classes: tuple[float, ...]
    scale: tuple[float, float]
    curve: tuple[float, ...] = ()
    epochs: int = 0
    seconds: float = 0.0
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def values(self, texts: Sequence[str], scale: tuple[float, float] | None = None) -> Doubles:
        """Return f64 [n]: the rating in each text; NaN for the empty one.

        Values are stretched from the reading's own scale to `scale`. By default they stay on its own.
        """
        out = np.full(len(texts), np.nan)
        real = [row for row, text in enumerate(texts) if text]
        feed = Feed(self.reader, self.settings.frozen)
        out[real] = feed.read(feed.of([texts[row] for row in real]))
        (low, high), (least, most) = self.scale, scale or self.scale
        return least + (out - low) * (most - least) / (high - low)


def save_reading(reading: Reading, folder: Path) -> None:
    """Write a folder. reading.json is written last, so a folder without it is unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reading.json").unlink(missing_ok=True)
    save_file(_own(reading.reader, reading.settings.frozen), folder / "reading.safetensors")
    about = {name: value for name, value in vars(reading).items() if name not in ("reader", "settings")}
    about |= {"schema": SCHEMA, "settings": asdict(reading.settings)}
    (folder / "reading.json").write_text(json.dumps(about, indent=1), "utf-8")


def load_reading(folder: Path) -> Reading:
    """Read a folder. Raises DataError if it is not a finished text rating or its parts do not fit one another."""
    try:
        about = json.loads((folder / "reading.json").read_text("utf-8"))
        if about.pop("schema") != SCHEMA:
            raise DataError(f"{folder}: reading.json has another schema; this version reads {SCHEMA}")
        settings = TuneSettings(**about.pop("settings"))
        settings = TuneSettings(**vars(settings) | {"head": HeadSettings(**vars(settings)["head"])})
        classes, scale = tuple(about.pop("classes")), (float(about["scale"][0]), float(about.pop("scale")[1]))
        reader = TunedReader(load_bert(), RatingHead(TEXT_DIM, classes, scale, settings.head))
        weights = load_file(folder / "reading.safetensors")
        if set(weights) != set(_own(reader, settings.frozen)):
            raise DataError(f"{folder}: the tensors in reading.safetensors are not those that reading.json describes")
        reader.load_state_dict(weights, strict=False)
        curve = tuple(about.pop("curve"))
        made = Reading(reader.requires_grad_(False).eval(), settings, classes, scale, curve, **about)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder} is not a finished text rating: {error}") from None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise DataError(f"{folder}: reading.safetensors holds values that are not finite")
    return made


def _own(reader: TunedReader, frozen: int) -> dict[str, Tensor]:
    """Return the tensors that differ from those of the text network as shipped."""
    names = [f"bert.encoder.layer.{layer}." for layer in range(frozen, len(reader.bert.encoder.layer))]
    names += ["head.", *([] if frozen else ["bert.embeddings."])]
    return {name: tensor.contiguous() for name, tensor in reader.state_dict().items() if name.startswith(tuple(names))}
