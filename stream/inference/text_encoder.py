"""Texts to vectors: BERT on ONNX Runtime with only `tokenizers`. From these it computes the vectors of new items and
the ratings in comments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from stream.core.errors import BundleError
from stream.inference import runtime as accelerator
from stream.inference.bundle import RATING, Bundle
from stream.inference.models import MIN_ROWS, agree
from stream.inference.runtime import Policy

Vectors = NDArray[np.float32]
BUCKET: Final = 8
"""A text is padded to a multiple of this many tokens. Only its own length decides, never that of other texts."""
BATCH_TOKENS: Final = 2048
TEXT_FILES: Final = ("text.onnx", "tokenizer.json")
"""What a text's vector depends on."""
READ: Final = (*TEXT_FILES, RATING, "item.onnx")


class Encoder:
    """Encodes a text as a unit vector of width T; `provider` is what runs it, cuda or cpu. Thread-safe.

    Args:
        bundle: The bundle.
        provider: What runs it.
        like: The encoder of another bundle: sessions of graphs that are the same, byte for byte, are shared with it.
    """

    def __init__(self, bundle: Bundle, provider: str, like: Encoder | None = None) -> None:
        self.provider = provider
        self.width = bundle.text_dim
        self._max_tokens = bundle.max_tokens
        self._hashes = {name: entry.sha256 for name, entry in bundle.files.items() if name in READ}
        self._sessions: dict[str, Any] = {}
        try:
            self._tokenizer = Tokenizer.from_str(bundle.read("tokenizer.json").decode())
        except Exception as error:  # the tokenizer library raises plain Exception
            raise BundleError(f"tokenizer.json: not readable ({error})") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(bundle.max_tokens)
        self._session = self._open("text.onnx", bundle, like)
        tokens = ("int64", None, None)
        accelerator.check_signature(
            "text.onnx", self._session,
            {"input_ids": tokens, "attention_mask": tokens, "token_type_ids": tokens},
            {"vector": ("float", None, bundle.text_dim)}
            | ({"hidden": ("float", None, None, bundle.text_dim)} if bundle.reading else {}),
        )  # fmt: skip
        self._rating = None
        if bundle.reading:
            self._rating = self._open(RATING, bundle, like)
            accelerator.check_signature(
                RATING, self._rating,
                {"hidden": ("float", None, None, bundle.text_dim), "attention_mask": tokens}, {"value": ("float", None)},
            )  # fmt: skip
        self._row_width = bundle.row_width
        self._items = self._open("item.onnx", bundle, like)
        accelerator.check_signature(
            "item.onnx", self._items,
            {"text": ("float", None, bundle.text_dim)},
            {"item": ("float", None, bundle.item_dim)}
            | ({"output": ("float", None, bundle.item_dim)} if bundle.own_inputs else {})
            | ({"projected": ("float", None, bundle.text_width)} if bundle.text_width else {}),
        )  # fmt: skip

    def _open(self, name: str, bundle: Bundle, like: Encoder | None) -> Any:
        """Return the session of a graph: that of `like` if its graph is the same."""
        shared = None
        if like is not None and like.provider == self.provider and like._hashes.get(name) == self._hashes[name]:
            shared = like._sessions.get(name)
        self._sessions[name] = shared or accelerator.session(name, bundle.read(name), self.provider)
        return self._sessions[name]

    def encodes_like(self, other: Encoder) -> bool:
        """Return whether both give the same vector and the same rating for every text: they read the same files."""
        names = (*TEXT_FILES, *([RATING] if self.reads or other.reads else []))
        return (
            self.provider == other.provider
            and self._max_tokens == other._max_tokens
            and all(self._hashes.get(name) == other._hashes.get(name) for name in names)
        )

    def encode(self, text: str) -> Vectors:
        """Encode one text as float32 [T]. It is run alone, so the vector depends only on the text.

        The empty text has zeros, as in training.
        """
        if not text:
            return np.zeros(self.width, np.float32)
        vector: Vectors = self._run([self._tokens(text)])[0]
        return vector

    @property
    def reads(self) -> bool:
        """Whether the bundle can read the rating from a text."""
        return self._rating is not None

    def encode_and_read(self, text: str) -> tuple[Vectors, float]:
        """Encode one text, run alone. Return the same vector as `encode`, and the rating in it on the bundle's scale.

        The rating is NaN for the empty text, and if the bundle does not read ratings. Vector and rating share the lower
        layers, so no second BERT runs.
        """
        if not text or self._rating is None:
            return self.encode(text), math.nan
        feed = self._feed([self._tokens(text)])
        vector, hidden = self._session.run(["vector", "hidden"], feed)
        value = self._rating.run(None, {"hidden": hidden, "attention_mask": feed["attention_mask"]})[0]
        return vector[0], float(value[0])

    def encode_many(self, texts: Sequence[str]) -> Vectors:
        """Encode texts as float32 [n, T], in the given order.

        On a GPU, texts with the same padded length share a batch. On a CPU each runs alone, which is about as fast
        there and keeps the vector a function of the text.
        """
        vectors = np.zeros((len(texts), self.width), np.float32)
        if self.provider == "cpu":
            for row, text in enumerate(texts):
                vectors[row] = self.encode(text)
            return vectors
        encoded = {row: self._tokens(text) for row, text in enumerate(texts) if text}
        order = sorted(encoded, key=lambda row: len(encoded[row].ids))
        start = 0
        while start < len(order):
            length = _padded(encoded[order[start]])
            end = start
            while end < len(order) and _padded(encoded[order[end]]) == length and (end - start) * length < BATCH_TOKENS:
                end += 1
            rows = order[start:end]
            vectors[rows] = self._run([encoded[row] for row in rows])
            start = end
        return vectors

    def item_vectors(self, texts: Sequence[str]) -> Vectors:
        """Return the catalogue's rows for the texts of items unseen in training, float32 [n, row_width].

        Each is the item's vector, followed by its output vector if the bundle has such vectors, and by its projected text if it
        has a text term.
        """
        return self._tower(self.encode_many(texts)) if texts else np.zeros((0, self._row_width), np.float32)

    def _tower(self, text: Vectors) -> Vectors:
        rows = text if len(text) >= MIN_ROWS else np.concatenate((text,) * MIN_ROWS)
        parts: list[Vectors] = self._items.run(None, {"text": rows})
        return np.concatenate(parts, axis=1)[: len(text)]

    def _tokens(self, text: str) -> Encoding:
        # A lone surrogate is not valid text: the tokenizer would refuse it.
        return self._tokenizer.encode(text.encode("utf-8", "replace").decode("utf-8"))

    def _run(self, encoded: Sequence[Encoding]) -> Vectors:
        """Return float32 [n, T] for encodings of one padded length."""
        vectors: Vectors = self._session.run(["vector"], self._feed(encoded))[0]
        return vectors

    def _feed(self, encoded: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
        """Return encodings of one padded length as the inputs of text.onnx."""
        shape = len(encoded), _padded(encoded[0])
        ids = np.zeros(shape, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens.ids)] = tokens.ids
            mask[row, : len(tokens.ids)] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, np.int64)}

    def check_golden(self, bundle: Bundle) -> None:
        """Encode the golden sentences and item texts; this also warms up the sessions. Raises BundleError on a deviation."""
        try:
            golden = bundle.golden("encoder")
            agree("text", apart(self.encode_many([*map(str, golden["sentences"])]), golden["vectors"]), bundle)
            golden = bundle.golden("item")
            names = (
                "item",
                *(("output",) if bundle.own_inputs else ()),
                *(("projected",) if bundle.text_width else ()),
            )
            expected = [golden[name] for name in names]
            agree("item", apart(self._tower(golden["text"]), np.concatenate(expected, axis=1)), bundle)
            if self.reads:
                golden = bundle.golden("reading")
                values = [self.encode_and_read(str(sentence))[1] for sentence in golden["sentences"]]
                agree("rating", apart(np.array(values, np.float32), golden["values"]), bundle)
        except (KeyError, ValueError, TypeError) as error:
            raise BundleError(f"golden.npz: does not fit the graphs ({type(error).__name__}: {error})") from None


def open_encoder(bundle: Bundle, provider: Policy, like: Encoder | None = None) -> Encoder:
    """Open the bundle's encoder, checked with the golden vectors. Raises as `open_models` does.

    Sessions of graphs that `like` has, too, are shared with it; all others are its own.
    """
    encoder = Encoder(bundle, accelerator.resolve(provider), like)
    encoder.check_golden(bundle)
    return encoder


def apart(found: Vectors, expected: Vectors) -> float:
    """Return the largest difference of a component; inf if the shapes differ or a value is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max(initial=0.0))


def _padded(tokens: Encoding) -> int:
    return -(-len(tokens.ids) // BUCKET) * BUCKET
