"""A bundle as versions before schema 5 exported it: its score graph has neighbours and log-popularity inside."""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from stream.inference.bundle import LOG_POPULARITY, MANIFEST, NEAR, TABLES, WEIGHTS

INSIDE = {"near": (NEAR, "tail_index"), "weight": (WEIGHTS, "tail_weight")}
"""Input of score.onnx -> the file that it is read from, and its name in an earlier graph."""


def earlier(folder: Path, below: Path) -> Path:
    """Return the same bundle as an earlier version would have written it, below another folder."""
    target = below / folder.name
    shutil.copytree(folder, target, copy_function=os.link)
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    score = with_tables_inside((folder / "score.onnx").read_bytes(), {name: np.load(folder / name) for name in TABLES})
    for name in (*TABLES, "score.onnx", MANIFEST):
        (target / name).unlink()
    for name in TABLES:
        del manifest["files"][name]
    (target / "score.onnx").write_bytes(score)
    manifest["files"]["score.onnx"] = {"sha256": sha256(score).hexdigest(), "bytes": len(score)}
    manifest["schema"] = 4 if "text_term" in manifest else 3 if manifest["inputs"]["actions"] else 2
    raw = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"
    (target / MANIFEST).write_bytes(raw)
    return target.rename(below / sha256(raw).hexdigest())


def with_tables_inside(score: bytes, tables: dict[str, Any]) -> bytes:
    """Return score.onnx whose inputs of tables have become arrays of the graph; log-popularity is times its weight."""
    model: Any = onnx.load_from_string(score)
    graph = model.graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    arrays = {new: tables[file] for file, new in INSIDE.values()}
    names = {old: new for old, (_, new) in INSIDE.items()} | {"popularity": "tail_popularity"}
    if "tail_prior" in constants:
        arrays["tail_popularity"] = constants["tail_prior"] * tables[LOG_POPULARITY]
        _drop(graph.initializer, "tail_prior")
        _drop(graph.node, "tail_node_popularity")
    for name in names:
        _drop(graph.input, name)
    for node in graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = names.get(name, name)
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _drop(parts: Any, name: str) -> None:
    parts.remove(next(one for one in parts if one.name == name))
