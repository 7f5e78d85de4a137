"""`make docs` builds a site without faults, every page is in its navigation, and a browser fetches nothing elsewhere."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scripts.schemas import schemas
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` builds, in another folder. Symbolic links stay such: the site has what Zensical makes of them."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs", symlinks=True)
    alone = {name: value for name, value in os.environ.items() if "MAKE" not in name}  # not as a part of `make test`
    dry = subprocess.run(
        ["make", "--dry-run", "docs"], cwd=ROOT, env=alone, capture_output=True, text=True, check=True
    ).stdout
    assert dry.splitlines()[-1] == ".venv/bin/python -m scripts.site"
    done = subprocess.run(
        [sys.executable, "-m", "scripts.site", folder],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checked every link, anchor and fetched file" in done.stdout
    return folder / ".site"


def test_the_site_has_the_pages_and_the_schemas(site: Path) -> None:
    assert (site / "tutorial.html").is_file()
    assert {path.name: path.read_text("utf-8") for path in (site / "schemas").iterdir()} == schemas()


def test_a_dead_link_ends_make_docs(tmp_path: Path) -> None:
    """Zensical finds nothing wrong with it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[schema](schemas/click.json)\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\nsite_dir: .site\ntheme: {font: false}\nplugins: []\n")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.site", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "index.html: schemas/click.json: there is no such file\n" in done.stderr


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


class Silent(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *arguments: object) -> None: ...  # noqa: A002


@pytest.fixture
def server(site: Path) -> Iterator[str]:
    """The site over HTTP."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(site))) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def requested(log: Path) -> set[str]:
    """The addresses that pages asked for, by Chromium's network log. The browser's own requests have no origin."""
    found = set()
    for line in log.read_text("utf-8", "replace").splitlines():
        if '"initiator"' in line:
            parameters = json.loads(line.rstrip(","))["params"]
            if parameters["initiator"] != "not an origin":
                found.add(str(parameters["url"]))
    return found


@pytest.mark.parametrize("place", ["http", "file"])
def test_a_browser_fetches_nothing_from_another_host_and_can_search(
    site: Path, server: str, tmp_path: Path, place: str
) -> None:
    if (chromium := shutil.which("chromium") or shutil.which("chromium-browser")) is None:
        pytest.skip("there is no chromium")
    log = tmp_path / "network.json"
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={log}", "--virtual-time-budget=5000", "--dump-dom",
            f"{server if place == 'http' else site.as_uri()}/tutorial.html?q=state",
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {address for address in requested(log) if urlsplit(address).hostname != "127.0.0.1"} == set()
    if place == "http":
        assert f"{server}/search.json" in requested(log)
    else:
        assert '<iframe hidden="">' in done.stdout  # stands in for the search's Worker, which file:// does not allow
