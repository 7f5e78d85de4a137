"""A bundle that is not exactly what was published is refused, with the file's name and the reason."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from export.publish import build, hidden_folder, publish
from models.training.neighbours import NeighbourSettings
from models.training.tables import TableSettings
from stream.core.errors import BundleError
from stream.inference.bundle import (
    CURRENT,
    FILES,
    GRAPHS,
    MANIFEST,
    OUTPUTS,
    TABLES,
    TEXTS,
    Bundle,
    TablesEntry,
    current,
    load,
    stamp,
)
from stream.inference.models import open_models
from stream.inference.text_encoder import open_encoder
from tests.bundles import text_onnx, tiny_run


@pytest.fixture
def copy(bundles: Path, tmp_path: Path) -> Path:
    """The tiny bundle again, its files linked: replace them, never write into them."""
    folder = current(bundles)
    target = tmp_path / folder.name
    shutil.copytree(folder, target, copy_function=os.link)
    return target


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def resealed(folder: Path, change: Callable[[dict[str, Any]], Any] | None = None, /, **files: bytes) -> Path:
    """Another valid-looking bundle: files replaced (`step_onnx=...`) and the manifest made to fit them."""
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    for name, content in files.items():
        name = next(known for known in (*FILES, *TABLES, TEXTS, OUTPUTS) if known.replace(".", "_") == name)
        replace(folder / name, content)
        manifest["files"][name] = {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    step, items = ((folder / name).read_bytes() for name in ("step.onnx", "items.npy"))
    manifest["state_model"] = stamp(step, items).hex()
    if change:
        change(manifest)
    raw = msgspec.json.encode(manifest)
    replace(folder / MANIFEST, raw)
    return folder.rename(folder.parent / sha256(raw).hexdigest())


def opened(folder: Path) -> Bundle:
    bundle = load(folder)
    open_models(bundle, "cpu")
    open_encoder(bundle, "cpu")
    return bundle


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_the_published_bundle_loads(bundles: Path) -> None:
    bundle = opened(current(bundles))
    assert bundle.id == (bundles / CURRENT).read_text().strip() == bundle.folder.name
    assert bundle.items.shape == (51, bundle.item_dim)
    assert bundle.item_ids[:2] == ("item-1", "item-2")
    assert len(bundle.state_model) == 16


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_one_flipped_bit_anywhere(copy: Path, name: str, share: float) -> None:
    content = bytearray((copy / name).read_bytes())
    content[int(share * (len(content) - 1))] ^= 1
    replace(copy / name, bytes(content))
    with pytest.raises(BundleError, match=name):
        load(copy)


def test_where_no_bundle_is_it_is_said_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"CURRENT does not exist: no bundle yet; `freshet export RUN --out .*` creates one"
    ):
        current(tmp_path / "bundles")


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_missing_files(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: cannot be read: no such file"):
        load(copy)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_links_folders_and_pipes_are_no_files(copy: Path, tmp_path: Path, name: str) -> None:
    kept = (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(kept)
    with pytest.raises(BundleError, match=f"{name}: cannot be read: it is a symbolic link"):
        load(copy)
    (copy / name).unlink()
    (copy / name).mkdir()
    with pytest.raises(BundleError, match=name):
        load(copy)
    (copy / name).rmdir()
    os.mkfifo(copy / name)
    with pytest.raises(BundleError, match=f"{name}: not a regular file"):
        load(copy)


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b" ", lambda content: b""])
def test_another_size(copy: Path, change: Callable[[bytes], bytes]) -> None:
    replace(copy / "item.onnx", change((copy / "item.onnx").read_bytes()))
    with pytest.raises(BundleError, match=r"item.onnx: \d+ bytes, expected"):
        load(copy)


@pytest.mark.parametrize("pointer", [None, "", "../../etc", "0" * 64])
def test_a_pointer_to_nothing(tmp_path: Path, pointer: str | None) -> None:
    if pointer is not None:
        (tmp_path / CURRENT).write_text(pointer)
    with pytest.raises(BundleError, match=CURRENT if pointer != "0" * 64 else "not a bundle folder"):
        load(current(tmp_path))


# Below, every hash is right: what is refused is what the files say.


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((50, 16), np.float32), "expected float32"),
        (np.zeros((51, 17), np.float32), "expected float32"),
        (np.zeros((51, 16)), "float64"),
        (np.zeros((51, 16), np.float32) * np.nan, "not finite"),
        (np.zeros((51, 16), np.float32) + np.inf, "not finite"),
        (np.array([{}]), "not a NumPy array"),
    ],
)
def test_wrong_item_vectors(copy: Path, array: Any, reason: str) -> None:
    with pytest.raises(BundleError, match=f"items.npy: .*{reason}"):
        load(resealed(copy, items_npy=npy(array, allow_pickle=True)))


@pytest.mark.parametrize("ids", [[f"item-{row}" for row in range(49)], ["same"] * 50, [""] * 50, list(range(50)), {}])
def test_wrong_item_ids(copy: Path, ids: Any) -> None:
    with pytest.raises(BundleError, match=r"item_ids.json: "):
        load(resealed(copy, item_ids_json=msgspec.json.encode(ids)))


def test_weights_that_are_not_finite(copy: Path) -> None:
    weights = load_tensors((copy / "weights.safetensors").read_bytes())
    weights["ids.weight"][3, 3] = np.nan
    with pytest.raises(BundleError, match=r"weights.safetensors: the tensor 'ids.weight'"):
        load(resealed(copy, weights_safetensors=save_tensors(weights)))


@pytest.mark.parametrize("content", [b"", b"\x10", b"\xff" * 32, b"\x02\0\0\0\0\0\0\0{}"[:9]])
def test_weights_that_are_no_safetensors(copy: Path, content: bytes) -> None:
    with pytest.raises(BundleError, match=r"weights.safetensors: not readable"):
        load(resealed(copy, weights_safetensors=content))


def graph(folder: Path, name: str, change: Callable[[onnx.ModelProto], Any]) -> dict[str, bytes]:
    model = onnx.load_from_string((folder / name).read_bytes())
    change(model)
    return {name.replace(".", "_"): model.SerializeToString()}


def to_external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def to_nan(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.data_type == 1 and len(tensor.raw_data) > 8)
    tensor.raw_data = np.full(len(tensor.raw_data) // 4, np.nan, np.float32).tobytes()


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (to_external, "external data"),
        (to_nan, "NaN"),
        (lambda model: setattr(model.graph.node[0], "domain", "com.microsoft"), "domain 'com.microsoft'"),
        (lambda model: setattr(model.opset_import[0], "version", 21), "version 20"),
    ],
)
def test_graphs_that_we_do_not_run(copy: Path, name: str, change: Any, reason: str) -> None:
    with pytest.raises(BundleError, match=f"^{name}: .*{reason}"):
        load(resealed(copy, **graph(copy, name, change)))


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_that_onnxruntime_refuses(copy: Path, name: str) -> None:
    changed = graph(copy, name, lambda model: setattr(model.graph.node[0], "op_type", "Nonsense"))
    with pytest.raises(BundleError, match=f"^{name}: ONNX Runtime refuses it"):
        opened(resealed(copy, **changed))


def renamed(model: onnx.ModelProto) -> None:
    output = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Identity", [output], ["other"]))
    model.graph.output[0].name = "other"


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_with_other_names_or_widths(copy: Path, name: str, bundles: Path) -> None:
    with pytest.raises(BundleError, match=f"^{name}: outputs .*'other'"):
        opened(resealed(copy, **graph(copy, name, renamed)))


def test_graphs_of_another_width(copy: Path) -> None:
    def narrower(manifest: dict[str, Any]) -> None:
        manifest["dims"]["hidden"] = 16

    with pytest.raises(BundleError, match=r"^step.onnx: input h is tensor\(float16\)"):
        opened(resealed(copy, narrower))


def off(model: onnx.ModelProto) -> None:
    """Weights of another training: the graph is well-formed, its answers are not those of the export."""
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data) * (tensor.data_type == 1))
    tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * 1.5).tobytes()


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_that_answer_otherwise_than_at_export(copy: Path, name: str) -> None:
    with pytest.raises(BundleError, match=f"^{name}: .* away from its golden vectors"):
        opened(resealed(copy, **graph(copy, name, off)))


def without_tables(schema: int, *actions: str) -> Callable[[dict[str, Any]], Any]:
    """An earlier schema, whose score graph has the tables inside."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["schema"] = schema
        manifest["inputs"]["actions"] = list(actions)
        for name in TABLES:
            del manifest["files"][name]

    return change


def as_schema_1(manifest: dict[str, Any]) -> None:
    """What earlier versions wrote."""
    manifest["schema"] = 1
    del manifest["blend"], manifest["card"], manifest["files"]["card.md"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda manifest: manifest.update(schema=7), "schema 7"),
        (
            lambda manifest: manifest.update(schema=4),
            "text_term: none under schema 4, expected one under schema 4, none under 2 and 3: export",
        ),
        (
            as_schema_1,
            r"schema 1, opset 20; this version reads schema 2, 3, 4, 5 and 6, opset 20: export the run again",
        ),
        (lambda manifest: manifest.update(schema=2), r"extra \['log_popularity.npy', 'near.npy', 'near_weights.npy'\]"),
        (
            without_tables(3),
            r"inputs.actions: none under schema 3, expected one or more, or schema 2: export the run again",
        ),
        (
            without_tables(2, "purchase", "skip"),
            r"inputs.actions: 2 names \(purchase, skip\) under schema 2, expected none, or schema 3: export the run again",
        ),
        (lambda manifest: manifest["inputs"].update(actions=[""]), "inputs.actions"),
        (
            without_tables(3, "skip", "skip"),
            "inputs.actions: 'skip' occurs twice",
        ),
        (lambda manifest: manifest.pop("card"), "card"),
        (lambda manifest: manifest["blend"].update(last=65), "last"),
        (lambda manifest: manifest.update(opset=21), "opset 21"),
        (lambda manifest: manifest["files"].pop("golden.npz"), "missing .*golden.npz"),
        (lambda manifest: manifest["files"].update({"../x": manifest["files"]["item.onnx"]}), "extra"),
        (lambda manifest: manifest.pop("dims"), "dims"),
        (lambda manifest: manifest["dims"].update(items=-1), "items"),
        (lambda manifest: manifest["inputs"].update(rating_scale=[5, 5]), "rating_scale"),
        (lambda manifest: manifest["parity"].pop("step"), "parity .*step"),
        (lambda manifest: manifest.update(state_model="0" * 32), "state_model"),
    ],
)
def test_manifests_that_do_not_fit(copy: Path, change: Callable[[dict[str, Any]], Any], reason: str) -> None:
    with pytest.raises(BundleError, match=f"{MANIFEST}: .*{reason}"):
        load(resealed(copy, change))


def test_golden_vectors_that_do_not_fit(copy: Path) -> None:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{"step.h": np.zeros(3)})
    with pytest.raises(BundleError, match=r"golden.npz: does not fit"):
        opened(resealed(copy, golden_npz=file.getvalue()))


def test_a_bundle_that_does_not_answer_is_never_made_current(copy: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in copy.iterdir()}
    bundles = tmp_path / "bundles"
    first = publish(files, bundles)
    changed = resealed(copy, **graph(copy, "item.onnx", off))
    with pytest.raises(BundleError, match=r"item.onnx"):
        publish({path.name: path.read_bytes() for path in changed.iterdir()}, bundles)
    assert current(bundles) == first
    assert publish(files, bundles) == first, "the same bundle again is fine"
    assert not [path for path in bundles.iterdir() if path.name.startswith(".")], "nothing temporary is left"


def with_strength(strength: float) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest.update(diversity={"strength": strength, "budget": 0.02, "metrics": {}})


COUNTED: dict[str, Any] = {
    "half_life": 365,
    "prior_half_life": 90,
    "reach": 20,
    "decay": 0.8,
    "back": 0.2,
    "shrink": 20.0,
}


def with_counted(**changed: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest.update(tables=COUNTED | changed)


def test_how_a_tally_counts_tables_is_read_and_is_absent_in_bundles_of_earlier_versions(copy: Path) -> None:
    assert load(copy).counted is None
    folder = resealed(copy, lambda manifest: manifest.pop("tables"))
    assert load(folder).counted is None
    folder = resealed(folder, with_counted(unknown=1))
    assert load(folder).counted == TablesEntry(**COUNTED)
    for name, wrong in (("half_life", -1), ("reach", 0), ("decay", 1.5), ("shrink", "many")):
        folder = resealed(folder, with_counted(**{name: wrong}))
        with pytest.raises(BundleError, match=rf"tables.{name}"):
            load(folder)
    folder = resealed(folder, lambda manifest: manifest.update(tables={"reach": 3}))
    with pytest.raises(BundleError, match="missing required field `half_life`"):
        load(folder)


def test_an_export_says_how_a_tally_counts_tables() -> None:
    near = NeighbourSettings(reach=20, back=0.2, shrink=20.0, half_life=365)
    files = build(dataclasses.replace(tiny_run(), tables=TableSettings("streamed", near, 90)), text=text_onnx())
    assert msgspec.json.decode(files[MANIFEST])["tables"] == COUNTED


def test_the_strength_of_diversity_is_read_and_is_0_in_bundles_of_earlier_versions(copy: Path) -> None:
    folder = resealed(copy, lambda manifest: manifest.pop("diversity"))
    assert load(folder).diversity == 0.0
    folder = resealed(folder, with_strength(0.35))
    assert load(folder).diversity == 0.35
    with pytest.raises(BundleError, match=r"diversity.strength"):
        load(resealed(folder, with_strength(1.5)))


def test_hidden_folders_that_kills_have_left_are_deleted(tmp_path: Path) -> None:
    old, running = tmp_path / ".publishing-old", tmp_path / ".publishing-running"
    old.mkdir()
    running.mkdir()
    os.utime(old, (1, 1))
    made = hidden_folder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([made, running])
