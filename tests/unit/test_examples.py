"""The examples run as their docstrings say, freshet reads what they write, and documents show them as they are."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from models.data import read
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ENDINGS = {"python": "py", "java": "java", "go": "go", "javascript": "js", "rust": "rs"}


def snippets() -> list[tuple[str, str, str]]:
    """Every block of code of README and docs -> page, language, text."""
    return [
        (str(page.relative_to(ROOT)), language, block)
        for page in DOCUMENTS
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


def test_the_shop_of_the_tutorial_is_read(tmp_path: Path) -> None:
    subprocess.run([sys.executable, EXAMPLES / "make_shop.py", "shop"], cwd=tmp_path, check=True, timeout=60)
    data = read(tmp_path / "shop")
    assert (len(data.events), len(data.items)) == (300 * 24, 120)
    titles = {item.item: item.title for item in data.items}
    assert (titles["K-03"], titles["B-10"]) == ("Wooden spoon, red", "Saddle, green")
    assert {tuple(item.categories or ()) for item in data.items} == {
        ("garden",),
        ("kitchen",),
        ("office",),
        ("bicycle",),
    }


@pytest.mark.parametrize(("page", "language", "block"), snippets(), ids=lambda value: value.split("\n", 1)[0])
def test_a_snippet_is_a_file(page: str, language: str, block: str) -> None:
    files = {file.name: file.read_text() for file in EXAMPLES.glob(f"*.{ENDINGS[language]}")}
    assert block in files.values(), f"{page} shows code that is no file of examples/"


def test_each_example_is_shown_or_named() -> None:
    shown = {block for _, _, block in snippets()}
    text = "".join(page.read_text() for page in DOCUMENTS)
    for file in EXAMPLES.iterdir():
        if file.is_file():
            assert file.read_text() in shown or f"examples/{file.name}" in text, file.name


CLIENTS = {"api_client.py": sys.executable, "api_client.mjs": "node", "rules_and_placements.py": sys.executable}


@pytest.mark.parametrize("file", CLIENTS)
def test_a_client_of_the_api_ends_with_one_line_without_a_server(file: str) -> None:
    program = shutil.which(CLIENTS[file])
    if program is None:
        pytest.skip(f"{CLIENTS[file]} is not installed")

    def ended(*arguments: str) -> tuple[int, list[str]]:
        done = subprocess.run(
            [program, file, *arguments], cwd=EXAMPLES, env=dict(os.environ) | {"FRESHET_API": api},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr.splitlines()

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        api = f"http://127.0.0.1:{bound.getsockname()[1]}"  # nobody listens there
        code, (line,) = ended("ada", "318")
        assert code == 1
        assert line.startswith("no answer: ")
        assert f"run on {api}?" in line
        more = " [PLACEMENT]" if "placements" in file else ""
        assert ended("ada") == (2, [f"usage: {file} USER ITEM{more}"])
