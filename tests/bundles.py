"""A real but tiny bundle for tests: a random network, the real BERT, made by the same code as every export.

python -m tests.bundles FOLDER [ITEMS]      writes a bundles folder with CURRENT
"""

from __future__ import annotations

import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from export.graphs import serialise, text_graph
from export.publish import build, publish
from models.network.blend import Blend, Neighbours
from models.network.network import InterestNetwork, NetworkSize
from models.network.projection import fit_projection, no_projection
from models.network.text import load_bert
from models.training.run import DataInfo, Run
from stream.core.features import InputSpec

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "tests"


BLEND = Blend(last=5, fade=0.6, neighbour=0.5, prior=0.3, evidence=2.0)
TEXT_BLEND = replace(BLEND, text=4.0, text_fade=0.7, text_new=10.0)
TEXT_WIDTH = 16


def tiny_run(
    items: int = 50,
    seed: int = 7,
    item: int = 16,
    hidden: int = 32,
    near: int = 4,
    blend: Blend = BLEND,
    actions: tuple[str, ...] = (),
) -> Run:
    """An untrained network over `items` items called item-1, item-2, ..., each with the `near` rows behind it as neighbours.

    hidden: of the stored state, of one block and its output; actions: that it reads, as if it had learned them. A blend with
    texts has a projection of TEXT_WIDTH components.
    """
    torch.manual_seed(seed)
    text = torch.nn.functional.normalize(torch.randn(items + 1, 384), dim=-1)
    text[0] = 0
    size = NetworkSize(items=items, scenes=2, item=item, width=hidden // 2, actions=len(actions))
    network = InterestNetwork(size, text).eval()
    if network.action is not None:
        torch.nn.init.normal_(network.action.weight[1:])
    popularity = np.concatenate(([0.0], 1000.0 / np.arange(1, items + 1))).astype(np.float32)
    known = np.arange(items + 1) > 0
    projection = fit_projection(text.numpy(), known, TEXT_WIDTH) if blend.text else no_projection(384)
    return Run(
        network=network,
        spec=InputSpec((0.5, 5.0), ("home", "search"), 384, actions=actions),
        item_ids=tuple(f"item-{row}" for row in range(1, items + 1)),
        popularity=popularity,
        text=text.numpy(),
        data=DataInfo("tiny", "0" * 64, 0),
        metrics={"validation HR@10": 0.5, "validation NDCG@10": 0.25},
        blend=blend,
        neighbours=ring(items, near),
        projection=projection,
        new=np.arange(items + 1) % 10 == 0,
        protocol="made up for tests",
        intervals={"validation NDCG@10": (0.2, 0.3)},
        seconds=1.5,
        seeds=(seed,),
    )


def ring(items: int, near: int) -> Neighbours:
    """Row r has the rows r + 1 ... r + near as neighbours, in a ring, with weights 1, 1/2, 1/3, ..."""
    index = (np.arange(items)[:, None] + 1 + np.arange(near)) % items + 1
    weight = np.broadcast_to(1 / np.arange(1, near + 1, dtype=np.float32), index.shape)
    return Neighbours(
        np.concatenate((np.zeros((1, near), np.int64), index)),
        np.concatenate((np.zeros((1, near), np.float32), weight)),
    )


def text_onnx() -> bytes:
    """text.onnx of the real BERT, exported once per version of torch and of the exporting code."""
    code = (Path(__file__).parent.parent / "export" / "graphs.py").read_bytes()
    path = CACHE / f"text-{sha256(code + torch.__version__.encode()).hexdigest()[:16]}.onnx"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # test processes run side by side
        if not path.is_file():
            partial = path.with_suffix(".partial")
            partial.write_bytes(serialise(text_graph(load_bert())))
            partial.replace(path)
    return path.read_bytes()


def tiny_bundle(folder: Path, items: int = 50, actions: tuple[str, ...] = ()) -> Path:
    """Publish a tiny bundle below `folder` (a bundles folder, with CURRENT) -> the bundle's own folder."""
    return publish(build(tiny_run(items, actions=actions), text=text_onnx()), folder)


def text_term_bundle(folder: Path) -> Path:
    """As `tiny_bundle`, with a text term."""
    return publish(build(tiny_run(blend=TEXT_BLEND), text=text_onnx()), folder)


def shallow_bundle(folder: Path) -> Path:
    """As `tiny_bundle`, with one layer of the text network: small enough to be carried about."""
    bert = load_bert()
    bert.encoder.layer = bert.encoder.layer[:1]
    bert.config.num_hidden_layers = 1
    return publish(build(tiny_run(), bert), folder)


if __name__ == "__main__":
    print(tiny_bundle(Path(sys.argv[1]), items=int(sys.argv[2]) if len(sys.argv) > 2 else 50))
