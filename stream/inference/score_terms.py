"""The terms of a score, computed outside the score graph from the same arrays, so that a score can be explained.

docs/bundle.md has the sum. The query is the graph's own: the part of score.onnx that computes it becomes a session. The
other terms are computed in numpy from the arrays that the graph holds, and from the tables that it reads. Both run on the
CPU, whatever scores.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.core.errors import BundleError
from stream.core.score_tables import ScoreTables
from stream.inference import onnx_parts
from stream.inference import runtime as accelerator
from stream.inference.bundle import Bundle
from stream.inference.models import MIN_ROWS

Floats = NDArray[np.float32]
Half = NDArray[np.float16]
Rows = NDArray[np.int64]

GRAPH: Final = "score.onnx"
QUERY: Final = "query"
DECAY, PRIOR, EVIDENCE = "tail_decay", "tail_prior", "tail_evidence"
TEXT, TEXT_DECAY = "tail_text", "tail_text_decay"
"""Names in the graph (export/score_head.py)."""
NEAR, WEIGHT, POPULARITY = "tail_index", "tail_weight", "tail_popularity"
"""Names of the tables in the graphs of earlier bundles, which have them inside; log-popularity is times its weight there."""


class ScoreTerms:
    """The terms of one bundle's score.

    Args:
        bundle: The bundle.

    Raises:
        BundleError: Its score graph does not have the terms of docs/bundle.md, or they do not give its golden scores.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        model = bundle.read(GRAPH)
        try:
            wanted = (NEAR, WEIGHT, POPULARITY) if bundle.tables is None else (PRIOR,)
            found = onnx_parts.arrays(model, (*wanted, DECAY, EVIDENCE, TEXT, TEXT_DECAY))
            self._query = accelerator.session(GRAPH, onnx_parts.upstream(model, QUERY), "cpu")
        except BundleError as error:
            raise BundleError(f"{GRAPH}: its scores cannot be explained: {error}: export the run again") from None
        known = len(bundle.item_ids) + 1
        self._own = bundle.tables or ScoreTables(
            0,
            found.get(NEAR, np.zeros((known, 0), np.int32)),
            found.get(WEIGHT, np.zeros((known, 0), np.float32)),
            found.get(POPULARITY, np.zeros(known, np.float32)),
        )
        self._decay = found.get(DECAY, np.zeros(0, np.float32))
        self._prior = np.float32(1) if bundle.tables is None else found.get(PRIOR, np.float32(0))
        self._evidence = float(found.get(EVIDENCE, np.ones((), np.float32)))
        self._text = float(found.get(TEXT, np.zeros((), np.float32)))
        self._text_decay = found.get(TEXT_DECAY, np.zeros(0, np.float32))
        if self._own.near.shape != self._own.weight.shape:
            raise BundleError(f"{GRAPH}: its scores cannot be explained: it has only some of {NEAR}, {WEIGHT}")
        if bundle.text_width and not {TEXT, TEXT_DECAY} <= found.keys():
            raise BundleError(f"{GRAPH}: its scores cannot be explained: it has only some of {TEXT}, {TEXT_DECAY}")
        self._check()

    def interest(self, h: Half, items: Floats) -> Floats:
        """Return the recurrent term float32 [B, n] of states float16 [B, H] and item vectors float32 [n, D]."""
        if not len(h):
            return np.zeros((0, len(items)), np.float32)
        states = np.concatenate((h,) * MIN_ROWS) if len(h) < MIN_ROWS else h
        query: Floats = self._query.run([QUERY], {"h": states})[0][: len(h)]
        return query @ items.T

    def neighbours(self, rows: Rows, recent: Rows, tables: ScoreTables | None = None) -> Floats:
        """Return the neighbours' term float32 [R, n] of n item rows, separately for each recent choice.

        Args:
            rows: int64 [n], rows of the catalogue.
            recent: int64 [R, 2], (item row, age) of one user's choices.
            tables: Those that were scored with; None for the bundle's own.
        """
        tables = tables or self._own
        out = np.zeros((len(recent), len(rows)), np.float32)
        for at, (row, age) in enumerate(recent.tolist()):
            if row >= len(tables.near) or age >= len(self._decay):  # the tables do not have it: no neighbours
                continue
            weights = np.where(tables.near[row][None, :] == rows[:, None], tables.weight[row][None, :], np.float32(0))
            out[at] = weights.sum(1) * self._decay[age]
        return out

    def texts(self, items: Floats, chosen: Floats, ages: Rows) -> Floats:
        """Return the text term float32 [R, n] of n items, separately for each recent choice.

        Args:
            items: float32 [n, D + P], what score.onnx reads of the items.
            chosen: float32 [R, D + P], the same of one user's choices.
            ages: int64 [R], the age of each choice.
        """
        width = self._bundle.text_width
        if not width or not len(chosen):
            return np.zeros((len(chosen), len(items)), np.float32)
        share = self._text_decay[ages]
        share *= np.float32(self._text) / max(share.sum(), np.float32(1))
        texts = chosen[:, -width:]
        texts = texts / np.maximum(
            np.linalg.norm(texts, axis=1, keepdims=True), np.float32(1)
        )  # those of new items are longer
        found: Floats = share[:, None] * (texts @ items[:, -width:].T)
        return found

    def popularity(self, rows: Rows, count: int, tables: ScoreTables | None = None) -> Floats:
        """Return the popularity term float32 [n] of n item rows for a user with `count` events; `tables` as above."""
        popularity = (tables or self._own).popularity
        known = rows < len(popularity)
        share = self._prior * np.float32(self._evidence) / (np.float32(self._evidence) + np.float32(count))
        return np.where(known, share * popularity[np.where(known, rows, 0)], np.float32(0))

    def _check(self) -> None:
        """Raise BundleError if the terms do not add up to the golden scores."""
        bundle = self._bundle
        golden = bundle.golden("score")
        items = np.concatenate((bundle.score_items, golden["later"]))
        parity = bundle.parity["score"]
        far = 0.0
        for user, (scores, rows) in enumerate(zip(golden["scores"], golden["rows"], strict=True)):
            rows, scores = rows[np.isfinite(scores)], scores[np.isfinite(scores)]
            recent = golden["recent"][golden["recent"][:, 0] == user][:, 1:]
            terms = self.interest(golden["h"][user : user + 1], items[rows, : bundle.item_dim])[0]
            terms = terms + self.neighbours(rows, recent).sum(0)
            terms = terms + self.texts(items[rows], items[recent[:, 0]], recent[:, 1]).sum(0)
            terms = terms + self.popularity(rows, int(golden["count"][user]))
            far = max(far, float(np.abs(terms - scores).max(initial=0.0)))
        if not far <= parity.tolerance:
            raise BundleError(
                f"{GRAPH}: its scores cannot be explained: the terms are {far:g} {parity.unit} away from its golden scores, "
                f"expected {parity.tolerance:g} at most: export the run again"
            )
