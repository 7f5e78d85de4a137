"""Writes a bundle folder so that no reader ever sees half of one."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch
from msgspec import UNSET
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from export.card import card_text, make_card
from export.graphs import item_graph, score_graph, serialise, step_graph, text_graph
from export.parity import golden_vectors, measure
from export.text_rating import Arrays, rating_graph, reading_entry, text_and_trunk_graph
from models.data.histories import Floats
from models.network.blend import Blend, log_popularity, no_neighbours
from models.network.text import load_bert, load_tokenizer
from models.training.run import Run, blend_numbers, check_actions, check_blend, check_texts
from models.training.trainer import HEAD
from stream.core.errors import BundleError
from stream.core.score_tables import ScoreTables
from stream.inference.bundle import (
    CURRENT,
    HEADED,
    LOG_POPULARITY,
    MANIFEST,
    NEAR,
    OPSET,
    OUTPUTS,
    TABLED,
    TEXTS,
    WEIGHTS,
    BlendEntry,
    Bundle,
    Card,
    Dims,
    DiversityEntry,
    FileEntry,
    Inputs,
    Manifest,
    Parity,
    TablesEntry,
    TextEntry,
    load,
    stamp,
)
from stream.inference.models import open_models
from stream.inference.text_encoder import open_encoder

HIDDEN: Final = ".publishing-"
LEFT: Final = 86_400.0
"""Seconds after which a hidden folder is one that a kill has left: nothing takes so long to publish."""


def build(run: Run, bert: Any = None, text: bytes | None = None, base: Bundle | None = None) -> dict[str, bytes]:
    """Build every file of the bundle, as name -> content. `manifest.json` is one of them; it does not list itself.

    Args:
        run: The run to export.
        bert: The text network; MiniLM by default.
        text: Its graph from an earlier export of the same network. Ignored if the run reads ratings.
        base: An earlier bundle. If its step and the vectors that it reads are the run's, their files are taken from it, so that
            states stay valid even if another version of torch has made them.

    Raises:
        BundleError: A graph is farther from torch than its tolerance.
        DataError: The blend cannot be served.
    """
    check_blend(run.blend, run.neighbours, len(run.item_ids), "the run")
    check_texts(run.blend, run.projection, run.new, run.text.shape, "the run")
    check_actions(run.spec, run.network.size, "the run")
    network = run.network.eval()
    bert = load_bert() if bert is None else bert
    with torch.inference_mode():
        items = network.item_matrix().numpy().astype(np.float32)
        outputs = network.output_matrix().numpy().astype(np.float32) if network.size.untied else items
    tokenizer = _tokenizer_json(run.max_tokens)
    graphs = _graphs(run, bert, text)
    if base is not None and frozen_alike(run, base):  # the same to the bit, whatever has exported it
        graphs["step.onnx"], items = base.read("step.onnx"), base.items
    golden = golden_vectors(run, items, outputs, bert, tokenizer)
    tables = _tables(run)
    parity = measure(graphs, golden, np.concatenate((outputs, run.scaled_texts), axis=1), tables)
    files = graphs | {"tokenizer.json": tokenizer} | _arrays(run, items, golden, tables)
    if network.size.untied:
        files[OUTPUTS] = _npy(outputs)
    card = make_card(run, files)
    files["card.md"] = card_text(run, card)
    manifest = _manifest(run, files, parity, card)
    files[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"
    return files


def frozen_alike(run: Run, base: Bundle) -> bool:
    """Return whether a bundle was made from a network with the same step and the same vectors that it reads, to the bit."""
    if base.item_ids != run.item_ids or base.spec != run.spec:
        return False
    theirs = load_tensors(base.read("weights.safetensors"))
    own = {name: value for name, value in run.network.state_dict().items() if not name.startswith(HEAD)}
    own["text"] = run.network.text
    return all(name in theirs and torch.equal(theirs[name], value) for name, value in own.items())


def _graphs(run: Run, bert: Any, text: bytes | None) -> dict[str, bytes]:
    """Return the graphs of the bundle. Without text rating, `text` is its text.onnx if it is given."""
    network = run.network
    graphs = {
        "step.onnx": serialise(step_graph(network)),
        "score.onnx": serialise(score_graph(network, _served(run), run.text_width)),
        "item.onnx": serialise(item_graph(network, run.projection if run.text_width else None, run.more_for_new)),
    }
    if run.reading:
        graphs["text.onnx"] = serialise(text_and_trunk_graph(bert, run.reading))
        graphs["rating.onnx"] = serialise(rating_graph(run.reading, run.spec.rating_scale))
    else:
        graphs["text.onnx"] = serialise(text_graph(bert)) if text is None else text
    return graphs


def _served(run: Run) -> Blend:
    """Return the weights of the sum. Without neighbours, theirs is 0."""
    return run.blend if run.neighbours.index.shape[1] else replace(run.blend, neighbour=0.0)


def _tables(run: Run) -> ScoreTables:
    """Return the bundle's own tables: epoch 0."""
    near = run.neighbours if _served(run).neighbour else no_neighbours(len(run.item_ids))
    return ScoreTables(0, near.index.astype(np.int32), near.weight, log_popularity(run.popularity.astype(np.float32)))


def _arrays(run: Run, items: Floats, golden: Mapping[str, Arrays], tables: ScoreTables) -> dict[str, bytes]:
    """Return the items, the tables, the golden vectors and the weights as files. `items` is f32 [N + 1, D]."""
    network = run.network
    return {
        "items.npy": _npy(items),
        "item_ids.json": msgspec.json.encode(list(run.item_ids)),
        "popularity.npy": _npy(run.popularity.astype(np.float32)),
        NEAR: _npy(tables.near),
        WEIGHTS: _npy(tables.weight),
        LOG_POPULARITY: _npy(tables.popularity),
        "golden.npz": _npz(
            {f"{name}.{key}": array for name, arrays in golden.items() for key, array in arrays.items()}
        ),
        "weights.safetensors": save_tensors(
            {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
            | {"text": network.text.contiguous()}
        ),
        **({TEXTS: _npy(run.scaled_texts)} if run.text_width else {}),
    }


def _manifest(run: Run, files: Mapping[str, bytes], parity: dict[str, Parity], card: Card) -> Manifest:
    """Return the manifest. `files` are all other files of the bundle."""
    size, blend, spec = run.network.size, run.blend, run.spec
    return Manifest(
        schema=HEADED if size.untied else TABLED,
        created=int(float(os.environ.get("SOURCE_DATE_EPOCH", 0)) * 1000) or time.time_ns() // 1_000_000,
        opset=OPSET,
        files={name: FileEntry(sha256(content).hexdigest(), len(content)) for name, content in files.items()},
        dims=Dims(size.item, size.hidden, size.text, len(run.item_ids), run.max_tokens),
        inputs=Inputs(spec.rating_scale, spec.scenes, spec.choices, dict(spec.weights), spec.actions),
        state_model=stamp(files["step.onnx"], files["items.npy"]).hex(),
        parity=parity,
        blend=BlendEntry(**blend_numbers(blend), neighbours=run.neighbours.index.shape[1] if blend.neighbour else 0),
        text_term=TextEntry(blend.text, blend.text_new, blend.text_fade, run.text_width) if run.text_width else UNSET,
        card=card,
        reading=reading_entry(run.reading) if run.reading else None,
        data=asdict(run.data),
        metrics=dict(run.metrics),
        tables=_counting(run),
        diversity=DiversityEntry(run.diversity.strength, run.diversity.budget, dict(run.diversity.metrics)),
    )


def _counting(run: Run) -> TablesEntry | None:
    """Return how a tally should count tables; None if the run does not say."""
    if run.tables is None:
        return None
    near = run.tables.near
    return TablesEntry(near.half_life, run.tables.prior, near.reach, near.decay, near.back, near.shrink)


def publish(files: Mapping[str, bytes], bundles: Path, *, switch: bool = True) -> Path:
    """Write one bundle below `bundles`, prove that it loads and answers as at export, then, with `switch`, make it CURRENT.

    Everything is first written and synced in a hidden folder. One rename moves the folder into place, and a second one
    switches CURRENT. A crash therefore leaves the old bundle in use, and at most a hidden folder behind.
    Raises BundleError if the written bundle does not load; nothing is changed then.
    """
    identity = sha256(files[MANIFEST]).hexdigest()
    folder = bundles / identity
    hidden = hidden_folder(bundles)
    try:
        partial = hidden / identity
        partial.mkdir()
        for name, content in files.items():
            _write(partial / name, content)
        _sync(partial)
        bundle = load(partial)
        open_models(bundle, "cpu")
        open_encoder(bundle, "cpu")
        if not folder.is_dir():  # if it exists, it is the same bundle and there is nothing to do
            partial.rename(folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    _sync(bundles)
    if not switch:
        return folder
    pointer = bundles / f".{CURRENT}-{os.getpid()}"
    _write(pointer, identity.encode() + b"\n")
    pointer.replace(bundles / CURRENT)
    _sync(bundles)
    return folder


def hidden_folder(bundles: Path) -> Path:
    """Make a new folder below `bundles` that no reader looks at, and delete those that kills have left.

    Raises BundleError if `bundles` cannot be written.
    """
    try:
        bundles.mkdir(parents=True, exist_ok=True)
        for left in bundles.glob(f"{HIDDEN}*"):
            with suppress(OSError):  # another process may delete it, too
                if time.time() - left.stat().st_mtime > LEFT:
                    shutil.rmtree(left)
        return Path(tempfile.mkdtemp(prefix=HIDDEN, dir=bundles))
    except OSError as error:
        raise BundleError(f"{bundles}: cannot be written: {error.strerror}") from None


def _tokenizer_json(max_tokens: int) -> bytes:
    """Return the text network's tokenizer. It pads nothing and truncates at `max_tokens`."""
    tokenizer = load_tokenizer()
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer.to_str().encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _npz(arrays: dict[str, Any]) -> bytes:
    """Return the bytes of an .npz file. np.savez stamps a fixed time (1980), so equal arrays give equal bytes."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
