"""The folder that training writes and export reads. No pickle: weights are safetensors, the rest is JSON and numpy.

run.json             schema, sizes, input spec, data, metrics, settings
weights.safetensors  the network's parameters
text.npy             float32 [N + 1, X]: BERT vectors of the item texts; row 0 UNKNOWN, zeros
items.json           the N item ids; items[i] owns row i + 1
popularity.npy       float32 [N + 1]: interactions in the training part; row 0 is 0
neighbours.npz       index int64 [N + 1, K], weight float32 [N + 1, K]: neighbours of the items
                     (models/training/neighbours.py); K may be 0
projection.npz       mean float32 [X], matrix float32 [X, P]: the projection of the texts (models/network/projection.py);
                     new bool [N + 1]: items that training has not seen; only if the sum has a text term, and then the
                     schema is TEXTUAL or HEADED
reading/             the text rating that gives comments a value (models/text_rating); only if the run reads ratings
curve.json curve.png loss and validation figures per epoch
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save

from models.data.choices import parse_choices
from models.data.histories import Flags, Floats
from models.network.blend import Blend, Neighbours, Texts, no_neighbours, no_texts, scaled_texts
from models.network.network import InterestNetwork, NetworkSize
from models.network.projection import Projection, no_projection
from models.network.text import MAX_TOKENS
from models.text_rating.reading import Reading, load_reading, save_reading
from models.training.diversity import Chosen
from models.training.neighbours import NeighbourSettings
from models.training.tables import TableSettings
from stream.core.errors import DataError
from stream.core.features import ACTIONS, CHOICES, InputSpec
from stream.core.state import MAX_RECENT

SCHEMA: Final = 2
TEXTUAL: Final = 3
HEADED: Final = 4
"""Schemas of a run. It is TEXTUAL if the sum has a text term, so that a version that would leave it out refuses the run, and
HEADED, with or without a text term, if the items have output vectors of their own."""
READING: Final = "reading"


@dataclass(frozen=True)
class DataInfo:
    """What the run was trained on.

    Attributes:
        name: Name of the data set.
        sha256: Hex digest of the training events in their order.
        events: Number of training events.
    """

    name: str
    sha256: str
    events: int


@dataclass(frozen=True)
class Run:
    """A trained network (on the CPU, in eval mode) with everything needed to serve it.

    Row 0 of `popularity` and `text` is UNKNOWN; `item_ids[i]` owns row i + 1. "" or empty means unknown.

    Attributes:
        network: The network.
        spec: How events become inputs.
        item_ids: The N item ids.
        popularity: float32 [N + 1].
        text: float32 [N + 1, X].
        data: What the run was trained on.
        metrics: Name -> figure.
        settings: Settings of the training.
        max_tokens: Number of tokens of a text that BERT reads.
        blend: The weights of the sum that is served.
        neighbours: The neighbours in that sum. K may be 0.
        projection: The projection of the texts in that sum. P may be 0.
        new: bool [N + 1], items that training has not seen. It counts only if the sum has texts.
        protocol: How the metrics were measured, in words.
        intervals: Name of a metric -> its 95 % interval.
        seconds: Time that training took.
        seeds: Seeds of training.
        reading: Gives a value to comments without one, in training and in serving. None leaves them without.
        diversity: How slates are re-ranked.
        tables: How a tally should count neighbours and popularity, if the sum was chosen with tables that follow the stream.
        lineage: What it was made from by `freshet learn`: parent bundle, days of the data, figures of the gate. JSON values.
    """

    network: InterestNetwork
    spec: InputSpec
    item_ids: tuple[str, ...]
    popularity: Floats
    text: Floats
    data: DataInfo
    metrics: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    max_tokens: int = MAX_TOKENS
    blend: Blend = field(default_factory=Blend)
    neighbours: Neighbours = field(default_factory=no_neighbours)
    projection: Projection = field(default_factory=no_projection)
    new: Flags = field(default_factory=lambda: np.zeros(0, np.bool_))
    protocol: str = ""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: float = 0.0
    seeds: tuple[int, ...] = ()
    reading: Reading | None = None
    diversity: Chosen = field(default_factory=Chosen)
    tables: TableSettings | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text_width(self) -> int:
        """P of the texts in the sum; 0 if it has none."""
        return self.projection.width if self.blend.text else 0

    @property
    def texts(self) -> Texts:
        """The items' projected texts in the sum."""
        return Texts(self.projection.apply(self.text), self.new) if self.text_width else no_texts(len(self.text))

    @property
    def scaled_texts(self) -> Floats:
        """The same as score.onnx reads them, float32 [N + 1, P]."""
        return scaled_texts(self.texts, self.blend)

    @property
    def more_for_new(self) -> float:
        """How much longer the texts of new items are there."""
        return self.blend.text_new / self.blend.text if self.text_width else 1.0


def save_run(run: Run, folder: Path) -> None:
    """Write `run` into `folder`. run.json is written last, so a folder without it is an unfinished run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").unlink(missing_ok=True)
    weights = save({name: tensor.contiguous() for name, tensor in run.network.state_dict().items()})
    (folder / "weights.safetensors").write_bytes(weights)  # so that a full disk is an OSError
    np.save(folder / "text.npy", run.text)
    np.save(folder / "popularity.npy", run.popularity)
    np.savez(folder / "neighbours.npz", index=run.neighbours.index, weight=run.neighbours.weight)
    if run.text_width:
        np.savez(folder / "projection.npz", mean=run.projection.mean, matrix=run.projection.matrix, new=run.new)
    (folder / "items.json").write_text(json.dumps(run.item_ids), "utf-8")
    if run.reading:
        save_reading(run.reading, folder / READING)
    about = {
        "schema": HEADED if run.network.size.untied else TEXTUAL if run.text_width else SCHEMA,
        "size": {name: value for name, value in asdict(run.network.size).items() if value or name != "untied"},
        "inputs": asdict(run.spec),
        "max_tokens": run.max_tokens,
        "data": asdict(run.data),
        "metrics": run.metrics,
        "settings": run.settings,
        "blend": asdict(run.blend) if run.text_width else blend_numbers(run.blend),
        "protocol": run.protocol,
        "intervals": run.intervals,
        "seconds": run.seconds,
        "seeds": run.seeds,
        "reads_ratings": run.reading is not None,
        "diversity": asdict(run.diversity),
        **({"tables": asdict(run.tables)} if run.tables else {}),
        **({"lineage": dict(run.lineage)} if run.lineage else {}),
    }
    (folder / "run.json").write_text(json.dumps(about, indent=1), "utf-8")


def load_run(folder: Path) -> Run:
    """Read a run. Raises DataError if the folder is not a finished run or its parts do not fit one another."""
    try:
        about = json.loads((folder / "run.json").read_text("utf-8"))
        if about["schema"] not in (SCHEMA, TEXTUAL, HEADED):
            raise DataError(
                f"{folder}: the run has schema {about['schema']}; this version reads {SCHEMA}, {TEXTUAL} and {HEADED}"
            )
        size = NetworkSize(**about["size"] | {"features": tuple(about["size"]["features"])})
        scale, scenes = about["inputs"]["rating_scale"], about["inputs"]["scenes"]
        choices = parse_choices(",".join(about["inputs"].get("choices", CHOICES)))
        weights = tuple(sorted((str(name), float(weight)) for name, weight in about["inputs"].get("weights", ACTIONS)))
        actions = tuple(map(str, about["inputs"].get("actions", ())))
        spec = InputSpec(
            (float(scale[0]), float(scale[1])),
            tuple(scenes),
            int(about["inputs"]["text_dim"]),
            choices,
            weights,
            actions,
        )
        text = np.load(folder / "text.npy", allow_pickle=False)
        popularity = np.load(folder / "popularity.npy", allow_pickle=False)
        item_ids = tuple(json.loads((folder / "items.json").read_text("utf-8")))
        weights = load_file(folder / "weights.safetensors")
        blend = Blend(**about["blend"])
        with np.load(folder / "neighbours.npz", allow_pickle=False) as arrays:
            neighbours = Neighbours(arrays["index"], arrays["weight"])
        projection, new = no_projection(text.shape[1]), np.zeros(len(text), np.bool_)
        if blend.text:
            with np.load(folder / "projection.npz", allow_pickle=False) as arrays:
                projection, new = Projection(arrays["mean"], arrays["matrix"]), arrays["new"]
        if not len(item_ids) + 1 == size.items + 1 == len(text) == len(popularity):
            raise DataError(
                f"{folder}: items.json, text.npy, popularity.npy and run.json differ in the number of items"
            )
        check_blend(blend, neighbours, len(item_ids), str(folder))
        check_texts(blend, projection, new, text.shape, str(folder))
        check_actions(spec, size, str(folder))
        network = InterestNetwork(size, torch.from_numpy(text))
        network.load_state_dict(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{folder} is not a finished training run: {error}") from None
    network.requires_grad_(False).eval()
    return Run(
        network=network,
        spec=spec,
        item_ids=item_ids,
        popularity=popularity,
        text=text,
        data=DataInfo(**about["data"]),
        metrics=about["metrics"],
        settings=about["settings"],
        max_tokens=about["max_tokens"],
        blend=blend,
        neighbours=neighbours,
        projection=projection,
        new=new,
        protocol=about["protocol"],
        intervals={name: (float(low), float(high)) for name, (low, high) in about["intervals"].items()},
        seconds=about["seconds"],
        seeds=tuple(about["seeds"]),
        reading=load_reading(folder / READING) if about.get("reads_ratings") else None,
        diversity=_diversity(about.get("diversity")),
        tables=_tables(about.get("tables")),
        lineage=dict(about.get("lineage", {})),
    )


def _diversity(about: dict[str, Any] | None) -> Chosen:
    """Return what a run says about diversity. Runs of earlier versions say nothing: strength 0."""
    if about is None:
        return Chosen()
    found = Chosen(float(about["strength"]), float(about["budget"]), dict(about["metrics"]))
    if not 0 <= found.strength <= 1:
        raise ValueError(f"diversity: strength {found.strength:g}, expected 0 to 1")
    return found


def _tables(about: dict[str, Any] | None) -> TableSettings | None:
    """Return what a run says about the counting of tables."""
    return (
        None
        if about is None
        else TableSettings(about["tables"], NeighbourSettings(**about["near"]), int(about["prior"]))
    )


def blend_numbers(blend: Blend) -> dict[str, Any]:
    """Return the numbers of a sum without its text term, by name."""
    return {name: value for name, value in asdict(blend).items() if not name.startswith("text")}


def check_actions(spec: InputSpec, size: NetworkSize, where: str) -> None:
    """Raise DataError if the network reads a different number of actions than it would be given."""
    reads = size.actions if size.reads_actions else 0
    if len(spec.actions) != reads:
        raise DataError(
            f"{where}: inputs.actions: {len(spec.actions)} names ({', '.join(spec.actions) or 'none'}), but the network reads "
            f"{reads}; expected the same number. Train the run again"
        )


def check_blend(blend: Blend, neighbours: Neighbours, items: int, where: str) -> None:
    """Raise DataError if the sum cannot be served: numbers are out of range, or arrays do not fit N = `items`."""
    numbers = (blend.fade, blend.neighbour, blend.prior, blend.evidence)
    if not (
        np.isfinite(numbers).all() and 0 < blend.fade <= 1 and 0 <= blend.last <= MAX_RECENT and blend.evidence > 0
    ):
        raise DataError(
            f"{where}: blend {blend}: expected finite numbers, fade in (0, 1], last in 0 .. {MAX_RECENT}, evidence above 0"
        )
    index, weight = neighbours.index, neighbours.weight
    if index.ndim != 2 or index.shape != weight.shape or (index.shape[1] and len(index) != items + 1):
        raise DataError(
            f"{where}: neighbours: index {index.shape}, weight {weight.shape}; expected ({items + 1}, K) for both"
        )
    if index.dtype != np.int64 or weight.dtype != np.float32 or not np.isfinite(weight).all():
        raise DataError(f"{where}: neighbours: {index.dtype}, {weight.dtype}; expected int64 and finite float32")
    if index.size and (index.min() < 0 or index.max() > items or index[0].any() or weight[0].any()):
        raise DataError(f"{where}: neighbours: rows outside 0 .. {items}, or row 0 is not empty")


def check_texts(blend: Blend, projection: Projection, new: Flags, shape: tuple[int, ...], where: str) -> None:
    """Raise DataError if the text term cannot be served: numbers are out of range, or arrays do not fit texts of `shape`."""
    numbers = blend.text, blend.text_new, blend.text_fade
    if not np.isfinite(numbers).all() or not 0 < blend.text_fade <= 1 or not 0 <= blend.text <= blend.text_new:
        raise DataError(f"{where}: blend {blend}: expected finite numbers, text_fade in (0, 1], text in 0 .. text_new")
    if not blend.text:
        if blend.text_new:
            raise DataError(f"{where}: blend {blend}: expected text above 0, as text_new is")
        return
    mean, matrix, width = projection.mean, projection.matrix, shape[1]
    if new.dtype != np.bool_ or new.shape != shape[:1]:
        raise DataError(f"{where}: projection: new is {new.dtype} {new.shape}; expected bool {shape[:1]}")
    if mean.shape != (width,) or matrix.ndim != 2 or len(matrix) != width or not matrix.shape[1]:
        raise DataError(
            f"{where}: projection: mean {mean.shape}, matrix {matrix.shape}; expected ({width},), ({width}, P) with P above 0"
        )
    if not (mean.dtype == matrix.dtype == np.float32 and np.isfinite(mean).all() and np.isfinite(matrix).all()):
        raise DataError(f"{where}: projection: {mean.dtype}, {matrix.dtype}; expected finite float32")
