"""The recurrent step and the scoring as ONNX sessions: numpy in, numpy out. The shapes are those in docs/bundle.md."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from stream.core.errors import BundleError
from stream.core.features import NUMBERS, UNKNOWN, InputRows
from stream.core.score_tables import ScoreTables
from stream.inference import runtime as accelerator
from stream.inference.bundle import MANIFEST, Bundle
from stream.inference.masking import settle
from stream.inference.runtime import Policy

Half = NDArray[np.float16]
Rows = NDArray[np.int64]
MIN_ROWS: Final = 2
"""Never run fewer rows: on some processors a single row uses matrix-vector kernels, whose sums round differently."""
SCORED: Final = 64
"""Users scored at a time on a CPU, so that their arrays [64, N] stay in the processor's cache."""
CELLS: Final = 2**27
"""Users times items scored at a time on a GPU: 512 MiB for each of the few [B, N] arrays of the graph, far below 2^31
elements."""
ULP_FLOOR: Final = 0.125
"""States are compared in float16 steps at this magnitude or at that of the value, whichever is larger."""


class Models:
    """One bundle's step and score sessions. Only one thread at a time may call them.

    Attributes:
        provider: What runs them, cuda or cpu.
        last: How many of a user's last choices `score` needs.
        choices: Behaviours that count as choices, except events with a `refused` action.
        refused: Actions that are not choices.
        ended: How many graph calls have ended.
    """

    def __init__(self, bundle: Bundle, provider: str) -> None:
        self.provider = provider
        self.ended = 0
        self.last = bundle.blend.last if bundle.blend.neighbours or bundle.text_width else 0
        self.choices = bundle.spec.chosen()
        self.refused = bundle.spec.refused()
        self._bundle = bundle
        self._step = accelerator.session("step.onnx", bundle.read("step.onnx"), provider)
        self._score = accelerator.session("score.onnx", bundle.read("score.onnx"), provider)
        self._items_on_device: tuple[NDArray[np.float32], Any] | None = None
        self._bias_on_device: tuple[NDArray[np.float32], Any] | None = None
        self._tables_bound: tuple[ScoreTables, dict[str, Any]] | None = None
        self._check_signatures()

    def step(self, rows: InputRows, h: Half, c: Half) -> tuple[Half, Half]:
        """Apply one event for each of B users: rows and states float16 [B, H] -> next h, next c float16 [B, H].

        On one CPU a row's result has the same bits in any batch and at any place in it. If an input of a row is not
        finite, its result is NaN, because the graph may turn such an input into a saturated, finite state.
        """
        count = len(h)
        if count == 0:
            return h, c
        feed: dict[str, NDArray[Any]] = rows._asdict() | {"h": h, "c": c}
        if not self._bundle.spec.actions:
            del feed["action"]
        broken = not_finite(rows.item, rows.numbers, rows.comment, h, c)
        if count < MIN_ROWS:
            feed = {name: np.concatenate((array,) * MIN_ROWS) for name, array in feed.items()}
        h_next, c_next = self._step.run(None, feed)
        self.ended += 1
        h_next, c_next = h_next[:count], c_next[:count]
        if broken.any():
            h_next[broken] = c_next[broken] = np.nan
        return h_next, c_next

    def score(
        self,
        h: Half,
        items: NDArray[np.float32],
        bias: NDArray[np.float32],
        hidden: Rows,
        recent: Rows,
        count: Rows,
        k: int,
        tables: ScoreTables | None = None,
    ) -> tuple[NDArray[np.float32], Rows]:
        """Score states against items.

        Args:
            h: States, float16 [B, H].
            items: float32 [N, D + P] (stream.inference.bundle.Bundle.score_items).
            bias: float32 [N], -inf for an item that must not appear, else what is added to its score (0: nothing).
            hidden: int64 [S, 2], (user row, item row) pairs that must not appear.
            recent: int64 [R, 3], (user row, item row, age below `last`).
            count: int64 [B], events so far.
            k: Length of the slates, at most N.
            tables: Neighbours and log-popularity of at most N rows; None for the bundle's own. Ignored if the graph has them
                inside.
        Returns:
            Scores float32 [B, k] and rows int64 [B, k], best first. A place without a recommendation has score -inf and
            row 0 on every provider (stream.inference.masking.settle). A user whose state is not finite has no
            recommendations.
        """
        k = min(k, len(items))
        if len(h) == 0 or k <= 0:
            return np.zeros((len(h), max(k, 0)), np.float32), np.zeros((len(h), max(k, 0)), np.int64)
        if self._bundle.tables is None and not self._bundle.text_width:  # other graphs take all rows
            late = recent[:, 1] > len(self._bundle.item_ids)
            if late.any():  # items newer than the training have no neighbours, like UNKNOWN
                recent = recent.copy()
                recent[late, 1] = UNKNOWN
        broken = not_finite(h)
        if broken.any():  # providers order NaN differently, so they never get NaN
            h = np.where(broken[:, None], np.float16(0), h)
        parts: list[tuple[NDArray[np.float32], Rows]] = []
        size = users_at_once(self.provider, len(items))
        for first in range(0, len(h), size):
            end = first + size
            feed: dict[str, NDArray[Any]] = {"h": h[first:end], "count": count[first:end], "k": np.array([k], np.int64)}
            feed |= {"hidden": _of_users(hidden, first, end), "recent": _of_users(recent, first, end)}
            parts.append(self._answer(feed, items, bias, self._bound(tables)))
            self.ended += 1
        all_scores, all_rows = zip(*parts, strict=True)
        scores, rows = settle(np.concatenate(all_scores), np.concatenate(all_rows), len(items))
        scores[broken] = -np.inf
        rows[broken] = 0
        return scores, rows

    def _bound(self, tables: ScoreTables | None) -> dict[str, Any]:
        """Return the tables as the graph's inputs: name -> OrtValue. They are bound once, and kept until other ones come."""
        wanted = self._bundle.tables if tables is None else tables
        if self._bundle.tables is None or wanted is None:
            return {}
        if self._tables_bound is None or self._tables_bound[0] is not wanted:
            from onnxruntime import OrtValue

            arrays = {"near": wanted.near, "weight": wanted.weight, "popularity": wanted.popularity}
            bound = {name: OrtValue.ortvalue_from_numpy(array, self.provider, 0) for name, array in arrays.items()}
            self._tables_bound = wanted, bound
        return self._tables_bound[1]

    def _answer(self, feed: dict[str, NDArray[Any]], items: Any, bias: Any, tables: dict[str, Any]) -> tuple[Any, Any]:
        """Return scores and rows as the graph outputs them.

        A GPU keeps the items until the next snapshot (every snapshot has its own array), and the bias until another one.
        """
        if self.provider != "cuda":
            scores, rows = self._score.run(None, feed | {"items": items, "bias": bias} | tables)
            return scores, rows
        from onnxruntime import OrtValue

        if self._items_on_device is None or self._items_on_device[0] is not items:
            self._items_on_device = items, OrtValue.ortvalue_from_numpy(items, "cuda", 0)
        if self._bias_on_device is None or self._bias_on_device[0] is not bias:
            self._bias_on_device = bias, OrtValue.ortvalue_from_numpy(bias, "cuda", 0)
        binding = self._score.io_binding()
        binding.bind_ortvalue_input("items", self._items_on_device[1])
        binding.bind_ortvalue_input("bias", self._bias_on_device[1])
        for name, value in tables.items():
            binding.bind_ortvalue_input(name, value)
        for name, array in feed.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        binding.bind_output("scores")
        binding.bind_output("rows")
        self._score.run_with_iobinding(binding)
        scores, rows = binding.copy_outputs_to_cpu()
        return scores, rows

    def _check_signatures(self) -> None:
        bundle = self._bundle
        d, h, t = bundle.item_dim, bundle.hidden, bundle.text_dim
        names = bundle.spec.actions
        reads = "action" in [value.name for value in self._step.get_inputs()]
        if names and not reads:
            raise BundleError(
                f"step.onnx: it has no input `action`, but {MANIFEST} names {len(names)} in inputs.actions "
                f"({', '.join(names)}): export the run again"
            )
        if reads and not names:
            raise BundleError(
                f"step.onnx: it has an input `action`, but {MANIFEST} names no actions in inputs.actions: export the run again"
            )
        accelerator.check_signature(
            "step.onnx", self._step,
            {"item": ("float", None, d), "behaviour": ("int64", None), "scene": ("int64", None),
             **({"action": ("int64", None)} if names else {}),
             "numbers": ("float", None, NUMBERS), "comment": ("float", None, t), "h": ("float16", None, h),
             "c": ("float16", None, h)},
            {"h_next": ("float16", None, h), "c_next": ("float16", None, h)},
        )  # fmt: skip
        accelerator.check_signature(
            "score.onnx", self._score,
            {"h": ("float16", None, h), "items": ("float", None, d + bundle.text_width), "bias": ("float", None),
             "hidden": ("int64", None, 2), "recent": ("int64", None, 3), "count": ("int64", None), "k": ("int64", 1),
             **({} if bundle.tables is None else {
                 "near": ("int32", None, None), "weight": ("float", None, None), "popularity": ("float", None)})},
            {"scores": ("float", None, None), "rows": ("int64", None, None)},
        )  # fmt: skip

    def _check_golden_actions(self, golden: dict[str, NDArray[Any]]) -> None:
        """Check that the golden vectors contain the manifest's last action, so the graph was tested with all names.

        If there are no actions, the golden vectors of earlier versions have none either. Then zeros are added, which
        are not fed to the graph.
        """
        names = self._bundle.spec.actions
        if not names:
            golden["action"] = np.zeros(len(golden["h"]), np.int64)
        elif (last := int(golden["action"].max(initial=0))) != len(names):
            raise BundleError(
                f"golden.npz: step.action goes up to {last}, but {MANIFEST} names {len(names)} in inputs.actions "
                f"({', '.join(names)}): export the run again"
            )

    def check_golden(self) -> None:
        """Run the golden vectors of step and score; this also warms up the sessions. Raises BundleError on a deviation."""
        try:
            golden = self._bundle.golden("step")
            self._check_golden_actions(golden)
            rows = InputRows(*(golden[name] for name in InputRows._fields))
            found = self.step(rows, golden["h"], golden["c"])
            expected = golden["h_next"], golden["c_next"]
            far = max(ulps(have, want) for have, want in zip(found, expected, strict=True))
            agree("step", far, self._bundle)
            golden = self._bundle.golden("score")
            items = np.concatenate((self._bundle.score_items, golden["later"]))
            h, bias, hidden, recent, count = (golden[name] for name in ("h", "bias", "hidden", "recent", "count"))
            scores, best = self.score(h, items, bias, hidden, recent, count, golden["scores"].shape[1])
            agree("score", slates_apart(scores, best, golden["scores"], golden["rows"]), self._bundle)
        except (KeyError, ValueError, IndexError, TypeError, InvalidArgument) as error:
            text = " ".join(str(error).split())
            raise BundleError(f"golden.npz: does not fit the graphs ({type(error).__name__}: {text})") from None


def not_finite(*parts: NDArray[Any]) -> NDArray[np.bool_]:
    """Return bool [B]: the rows in which any of the arrays [B, *] holds NaN or an infinity."""
    broken = np.zeros(len(parts[0]), np.bool_)
    for part in parts:
        broken |= ~np.isfinite(part).all(axis=1)
    return broken


def users_at_once(provider: str, items: int) -> int:
    """Return how many users one call of the score graph scores over `items` rows."""
    return max(SCORED, CELLS // items) if provider == "cuda" else SCORED


def _of_users(pairs: Rows, first: int, end: int) -> Rows:
    """Return the rows of an int64 [S, *] array whose user is in first .. end, with users counted from `first`."""
    mine = pairs[(pairs[:, 0] >= first) & (pairs[:, 0] < end)]
    mine[:, 0] -= first
    return mine


def open_models(bundle: Bundle, provider: Policy) -> Models:
    """Open sessions on the accelerator that `provider` allows, and check them with the golden vectors.

    Raises:
        BundleError: The bundle does not compute what it did at export.
        ProviderError: CUDA is required and not usable.
        SettingsError: More than one ONNX Runtime is installed.
    """
    models = Models(bundle, accelerator.resolve(provider))
    models.check_golden()
    return models


def agree(graph: str, far: float, bundle: Bundle) -> None:
    """Raise BundleError if a graph's outputs differ from the golden ones by more than its stated tolerance."""
    parity = bundle.parity[graph]
    if not far <= parity.tolerance:
        raise BundleError(
            f"{graph}.onnx: {far:g} {parity.unit} away from its golden vectors, expected {parity.tolerance:g} at most"
        )


def ulps(found: NDArray[np.float16], expected: NDArray[np.float16]) -> float:
    """Return the largest difference of two float16 arrays, in float16 steps at max(|expected|, ULP_FLOOR).

    It is inf if the shapes differ or `found` is not finite.
    """
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    if not found.size:
        return 0.0
    step = np.spacing(np.maximum(np.abs(expected), np.float16(ULP_FLOOR))).astype(np.float64)
    return float((np.abs(found.astype(np.float64) - expected.astype(np.float64)) / step).max())


def slates_apart(
    scores: NDArray[np.float32],
    rows: NDArray[np.int64],
    expected: NDArray[np.float32],
    expected_rows: NDArray[np.int64],
) -> float:
    """Return the difference of two sets of slates [B, k]: the largest score difference.

    It is inf if an item differs and no other item's score is near enough (1e-3) to explain that. The items at the last
    place are not compared.
    """
    if scores.shape != expected.shape or not np.array_equal(np.isneginf(scores), np.isneginf(expected)):
        return float("inf")
    real = ~np.isneginf(expected)
    far = float(np.abs(scores[real].astype(np.float64) - expected[real]).max(initial=0.0))
    gap = np.where(real[:, 1:], np.abs(np.diff(np.where(real, expected, 0.0), axis=1)), np.inf)
    clear = np.ones(expected.shape, bool)
    clear[:, 1:] &= gap > 1e-3
    clear[:, :-1] &= gap > 1e-3
    clear[:, -1] = False
    if (rows != expected_rows)[clear & real].any():
        return float("inf")
    return far
