"""The written-out reference pages are current, and documents point at things that exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.reference import pages
from scripts.schemas import schemas
from stream.settings import Settings
from tests.chaos.report import FAULTS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", sorted(pages()))
def test_page_is_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == pages()[name], "run: python -m scripts.reference docs"


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_number_of_faults_is_that_of_the_chaos_suite() -> None:
    page = (ROOT / "docs" / "promises.md").read_text()
    assert re.findall(r"(\d+) kinds of fault", page) == [str(len(FAULTS))]


def test_what_contributing_tells_to_run_writes_what_is_there(tmp_path: Path) -> None:
    """In a copy whose generated files are gone."""
    for folder in ("scripts", "stream", "deploy", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    written = [*pages(), *(f"schemas/{name}" for name in schemas())]
    for name in written:
        (tmp_path / "docs" / name).unlink()
    commands = set(re.findall(r"`\.venv/bin/(python -m scripts\.[^`]+)`", (ROOT / "CONTRIBUTING.md").read_text()))
    assert commands
    for command in commands:
        done = subprocess.run(
            [sys.executable, *shlex.split(command)[1:]],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
    for name in written:
        assert (tmp_path / "docs" / name).read_text() == (ROOT / "docs" / name).read_text()


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file) if file else document
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text()), target
