"""A verified bundle of models: what export hands to the worker. docs/bundle.md describes the format.

No part of a bundle is used before its hash is verified. Each file is read once, as bytes, so that what was verified is
what is used. Every refusal is a BundleError that names the file and the reason.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from stream.core.errors import BundleError
from stream.core.features import ACTIONS, CHOICES, InputSpec
from stream.core.score_tables import ScoreTables
from stream.core.state import MAX_RECENT
from stream.inference import onnx_check
from stream.settings import toml_file

PLAIN: Final = 2
ACTING: Final = 3
TEXTUAL: Final = 4
TABLED: Final = 5
HEADED: Final = 6
"""Schemas of the manifest. Since neighbours and log-popularity are inputs of the score graph it is TABLED, with or without
texts and actions. Bundles of earlier versions, whose graph has them inside, are TEXTUAL if the score graph reads texts, with
or without actions; otherwise ACTING if the step graph reads actions; otherwise PLAIN. So a version that does not feed an
input refuses the bundle by its schema. Nothing else differs. HEADED is TABLED with output vectors of the items: what is scored is
not what the step graph reads."""
SCHEMAS: Final = (PLAIN, ACTING, TEXTUAL, TABLED, HEADED)
OPSET: Final = 20
CURRENT: Final = "CURRENT"
MANIFEST: Final = "manifest.json"
GRAPHS: Final = ("step.onnx", "score.onnx", "text.onnx", "item.onnx")
RATING: Final = "rating.onnx"
"""Present if the manifest has `reading`: then comments without a value get one."""
TEXTS: Final = "texts.npy"
"""Present if the manifest has `text_term`."""
OUTPUTS: Final = "outputs.npy"
"""Present if the schema is HEADED."""
NEAR: Final = "near.npy"
WEIGHTS: Final = "near_weights.npy"
LOG_POPULARITY: Final = "log_popularity.npy"
"""The bundle's own tables (stream.core.score_tables), present if the schema is TABLED or HEADED."""
TABLES: Final = (NEAR, WEIGHTS, LOG_POPULARITY)
FILES: Final = (
    *GRAPHS, "tokenizer.json", "items.npy", "item_ids.json", "popularity.npy", "golden.npz", "weights.safetensors",
    "card.md",
)  # fmt: skip
_ID = re.compile(r"[0-9a-f]{64}")
_MAX_MANIFEST = 4 << 20
_MAX_FILE = 16 << 30
_MAX_GOLDEN = 1 << 30  # unpacked bytes: a small archive can hold any number of zeros
_UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
Width = Annotated[int, Meta(ge=1, le=1 << 20)]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class FileEntry(Struct, frozen=True):
    """One file of the bundle: hex sha256 and size."""

    sha256: Hash
    bytes: Annotated[int, Meta(ge=0, le=_MAX_FILE)]


class Dims(Struct, frozen=True):
    """Sizes of the models.

    Attributes:
        item: Width D.
        hidden: Width H.
        text: Width T.
        items: Number of items N.
        max_tokens: Maximum tokens of a text.
    """

    item: Width
    hidden: Width
    text: Width
    items: Annotated[int, Meta(ge=0)]
    max_tokens: Annotated[int, Meta(ge=8, le=512)]


class _Version(Struct, frozen=True):
    schema: int
    opset: int


class Inputs(Struct, frozen=True):
    """The fields that stream.core.features.InputSpec needs."""

    rating_scale: tuple[float, float]
    scenes: tuple[str, ...]
    choices: tuple[Annotated[str, Meta(pattern="^(clicks|ratings|comments)$")], ...] = CHOICES
    weights: dict[str, float] = msgspec.field(default_factory=lambda: dict(ACTIONS))
    actions: tuple[Annotated[str, Meta(min_length=1)], ...] = ()


class Parity(Struct, frozen=True):
    """A graph's deviation from torch at export (`max`), and its tolerance from the golden vectors at load, in `unit`."""

    max: float
    tolerance: Annotated[float, Meta(gt=0)]
    unit: str


class BlendEntry(Struct, frozen=True):
    """What the score adds to the recurrent interest. The graph contains it; these values are for human readers.

    Attributes:
        last: How many choices the worker passes to the graph.
        neighbours: K, 0 if there are none.

    docs/bundle.md describes the others.
    """

    last: Annotated[int, Meta(ge=0, le=MAX_RECENT)]
    fade: float
    neighbour: float
    prior: float
    evidence: float
    neighbours: Annotated[int, Meta(ge=0)]


class TextEntry(Struct, frozen=True):
    """The text term of the score (docs/bundle.md). The graph contains weight and fade; they are for human readers.

    Attributes:
        weight: Its weight.
        new: Its weight for items that training has not seen.
        fade: The factor of a choice's text per choice after it.
        width: P, the width of a projected text.
    """

    weight: float
    new: float
    fade: float
    width: Width


class Card(Struct, frozen=True):
    """The model card, in addition to `data` and `metrics`.

    Attributes:
        protocol: How the figures were measured.
        intervals: Metric -> its 95 % interval.
        parameters: Parameters of the trained network.
        bytes: Size of the folder's other files.
        seconds: Training time.
        seeds: Seeds of the training.
        licences: Part -> license terms of its weights.
        lineage: What `freshet learn` made it from: parent bundle, days of the data, figures of the gate; empty otherwise.
    """

    protocol: str
    intervals: dict[str, tuple[float, float]]
    parameters: Annotated[int, Meta(ge=0)]
    bytes: Annotated[int, Meta(ge=0)]
    seconds: Annotated[float, Meta(ge=0)]
    seeds: tuple[int, ...]
    licences: dict[str, str]
    lineage: dict[str, Any] = {}


class ReadingEntry(Struct, frozen=True):
    """How ratings are read from comments.

    Attributes:
        layers: Number of layers of text.onnx after which rating.onnx continues.
        scale: Rating scale of its training data, which is stretched to the bundle's scale.
        data: Description of its training data, for human readers.
        metrics: Its metrics, for human readers.
    """

    layers: Annotated[int, Meta(ge=1)]
    scale: tuple[float, float]
    data: dict[str, Any] = {}
    metrics: dict[str, Any] = {}


class DiversityEntry(Struct, frozen=True):
    """How slates are re-ranked (stream/core/diversity.py), unless the setting `diversity` says otherwise.

    Attributes:
        strength: 0 to 1.
        budget: The share of NDCG@10 that it was allowed to cost on the validation part, for human readers.
        metrics: What it changed there, for human readers.
    """

    strength: Annotated[float, Meta(ge=0, le=1)]
    budget: float = 0.0
    metrics: dict[str, float] = {}


class TablesEntry(Struct, frozen=True):
    """How `freshet tally` counts tables from the stream (docs/tables.md), unless its settings say otherwise.

    Attributes:
        half_life: Of neighbours, in days; 0: time does not matter.
        prior_half_life: Of popularity, likewise.
        reach: How many choices ahead pair with a choice.
        decay: Factor of a pair per choice of distance.
        back: Weight of the backward direction of a pair.
        shrink: Choices that are added to the denominator of a neighbour's weight.
    """

    half_life: Annotated[float, Meta(ge=0, le=36_500)]
    prior_half_life: Annotated[float, Meta(ge=0, le=36_500)]
    reach: Annotated[int, Meta(ge=1, le=MAX_RECENT)]
    decay: Annotated[float, Meta(ge=0, le=1)]
    back: Annotated[float, Meta(ge=0, le=10)]
    shrink: Annotated[float, Meta(ge=0, le=1e6)]


class Manifest(Struct, frozen=True):
    """The content of manifest.json; unknown fields are ignored."""

    schema: int
    created: int
    opset: int
    files: dict[str, FileEntry]
    dims: Dims
    inputs: Inputs
    state_model: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    parity: dict[str, Parity]
    blend: BlendEntry
    card: Card
    reading: ReadingEntry | None = None
    data: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    diversity: DiversityEntry | None = None
    text_term: TextEntry | UnsetType = UNSET
    tables: TablesEntry | None = None


@dataclass(frozen=True)
class Bundle:
    """One verified bundle. N is the number of training items; row 0 of `items` and `popularity` is UNKNOWN.

    Attributes:
        id: Hex id.
        state_model: 16 bytes that mark the states.
        items: float32 [N + 1, D].
        popularity: float32 [N + 1].
        parity: Graph name -> Parity.
        diversity: Strength of the re-ranking; 0 in bundles without `diversity`.
        text_term: The text term of the score; None without one.
        texts: Projected texts of the items, float32 [N + 1, P], longer for items that training has not seen; None without a
            text term.
        tables: Its own neighbours and log-popularity; None if its score graph has them inside and takes no others.
        counted: How tables are counted from the stream; None if it does not say.
        outputs: The items' output vectors, float32 [N + 1, D], which are scored in place of `items`; None if those are.
    """

    id: str
    folder: Path
    state_model: bytes
    spec: InputSpec
    item_dim: int
    hidden: int
    text_dim: int
    max_tokens: int
    item_ids: tuple[str, ...] = field(repr=False)
    items: NDArray[np.float32] = field(repr=False)
    popularity: NDArray[np.float32] = field(repr=False)
    parity: Mapping[str, Parity] = field(repr=False)
    files: Mapping[str, FileEntry] = field(repr=False)
    blend: BlendEntry
    card: Card = field(repr=False)
    data: Mapping[str, Any] = field(repr=False)
    metrics: Mapping[str, float] = field(repr=False)
    reading: ReadingEntry | None = field(default=None, repr=False)
    diversity: float = 0.0
    text_term: TextEntry | None = None
    texts: NDArray[np.float32] | None = field(default=None, repr=False)
    tables: ScoreTables | None = field(default=None, repr=False)
    counted: TablesEntry | None = None
    outputs: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def own_inputs(self) -> int:
        """Width of what a catalogue's row has in front of what is scored: D if there are output vectors, else 0."""
        return 0 if self.outputs is None else self.item_dim

    @property
    def row_width(self) -> int:
        """Width of all that a catalogue keeps of an item: the vector that is read, the one that is scored if it is another, and
        the projected text."""
        return self.own_inputs + self.item_dim + self.text_width

    @property
    def text_width(self) -> int:
        """P, the width of a projected text in the score; 0 without a text term."""
        return 0 if self.texts is None else self.texts.shape[1]

    @cached_property
    def score_items(self) -> NDArray[np.float32]:
        """What score.onnx reads of the items, float32 [N + 1, D + P]: each row of `outputs`, or of `items` if there are none,
        then its projected text."""
        scored = self.items if self.outputs is None else self.outputs
        if self.texts is None:
            return scored
        both = np.concatenate((scored, self.texts), axis=1)
        both.flags.writeable = False
        return both

    def read(self, name: str) -> bytes:
        """Return the verified content of one file. Raises BundleError if it is missing or was changed."""
        return _verified(self.folder, name, self.files[name])

    def golden(self, graph_name: str) -> dict[str, NDArray[Any]]:
        """Return the golden vectors of one graph: input or output name -> array."""
        return _golden(self.read("golden.npz"), graph_name)


def current(bundles: Path) -> Path:
    """Return the folder of the bundle that the file CURRENT points to. Raises BundleError if there is none."""
    if not (bundles / CURRENT).exists():
        folder = bundles.absolute()
        raise BundleError(
            f"bundles: {folder / CURRENT} does not exist: no bundle yet; `freshet export RUN --out {folder}` creates one "
            f"({toml_file.description()})"
        )
    name = str(_read(bundles / CURRENT, 1024), "utf-8", "replace").strip()
    if not _ID.fullmatch(name):
        raise BundleError(f"{bundles / CURRENT}: expected a bundle id of 64 hex digits")
    return bundles / name


def load(folder: Path) -> Bundle:
    """Verify every file of one bundle and read the small ones. Raises BundleError, which names the file and the reason."""
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"{folder}: not a bundle folder")
    raw = _read(folder / MANIFEST, _MAX_MANIFEST)
    identity = sha256(raw).hexdigest()
    if identity != folder.name:
        raise BundleError(f"{MANIFEST}: its sha256 is {identity[:12]}..., the folder is named {folder.name[:12]}...")
    manifest = _manifest(raw)
    content = {name: _verified(folder, name, entry) for name, entry in manifest.files.items()}
    for name in (*GRAPHS, *([RATING] if manifest.reading else [])):
        onnx_check.check(name, content[name], OPSET)
    dims = manifest.dims
    state_model = stamp(content["step.onnx"], content["items.npy"])
    if state_model.hex() != manifest.state_model:
        raise BundleError(f"{MANIFEST}: state_model does not belong to step.onnx and items.npy")
    _finite_weights(content["weights.safetensors"])
    with _archive(content["golden.npz"]):
        pass
    term = manifest.text_term or None
    return Bundle(
        id=identity,
        folder=folder,
        state_model=state_model,
        spec=InputSpec(
            manifest.inputs.rating_scale,
            manifest.inputs.scenes,
            dims.text,
            manifest.inputs.choices,
            tuple(sorted(manifest.inputs.weights.items())),
            manifest.inputs.actions,
        ),
        item_dim=dims.item,
        hidden=dims.hidden,
        text_dim=dims.text,
        max_tokens=dims.max_tokens,
        item_ids=_item_ids(content["item_ids.json"], dims.items),
        items=_array("items.npy", content["items.npy"], (dims.items + 1, dims.item)),
        popularity=_array("popularity.npy", content["popularity.npy"], (dims.items + 1,)),
        parity=manifest.parity,
        files=manifest.files,
        blend=manifest.blend,
        card=manifest.card,
        data=manifest.data,
        metrics=manifest.metrics,
        reading=manifest.reading,
        diversity=manifest.diversity.strength if manifest.diversity else 0.0,
        text_term=term,
        texts=_array(TEXTS, content[TEXTS], (dims.items + 1, term.width)) if term else None,
        tables=_tables(content, dims.items, manifest.blend.neighbours) if manifest.schema >= TABLED else None,
        counted=manifest.tables,
        outputs=_array(OUTPUTS, content[OUTPUTS], (dims.items + 1, dims.item)) if manifest.schema == HEADED else None,
    )


def stamp(step: bytes, items: bytes) -> bytes:
    """Return the 16 bytes that mark states: another step graph or another item matrix produces other states."""
    return sha256(sha256(step).digest() + sha256(items).digest()).digest()[:16]


def _manifest(raw: bytes) -> Manifest:
    try:
        version = msgspec.json.decode(raw, type=_Version)
        if version.schema not in SCHEMAS or version.opset != OPSET:  # first: others have other fields
            raise BundleError(
                f"{MANIFEST}: schema {version.schema}, opset {version.opset}; this version reads schema {PLAIN}, {ACTING}, "
                f"{TEXTUAL}, {TABLED} and {HEADED}, opset {OPSET}: export the run again"
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST}: {error}") from None
    if manifest.schema < TABLED and (manifest.schema == TEXTUAL) != (manifest.text_term is not UNSET):
        found = "none" if manifest.text_term is UNSET else "one"
        raise BundleError(
            f"{MANIFEST}: text_term: {found} under schema {manifest.schema}, expected one under schema {TEXTUAL}, none under "
            f"{PLAIN} and {ACTING}: export the run again"
        )
    expected = {
        *FILES,
        *([RATING] if manifest.reading else []),
        *([TEXTS] if manifest.text_term else []),
        *(TABLES if manifest.schema >= TABLED else []),
        *([OUTPUTS] if manifest.schema == HEADED else []),
    }
    if set(manifest.files) != expected:
        missing, extra = expected - set(manifest.files), set(manifest.files) - expected
        raise BundleError(f"{MANIFEST}: the list of files is wrong: missing {sorted(missing)}, extra {sorted(extra)}")
    if not manifest.inputs.rating_scale[0] < manifest.inputs.rating_scale[1]:
        raise BundleError(f"{MANIFEST}: rating_scale: expected min < max")
    _check_actions(manifest)
    if wrong := {name.removesuffix(".onnx") for name in expected if name.endswith(".onnx")} - set(manifest.parity):
        raise BundleError(f"{MANIFEST}: parity is missing for {sorted(wrong)}")
    return manifest


def _check_actions(manifest: Manifest) -> None:
    names = manifest.inputs.actions
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise BundleError(f"{MANIFEST}: inputs.actions: {twice[0]!r} occurs twice, expected each name once")
    if names and manifest.schema == PLAIN:
        raise BundleError(
            f"{MANIFEST}: inputs.actions: {len(names)} names ({', '.join(names)}) under schema {manifest.schema}, expected "
            f"none, or schema {ACTING}: export the run again"
        )
    if not names and manifest.schema == ACTING:
        raise BundleError(
            f"{MANIFEST}: inputs.actions: none under schema {ACTING}, expected one or more, or schema {PLAIN}: export the run "
            "again"
        )


def _read(path: Path, limit: int) -> bytes:
    """Read a regular file, never through a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        why = "it is a symbolic link" if path.is_symlink() else (error.strerror or str(error)).lower()
        raise BundleError(f"{path.name}: cannot be read: {why} ({path.parent})") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path.name}: not a regular file")
        if status.st_size > limit:
            raise BundleError(f"{path.name}: {status.st_size} bytes, expected {limit}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(descriptor)


def _verified(folder: Path, name: str, entry: FileEntry) -> bytes:
    content = _read(folder / name, entry.bytes)
    if len(content) != entry.bytes:
        raise BundleError(f"{name}: {len(content)} bytes, expected {entry.bytes}")
    found = sha256(content).hexdigest()
    if found != entry.sha256:
        raise BundleError(
            f"{name}: its sha256 is {found[:12]}..., expected {entry.sha256[:12]}...: the file was changed"
        )
    return content


def _tables(content: Mapping[str, bytes], items: int, width: int) -> ScoreTables:
    """Return the bundle's own tables, epoch 0. items: N; width: K."""
    near = _loaded(NEAR, content[NEAR], np.dtype(np.int32), (items + 1, width))
    if near.size and not 0 <= int(near.min()) <= int(near.max()) <= items:
        raise BundleError(f"{NEAR}: holds rows outside 0 .. {items}")
    weight = _array(WEIGHTS, content[WEIGHTS], (items + 1, width))
    return ScoreTables(0, near, weight, _array(LOG_POPULARITY, content[LOG_POPULARITY], (items + 1,)))


def _array(name: str, content: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = _loaded(name, content, np.dtype(np.float32), shape)
    if not np.isfinite(array).all():
        raise BundleError(f"{name}: holds values that are not finite")
    return array


def _loaded(name: str, content: bytes, kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (*_UNREADABLE, MemoryError) as error:
        raise BundleError(f"{name}: not a NumPy array ({error})") from None
    if not isinstance(array, np.ndarray) or array.dtype != kind or array.shape != shape:
        raise BundleError(
            f"{name}: {getattr(array, 'dtype', '?')} {getattr(array, 'shape', '?')}, expected {kind} {shape}"
        )
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


def _item_ids(content: bytes, count: int) -> tuple[str, ...]:
    try:
        ids = msgspec.json.decode(content, type=tuple[Annotated[str, Meta(min_length=1)], ...])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BundleError(f"item_ids.json: {error}") from None
    if len(ids) != count or len(set(ids)) != count:
        raise BundleError(f"item_ids.json: {len(ids)} ids, {len(set(ids))} distinct; expected {count} distinct ones")
    return ids


def _golden(content: bytes, graph_name: str) -> dict[str, NDArray[Any]]:
    prefix = graph_name + "."
    try:
        with _archive(content) as archive:
            return {name.removeprefix(prefix): archive[name] for name in archive.files if name.startswith(prefix)}
    except (*_UNREADABLE, MemoryError, KeyError, NotImplementedError, RuntimeError) as error:
        raise BundleError(f"golden.npz: not readable ({error})") from None


def _archive(content: bytes) -> Any:
    """Load an npz; its arrays are unpacked on access."""
    try:
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array, not an archive")
        unpacked = sum(entry.file_size for entry in archive.zip.infolist()) if archive.zip else 0
    except (*_UNREADABLE, MemoryError) as error:
        raise BundleError(f"golden.npz: not an archive of NumPy arrays ({error})") from None
    if unpacked > _MAX_GOLDEN:
        raise BundleError(f"golden.npz: {unpacked} bytes unpacked, expected at most {_MAX_GOLDEN}")
    return archive


def _finite_weights(content: bytes) -> None:
    """Check that all weights are finite.

    The safetensors layout: u64 length, JSON header, data (https://github.com/huggingface/safetensors#format).
    """
    try:
        end = 8 + int.from_bytes(content[:8], "little")
        header = msgspec.json.decode(content[8:end], type=dict[str, dict[str, Any]])
        for name, tensor in header.items():
            kind = {"F32": np.float32, "F16": np.float16}.get(tensor.get("dtype", ""))
            if kind is None:
                continue
            first, last = tensor["data_offsets"]
            if not np.isfinite(np.frombuffer(content[end + first : end + last], kind)).all():
                raise BundleError(f"weights.safetensors: the tensor {name!r} holds values that are not finite")
    except (msgspec.DecodeError, RecursionError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"weights.safetensors: not readable ({error})") from None
