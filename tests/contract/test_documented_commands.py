"""Every `freshet ...` line in README, docs and templates is a command that exists, with options that it has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from deploy.cli.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(path for path in (ROOT / ".github").rglob("*") if path.is_file()),
]


def lines() -> set[str]:
    """Indented lines and code spans that start with the command's name, comments and placeholders' spacing removed."""
    found: set[str] = set()
    for document in DOCUMENTS:
        text = document.read_text()
        found |= {line.split("   ")[0] for line in re.findall(r"^    (freshet [^\n#]+)", text, re.MULTILINE)}
        found |= {re.sub(r"\s+", " ", span) for span in re.findall(r"`(freshet [^`]+)`", text)}
    return {line.strip() for line in found}


@pytest.mark.parametrize("line", sorted(lines()))
def test_command_exists(line: str) -> None:
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(app)
    used: list[str] = []
    while hasattr(command, "commands") and not all(word.startswith("--") for word in words):
        name = words.pop(0)
        if name not in command.commands:
            pytest.fail(f"{' '.join(['freshet', *used])} has no command {name}")
        used.append(name)
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= options


def test_commands_are_found_at_all() -> None:
    assert len(lines()) > 10
