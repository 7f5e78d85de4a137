"""How `freshet verify` reads times and offsets on its command line."""

from __future__ import annotations

import pytest
import typer

from deploy.cli.commands import verify as command
from deploy.verify import Report
from deploy.verify.report import Violation


@pytest.mark.parametrize(
    ("given", "epoch_ms"),
    [
        ("1700000000000", 1_700_000_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ("2023-11-14", 1_699_920_000_000),
    ],
)
def test_times_of_the_command(given: str, epoch_ms: int) -> None:
    assert command.time_of(given) == epoch_ms


@pytest.mark.parametrize(
    "given", ["clicks", "clicks/0", "clicks/٣/1", "clicks/0/٣", "clicks/x/1", "clicks/0/-1", "/0/1", "clicks/0/1/2"]
)
def test_an_offset_that_names_nothing(given: str) -> None:
    with pytest.raises(typer.BadParameter):
        command.start_of(given)


def test_an_offset_of_the_command() -> None:
    assert command.start_of("p-clicks/3/12") == (("p-clicks", 3), 12)
    with pytest.raises(typer.BadParameter):
        command.time_of("yesterday")
    with pytest.raises(typer.BadParameter):
        command.time_of("١٧٠٠٠٠٠٠٠٠٠٠٠")  # digits, but not of ASCII


def test_hints_are_the_last_lines(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(input=5)
    report.add(Violation("slate", "its placement is 'cart', expected none"))
    for _ in range(2):
        report.hint("give `--published-before`")
    command._show(report)
    assert capsys.readouterr().out.splitlines()[-1] == "  give `--published-before`"


@pytest.mark.parametrize(("count", "line"), [(0, ""), (1, "1 record is not applied"), (2, "2 records are not applied")])
def test_dead_letters_are_followed_by_the_command_that_lists_them(
    capsys: pytest.CaptureFixture[str], count: int, line: str
) -> None:
    command._show(Report(input=5, dead_letters=count))
    printed = capsys.readouterr().out
    assert ("`freshet deadletters list`" in printed) == (count > 0)
    assert line in printed
