"""Text vectors that are kept one by one, for data that grows from day to day: only what is new is encoded."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np

from models.data.histories import Floats
from models.network.text import MAX_TOKENS, TEXT_DIM, TextEncoder

DIGEST: Final = 16


class StoredTexts(TextEncoder):
    """A TextEncoder whose vectors are in one file, under hashes of their texts.

    `save` keeps the vectors that were asked for since the file was opened, if any were, and no others: the file does not grow
    with texts that are gone. A damaged file counts as empty.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(None)
        self._path = path
        self._used: set[bytes] = set()
        self._known: dict[bytes, Floats] = {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                digests, vectors = arrays["digests"], arrays["vectors"]
            if vectors.shape == (len(digests), TEXT_DIM) and digests.shape[1:] == (DIGEST,):
                self._known = {
                    digest.tobytes(): vector for digest, vector in zip(digests, vectors.astype(np.float32), strict=True)
                }
        except (OSError, ValueError, EOFError, KeyError):
            pass

    def _cached(self, texts: list[str], progress: Callable[[int, int], None]) -> Floats:
        digests = [_digest(text) for text in texts]
        new = [number for number, digest in enumerate(digests) if digest not in self._known]
        if new:
            found = self._encode([texts[number] for number in new], progress)
            self._known |= {digests[number]: vector for number, vector in zip(new, found, strict=True)}
        self._used.update(digests)
        if not texts:
            return np.zeros((0, TEXT_DIM), np.float32)
        return np.stack([self._known[digest] for digest in digests])

    def save(self) -> None:
        """Write the vectors that were used, by a rename. If none was asked for, the file stays: nothing is known of the data."""
        if not self._used:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        kept = sorted(self._used)
        digests = np.frombuffer(b"".join(kept), np.uint8).reshape(len(kept), DIGEST)
        vectors = np.stack([self._known[one] for one in kept]) if kept else np.zeros((0, TEXT_DIM), np.float32)
        beside = self._path.with_suffix(f".{os.getpid()}.npz")
        np.savez(beside, digests=digests, vectors=vectors)
        beside.replace(self._path)


def _digest(text: str) -> bytes:
    return blake2b(f"minilm {MAX_TOKENS}\0{text}".encode("utf-8", "replace"), digest_size=DIGEST).digest()
