"""The documentation builds as a site, every page is in its navigation, and every link and anchor leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_site_builds(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    done = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / ".site" / "tutorial.html").is_file()
    assert (tmp_path / ".site" / "schemas" / "click.json").is_file()


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    there = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert named == there


def test_no_link_leaves_the_site() -> None:
    """A relative link out of docs/ works in the repository and is dead on the site."""
    links = {
        f"{page.name}: {link}"
        for page in (ROOT / "docs").rglob("*.md")
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        if ("://" not in link and not (page.parent / link).resolve().is_file())
        or (link.startswith("../") and not (page.parent / link).resolve().is_relative_to((ROOT / "docs").resolve()))
    }
    assert links == set()
