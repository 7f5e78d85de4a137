"""Whatever is given to a command's options: it is said what is wrong, the exit code is a documented one, and no traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from deploy.cli import main as cli
from deploy.cli import signals
from deploy.clients import connect
from stream.core.errors import BrokerError

pytestmark = pytest.mark.long

STARTS = {"broker start", "broker stop", "demo", "serve", "tally", "worker"}
"""Commands that start or stop processes; the worker's own settings are tests/unit/stream/settings/test_settings.py's."""

ODD = {
    "not UTF-8": "\udcff\udcfe",
    "empty": "",
    "escape": "\x1b[31mred\x1b[0m",
    "no number": "nan",
    "a huge number": "9" * 400,
}
CODES = {0, 1, 2, 64, 65, 66, 69, 74, 76, 78}
"""Documented ones; 70 is a fault of ours."""


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        elif " ".join((*before, name)) not in STARTS:
            yield (*before, name), command


def cases() -> Iterator[tuple[str, ...]]:
    """Each command with each option alone, so that others' absence is seen as well."""
    for words, command in commands(typer.main.get_command(cli.app)):
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                yield words
            elif not parameter.is_flag:
                yield (*words, parameter.opts[0])


def no_broker(*_: object) -> None:
    raise BrokerError("no Kafka broker answers")


@pytest.mark.parametrize("words", sorted(set(cases())), ids=" ".join)
def test_no_value_of_an_option_ends_in_a_traceback(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signals, "release", lambda: None)  # the signals of this process are pytest's
    monkeypatch.setattr(connect, "_connected", no_broker)  # what is acceptable finds none, at once
    for name, value in ODD.items():
        monkeypatch.setattr(
            sys, "argv", ["freshet", "--brokers", "127.0.0.1:1", "--set", "startup_timeout=0", *words, value]
        )
        try:
            cli.main()
            code: int | str | None = 0
        except SystemExit as ended:
            code = ended.code
        output = "".join(capsys.readouterr())
        assert code in CODES, f"{name}: {code}\n{output[-2000:]}"
        assert "Traceback" not in output, name
        assert not any(ord(char) < 32 and char not in "\n" for char in output), f"{name}: {output!r}"
