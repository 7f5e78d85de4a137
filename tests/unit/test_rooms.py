"""The room rules of pyproject.toml hold, and a wrong import breaks them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("stream", "models", "export", "deploy")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([command, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_rooms_are_kept() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rooms")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("stream/recommend.py", "import torch", "stream serves alone"),
        ("stream/settings.py", "from deploy import topics", "stream serves alone"),
        ("stream/interest.py", "import rocksdict", "the pure core knows neither"),
        ("models/network.py", "from stream import pipeline", "models sees events"),
        ("export/graphs.py", "import deploy.topics", "export knows models"),
        ("deploy/verify/judge.py", "from stream.recommend import advance", "verify shares only"),
    ],
)
def test_a_wrong_import_is_found(copy: Path, module: str, line: str, broken: str) -> None:
    file = copy / module
    right = file.read_text()
    try:
        file.write_text(f"{right}\n{line}\n")
        done = lint_imports(copy)
    finally:
        file.write_text(right)
    assert done.returncode != 0
    assert [row for row in done.stdout.splitlines() if row.startswith(broken) and " BROKEN" in row]
