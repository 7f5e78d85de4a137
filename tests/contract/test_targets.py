"""Every test belongs to one target of the Makefile, and `.ci/run` runs the targets that a change must pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARKERS = ("slow", "chaos", "faults", "long")


def expressions() -> dict[str, str]:
    """Target -> the markers that it asks pytest for."""
    text = (ROOT / "Makefile").read_text()
    rules = re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    found = {target: re.search(r'pytest -m "?([^"\n]+?)"? (?:--|\$)', body) for target, body in rules}
    return {target: match[1] for target, match in found.items() if match}


@pytest.mark.parametrize(
    ("marked", "target"),
    [((), "test"), (("faults",), "test-faults"), (("long",), "test-faults"), (("chaos",), "chaos"), (("slow",), "")],
)
def test_a_test_is_run_by_one_target(marked: tuple[str, ...], target: str) -> None:
    """A `slow` one by hand."""
    names = {marker: marker in marked for marker in MARKERS}
    found = [name for name, words in expressions().items() if eval(words, {}, dict(names))]  # noqa: S307
    assert found == ([target] if target else [])


def test_faults_are_not_among_the_tests_of_every_change() -> None:
    """By pytest's own choice of the modules that break something."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", expressions()["test"], "tests/integration"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200).stdout
    assert "test_worker.py::" in listed
    assert not re.findall(r"test_(?:faults_\w+|mutants|alerts|rivals|loss)\.py::", listed)


# What stands in for make: the targets' names as they are called, and a closing line of pytest for the two with tests.
MAKE = """#!/usr/bin/env bash
echo "$1" >> "$CALLED"
case "$1" in
    test) echo "==== 1,5 odd ===="; echo "===== 12 passed, 3 skipped, 9 deselected in 100.50s (0:01:40) =====" ;;
    test-faults) echo "===== $FAULTS in 50.25s =====" ;;
esac
[ "$1" != "$FAILS" ]
"""


@pytest.mark.parametrize(
    ("fails", "faults", "last"),
    [
        ("", "7 passed, 1 skipped, 15 deselected", "==== 19 passed, 4 skipped in 150.75s ===="),
        ("test-faults", "2 failed, 5 passed, 1 error", "==== 17 passed, 2 failed, 1 error, 3 skipped in 150.75s ===="),
        ("lint", "7 passed", "==== 19 passed, 3 skipped in 150.75s ===="),
        ("test", "7 passed", "==== 19 passed, 3 skipped in 150.75s ===="),
    ],
)
def test_ci_runs_all_targets_and_ends_with_their_sum(fails: str, faults: str, last: str, tmp_path: Path) -> None:
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
    called = tmp_path / "called"
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLED": str(called), "FAILS": fails, "FAULTS": faults,
    }  # fmt: skip
    done = subprocess.run([ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=60)
    assert called.read_text().split() == ["environment", "tools", "lint", "test", "test-faults"]
    assert done.returncode == bool(fails)
    lines = done.stdout.splitlines()
    assert lines[-1] == last
    closing = [line for line in lines if line.startswith("make test")]
    assert len(closing) == 2
    assert "12 passed" in closing[0]
    assert faults in closing[1]
