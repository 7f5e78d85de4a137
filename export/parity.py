"""Proves that the graphs match the network: golden vectors from torch, and how far ONNX Runtime is from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from export.graphs import HeadedTower, ItemTower, ProjectingTower, Query, TextVector, step_module
from export.text_rating import Arrays, reading_golden
from models.network.blend import Texts, blend_scores, log_popularity, scaled_texts
from models.training.run import Run
from stream.core.errors import BundleError
from stream.core.features import NUMBERS
from stream.core.messages import BEHAVIOURS
from stream.core.score_tables import ScoreTables
from stream.inference import runtime
from stream.inference.bundle import Parity
from stream.inference.models import slates_apart, ulps
from stream.inference.text_encoder import apart

UNITS: Final = {
    "step": "float16 steps", "score": "of a score", "text": "of a component", "item": "of a component",
    "rating": "of a rating",
}  # fmt: skip
TOLERANCES: Final = {"step": 2.0, "score": 1e-3, "text": 1e-4, "item": 1e-4, "rating": 1e-3}
ROWS: Final = 33
TOP: Final = 10
LATER: Final = 5
SENTENCES: Final = (
    "A quiet film about two friends who restore an old boat.",
    "Loved it!",
    "Space opera, Adventure. A crew looks for a way home and finds out that it never left.",
    "zu lang, aber die Musik bleibt im Kopf",
    "",
)


def golden_vectors(
    run: Run, items: NDArray[np.float32], outputs: NDArray[np.float32], bert: nn.Module, tokenizer: bytes
) -> dict[str, Arrays]:
    """Compute the golden vectors with torch, in float32 on the CPU.

    `encoder` holds sentences and their vectors, so that the tokenizer is checked too.

    Args:
        run: The run.
        items: float32 [N + 1, D], what the step reads.
        outputs: float32 [N + 1, D], what is scored.
        bert: The text network.
        tokenizer: Content of tokenizer.json.

    Returns:
        Graph -> input or output name -> array.
    """
    random = np.random.default_rng(20)
    network, size = run.network, run.network.size
    golden: dict[str, Arrays] = {}
    with torch.inference_mode():
        step: Arrays = {
            "item": items[random.integers(0, len(items), ROWS)],
            "behaviour": random.integers(0, len(BEHAVIOURS), ROWS),
            "scene": random.integers(0, size.scenes + 1, ROWS),
            **({"action": _actions(size.actions)} if size.reads_actions else {}),
            "numbers": random.uniform(-1, 1, (ROWS, NUMBERS)).astype(np.float32),
            "comment": _unit(random, ROWS, size.text) * (random.random((ROWS, 1)) < 0.3).astype(np.float32),
            "h": np.tanh(random.normal(size=(ROWS, size.hidden))).astype(np.float16),
            "c": random.normal(scale=2, size=(ROWS, size.hidden)).astype(np.float16),
        }
        h_next, c_next = step_module(network)(*(torch.from_numpy(array) for array in step.values()))
        step |= {"h_next": h_next.numpy(), "c_next": c_next.numpy()}
        golden["step"] = step
        golden["score"] = _score(run, step["h_next"], outputs, random)
        text = _unit(random, ROWS, size.text)
        golden["item"] = _item(run, text)
        golden["text"], golden["encoder"] = _texts(bert, tokenizer)
    if run.reading:
        golden |= reading_golden(run.reading, run.spec.rating_scale, bert, tokenizer, golden["text"])
    return golden


def measure(
    graphs: Mapping[str, bytes], golden: Mapping[str, Arrays], items: NDArray[np.float32], tables: ScoreTables
) -> dict[str, Parity]:
    """Measure how far each graph under ONNX Runtime's CPU provider is from torch.

    `items` is what score.onnx reads of the bundle's items, float32 [N + 1, D + P], `tables` are the bundle's own. Raises
    BundleError if a graph is beyond its tolerance.
    """
    found: dict[str, Parity] = {}
    for name, tolerance in TOLERANCES.items():
        if f"{name}.onnx" not in graphs:
            continue
        session = runtime.session(f"{name}.onnx", graphs[f"{name}.onnx"], "cpu")
        arrays = golden[name]
        if name == "score":
            arrays = arrays | {
                "items": np.concatenate((items, arrays["later"])),
                "k": np.array([arrays["rows"].shape[1]]),
                "near": tables.near,
                "weight": tables.weight,
                "popularity": tables.popularity,
            }
        outputs = [value.name for value in session.get_outputs() if value.name in arrays]
        feed = {value.name: arrays[value.name] for value in session.get_inputs()}
        result = dict(zip(outputs, session.run(outputs, feed), strict=True))
        if name == "step":
            far = max(ulps(result[output], arrays[output]) for output in outputs)
        elif name == "score":
            far = slates_apart(result["scores"], result["rows"], arrays["scores"], arrays["rows"])
        else:
            far = max(apart(result[output], arrays[output]) for output in outputs)
        if not far <= tolerance:
            raise BundleError(f"{name}.onnx is {far:g} {UNITS[name]} away from torch; expected at most {tolerance:g}")
        found[name] = Parity(max=far, tolerance=tolerance, unit=UNITS[name])
    return found


def _item(run: Run, text: NDArray[np.float32]) -> Arrays:
    """Return the arrays of the item graph. With a text term the first text is the empty one, which has no projection."""
    if run.network.size.untied:
        text[0] = 0
        tower = HeadedTower(run.network, run.projection if run.text_width else None, run.more_for_new)
        found = [tensor.numpy() for tensor in tower(torch.from_numpy(text))]
        return {"text": text, **dict(zip(("item", "output", "projected"), found, strict=False))}
    if not run.text_width:
        return {"text": text, "item": ItemTower(run.network)(torch.from_numpy(text)).numpy()}
    text[0] = 0
    item, projected = ProjectingTower(run.network, run.projection, run.more_for_new)(torch.from_numpy(text))
    return {"text": text, "item": item.numpy(), "projected": projected.numpy()}


def _score(run: Run, h: NDArray[np.float16], items: NDArray[np.float32], random: Any) -> Arrays:
    """Return the arrays of the score graph.

    `later` holds vectors of items that came after training, each followed by its projected text if the sum has texts.
    Their rows follow the bundle's own, which are not repeated.
    """
    later = random.normal(size=(LATER, items.shape[1])).astype(np.float32) * items.std()
    live = np.concatenate((items, later))
    drawn = np.random.default_rng(22)  # separate, so that the other vectors equal those of a sum without texts
    known, own = run.texts, _unit(drawn, LATER, run.text_width)
    texts = Texts(np.concatenate((known.vectors, own)), np.concatenate((known.new, np.ones(LATER, np.bool_))))
    bias = np.where(random.random(len(live)) < 0.1, -np.inf, 0.0).astype(np.float32)
    bias[0] = -np.inf
    hidden = np.stack((random.integers(0, len(h), 40), random.integers(0, len(live), 40)), axis=1)
    # User u has min(u, last) choices and u events. This covers empty, partly filled and full lists of choices.
    have = [min(user, run.blend.last) for user in range(len(h))]
    recent = np.array(
        [(user, random.integers(0, len(items)), age) for user, most in enumerate(have) for age in range(most)], np.int64
    ).reshape(-1, 3)
    if run.text_width and len(recent):  # choices of items that came after training: they have texts, and no neighbours
        recent[::7, 1] = len(items) + drawn.integers(0, LATER, len(recent[::7]))
    count = np.arange(len(h), dtype=np.int64)
    k = min(TOP, len(live))
    products = Query(run.network)(torch.from_numpy(h)) @ torch.from_numpy(live).T + torch.from_numpy(bias)
    popular = log_popularity(run.popularity.astype(np.float32))
    scores = blend_scores(products, recent, count, run.blend, run.neighbours, popular, texts)
    scores[hidden[:, 0], hidden[:, 1]] = -torch.inf
    best, rows = scores.sort(dim=1, descending=True, stable=True)  # as in ONNX: of equal scores, the lower row first
    return {
        "h": h, "later": np.concatenate((later, scaled_texts(texts, run.blend)[-LATER:]), axis=1),
        "bias": bias, "hidden": hidden, "recent": recent, "count": count,
        "scores": best[:, :k].numpy(), "rows": rows[:, :k].numpy(),
    }  # fmt: skip


def _actions(names: int) -> NDArray[np.int64]:
    """Return i64 [ROWS], including the last name and "none".

    A separate generator draws them, so that the other vectors equal those of a bundle without actions.
    """
    drawn = np.random.default_rng(21).integers(0, names + 1, ROWS)
    drawn[:2] = names, 0
    return drawn


def _texts(bert: nn.Module, tokenizer: bytes) -> tuple[Arrays, Arrays]:
    tokens = [Tokenizer.from_str(tokenizer.decode()).encode(sentence).ids for sentence in SENTENCES]
    ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
    mask = np.zeros_like(ids)
    for row, sentence in enumerate(tokens):
        ids[row, : len(sentence)] = sentence
        mask[row, : len(sentence)] = 1
    module = TextVector(bert)
    batch: Arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    batch["vector"] = module(*(torch.from_numpy(array) for array in batch.values())).numpy()
    alone = [
        module(*(torch.from_numpy(part[row : row + 1, : len(sentence)]) for part in (ids, mask, ids * 0))).numpy()[0]
        for row, sentence in enumerate(tokens)
    ]
    alone = [vector * bool(sentence) for vector, sentence in zip(alone, SENTENCES, strict=True)]  # empty text: zeros
    return batch, {"sentences": np.array(SENTENCES), "vectors": np.stack(alone)}


def _unit(random: Any, rows: int, width: int) -> NDArray[np.float32]:
    vectors = random.normal(size=(rows, width))
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit
