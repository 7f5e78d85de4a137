"""What the commands print of others' text (names of files and data, notes) never reaches a terminal raw."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from deploy.clients.printable import marked, printable
from tests.conftest import ROOT
from tests.unit.deploy.cli.commands.test_replay import Broker, broker, replay  # noqa: F401 - broker is a fixture
from tests.unit.synthetic import NOW

COMMANDS = sorted((ROOT / "deploy" / "cli" / "commands").glob("*.py"))
SAFE = {"printable", "marked", "counted", "escape", "shown", "len", "round"}
"""Calls whose result a terminal may show."""
OURS = {
    "broker.py": {"brokers", "some", "up[0].pid", "numbers"},
    "deadletters.py": {"'/'.join(map(str, tp))"},  # a topic of the settings and numbers
    "evaluate.py": {"name", "stage.removesuffix(': validation')", "text"},  # models by name
    "explain.py": {"before", "moved.after + 1"},  # places in the slate
    "export.py": {"parity.unit"},
    "read_ratings.py": {"stage", "text"},
    "recommendations.py": {"UNKNOWN", "_why(settings)"},
    "replay.py": {"were", "them"},
    "send.py": {"topic", "warning"},
    "topics.py": {"name", "partitions"},
    "train.py": {
        "figures['epochs']",
        "figures['seconds']",
        "figures['ended']",
        "name",
        "near['half_life']",
        "near['reach']",
        "counted_by['prior']",
    },
    "verify.py": {"verdict(report)", "kind"},
}
"""File -> what it prints that freshet itself has written: words of the program, numbers, names of topics."""


def raw(path: Path) -> set[str]:
    """Values that a command formats into what it prints, without a number's format and without a safe call."""
    found = set()
    for call in ast.walk(ast.parse(path.read_text())):
        name = call.func if isinstance(call, ast.Call) else None
        called = name.id if isinstance(name, ast.Name) else name.attr if isinstance(name, ast.Attribute) else ""
        if called not in ("print", "echo"):
            continue
        inside = {
            id(node)
            for one in ast.walk(call)
            if isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id in SAFE
            for node in ast.walk(one)
        }
        for node in ast.walk(call):
            if isinstance(node, ast.FormattedValue) and node.format_spec is None and id(node.value) not in inside:
                found.add(ast.unparse(node.value))
    return found


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_a_command_prints_the_text_of_others_through_printable(path: Path) -> None:
    assert raw(path) <= OURS.get(path.name, set())


def test_the_walk_sees_what_it_must(tmp_path: Path) -> None:
    source = "print(f'{a} {b:,} {printable(c)}'); console.print('x' + f'{d.e}'); typer.echo(printable(f'{f}'))"
    (tmp_path / "x.py").write_text(source)
    assert raw(tmp_path / "x.py") == {"a", "d.e"}


def test_replay_prints_the_name_of_a_file_without_its_escapes(broker: Broker, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "log\x1b[31m\x07.csv"
    path.write_text(f"u,i,t\nann,a,{NOW}\n")
    printed = replay(path, "--user", "u", "--item", "i", "--time", "t", "--no-items").output
    assert "\x1b" not in printed
    assert "log\\x1b[31m\\x07: 0 items and 1 event sent" in printed
    as_json = replay(path, "--user", "u", "--item", "i", "--time", "t", "--no-items", "--json").stdout
    assert json.loads(as_json)["source"] == "log\x1b[31m\x07"


def test_marks_of_rich_in_others_text_are_text() -> None:
    assert marked("[red]a\x1b") == "\\[red]a\\x1b"
    assert printable("[red]a") == "[red]a"
