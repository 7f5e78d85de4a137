"""The table of cases on the CPU: as its own TopK answers, and as CUDA's does, whose padding is put into the graph."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.publish import build, publish
from stream.catalogue.catalogue import Catalogue
from stream.core.fold import apply_events, rank
from stream.inference import runtime
from stream.inference.bundle import Bundle, load
from stream.inference.masking import MASKED, settle
from stream.inference.models import CELLS, SCORED, open_models, users_at_once
from tests.bundles import text_onnx, tiny_run
from tests.gpu import cases
from tests.gpu.cases import CASES, OF_SCORE, Subject
from tests.padding import PADDING, as_exported_before, padded

OLD = "as CUDA answers a bundle exported before"
GRAPHS: dict[str, Callable[[bytes], bytes]] = {
    "as the CPU answers": bytes,
    "as CUDA answers": padded,
    OLD: lambda score: padded(as_exported_before(score)),
}


@pytest.fixture(scope="module")
def subjects(bundle: Bundle) -> Callable[[str], Subject]:
    """A subject of each graph, whose golden vectors agree."""

    @cache
    def subject(graph: str) -> Subject:
        made = Subject(bundle, "cpu")
        made.found._score = runtime.session("score.onnx", GRAPHS[graph](bundle.read("score.onnx")), "cpu")
        made.found.check_golden()
        return made

    return subject


@pytest.mark.parametrize("name", CASES)
def test_case_on_the_cpu(name: str, subjects: Callable[[str], Subject]) -> None:
    CASES[name](subjects("as the CPU answers"))


@pytest.mark.parametrize("graph", [name for name in GRAPHS if name != "as the CPU answers"])
@pytest.mark.parametrize("name", OF_SCORE)
def test_case_as_cuda_answers(name: str, graph: str, subjects: Callable[[str], Subject]) -> None:
    if graph == OLD and CASES[name] is cases.raw:  # the case sees what the issue was; the session makes up for it
        with pytest.raises(AssertionError, match="export the run again"):
            cases.raw(subjects(graph))
    else:
        CASES[name](subjects(graph))


@pytest.mark.parametrize("graph", GRAPHS)
@settings(max_examples=60, deadline=None)
@given(
    users=st.integers(1, 64), live=st.integers(0, 50), off=st.integers(-3, 3), seen=st.integers(0, 51),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_the_k_best_that_are_left(
    graph: str, subjects: Callable[[str], Subject], users: int, live: int, off: int, seen: int, seed: int
) -> None:
    """k near and above what is left of the catalogue, for 1 to 64 users."""
    subject = subjects(graph)
    asked = cases.request(subject, users, 51, live, seed, seen)
    full = cases.every_score(subject, asked)
    for left in {live, int(np.isfinite(full[0]).sum())}:
        cases.right(subject, asked, max(1, left + off), full)


def raw_of_an_h100() -> tuple[Any, Any]:
    """Two items left of 51, k 8: CUDA's padding, then -inf."""
    scores = [1.5, 0.25, *[PADDING] * 5, -np.inf]
    return np.array([scores], np.float32), np.array([[7, 3, 51, 52, 53, 54, 55, 0]])


def test_padding_is_no_recommendation(bundle: Bundle) -> None:
    models = open_models(bundle, "cpu")
    models._score = SimpleNamespace(run=lambda *_: raw_of_an_h100())
    snapshot = Catalogue(bundle, lambda _: np.empty((0, bundle.item_dim), np.float32)).snapshot
    batch = apply_events(b"u", 0, None, [], ("clicks", "ratings", "comments"), bundle.state_model, bundle.hidden)
    (slate,) = rank([batch], models, snapshot, 8, filter_seen=True)
    assert [(scored.item, scored.score) for scored in slate] == [("item-7", 1.5), ("item-3", 0.25)]


@pytest.mark.parametrize(
    ("score", "row"),
    [
        (PADDING, 0), (-np.inf, 3), (MASKED, 3), (-1e30, 3), (0.5, 51), (0.5, -1), (0.5, 2**40), (np.nan, 3), (np.inf, 3),
        (1e30, 3),
    ],
)  # fmt: skip
def test_what_is_none(score: float, row: int) -> None:
    scores, rows = settle(np.array([[2, score], [1, 0]], np.float32), np.array([[5, row], [6, 7]]), 51)
    alone = score < 1e30  # NaN and an overflow take their user's whole slate
    assert scores.tolist() == [[2 if alone else -np.inf, -np.inf], [1, 0]]
    assert rows.tolist() == [[5 if alone else 0, 0], [6, 7]]


def test_what_is_some_is_left_as_it_is() -> None:
    scores, rows = np.array([[3e29, 0, -3e29]], np.float32), np.array([[50, 0, 1]])
    assert settle(scores, rows, 51) == (scores, rows)


def test_a_bundle_of_fewer_items_than_a_slate(tmp_path: Path) -> None:
    """Its golden vectors hold fewer than ten; they are replayed as CUDA answers, too."""
    small = load(publish(build(tiny_run(1, near=1), text=text_onnx()), tmp_path))
    models = open_models(small, "cpu")
    for change in GRAPHS.values():
        models._score = runtime.session("score.onnx", change(small.read("score.onnx")), "cpu")
        models.check_golden()


def test_one_call_on_a_gpu_stays_within_its_memory() -> None:
    assert users_at_once("cpu", 1_000_000) == SCORED
    assert users_at_once("cuda", 10_000) * 10_000 <= CELLS
    assert users_at_once("cuda", 10_000_000) == SCORED


BARE = """
import sys
sys.modules.update(dict.fromkeys(("torch", "onnx", "pytest", "hypothesis", "kafka", "aiokafka", "faust", "transformers")))
from tests.gpu import __main__, cases
@cases.case("one that fails")
def fails(subject):
    assert subject.found.last == -1, "as it should"
sys.exit(__main__.main())
"""


@pytest.mark.parametrize(
    ("words", "code", "last_line"),
    [
        (["nobody"], 0, "1 passed, 0 failed on cpu"),
        (["nobody", "fails"], 1, "one that fails: as it should\n1 passed, 1 failed on cpu"),
        (["no such case"], 1, "0 passed, 0 failed on cpu"),
    ],
)
def test_the_script_needs_only_what_serves(bundle: Bundle, words: list[str], code: int, last_line: str) -> None:
    command = [sys.executable, "-c", BARE, "--provider", "cpu", "--bundle", str(bundle.folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.endswith(last_line + "\n")
    assert done.stdout.startswith("provider cpu, the processor, ONNX Runtime ")


def test_where_cuda_is_not_usable_it_says_so(bundle: Bundle) -> None:
    if runtime.resolve("auto") == "cuda":
        pytest.skip("CUDA works here")
    command = [sys.executable, "-m", "tests.gpu", "--bundle", str(bundle.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith("provider cuda: ")
    assert done.stderr.endswith("; --provider cpu runs the cases on the CPU\n")
