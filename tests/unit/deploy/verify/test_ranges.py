"""`freshet verify` of a range that holds nothing to judge never says that the promise holds."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli.commands.verify import verdict
from deploy.cli.main import app
from deploy.verify import Report
from deploy.verify.check import check
from deploy.verify.scope import Scope
from stream.core.messages import CLICK
from tests.unit.synthetic import NOW, World, partition_of

POSITION = ("clicks", partition_of("ann"))
FUTURE = 32_472_144_000_000  # 2999-01-01


def world(events: int = 3) -> World:
    made = World()
    for _ in range(events):
        made.send(CLICK, "ann")
    made.work()
    return made


def found(scope: Scope, events: int = 3) -> Report:
    made = world(events)
    return check(made.log, made.settings, scope=scope)


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        (Scope(since=FUTURE), "--since: found 2999-01-01, expected a time in the past"),
        (Scope(until=978_307_200_000), "the range that ends at 2001-01-01, but events came later"),
        (Scope(since=NOW - 10, until=NOW), "but events came later"),
        (Scope(starts={POSITION: 99_999_999}), "--from-offset: found 99999999, expected at most 3, where the log ends"),
    ],
)
def test_a_range_that_lies_outside_is_said_and_is_not_green(scope: Scope, message: str) -> None:
    report = found(scope)
    assert (report.input, report.exit_code, report.outside, report.quiet) == (0, 3, True, False)
    assert [note.kind for note in report.notes] == ["outside"]
    assert message in str(report.notes[0])
    assert verdict(report) == "nothing was checked"
    as_json = report.as_dict()
    assert (as_json["ok"], as_json["outside"]) == (False, True)
    assert as_json["notes"][0]["kind"] == "outside"


def test_one_start_beyond_its_end_is_said_beside_what_was_judged() -> None:
    report = found(Scope(starts={("ratings", 0): 1}))
    assert (report.input, report.exit_code, report.outside) == (3, 3, True)
    assert "expected at most 0" in str(report.notes[0])
    assert verdict(report) == "part of it cannot be checked"


@pytest.mark.parametrize(
    "scope", [Scope(since=NOW + 1), Scope(since=NOW + 1, until=NOW + 2), Scope(starts={POSITION: 3})]
)
def test_nothing_has_come_since(scope: Scope) -> None:
    report = found(scope)
    assert (report.input, report.exit_code, report.outside, report.quiet) == (0, 0, False, True)
    assert [note.kind for note in report.notes] == ["quiet"]
    assert verdict(report) == "nothing was checked: no event came in this range"


@pytest.mark.parametrize("scope", [Scope(), Scope(since=NOW - 1), Scope(until=NOW + 1), Scope(starts={POSITION: 1})])
def test_a_range_with_events_is_judged(scope: Scope) -> None:
    report = found(scope)
    assert report.input
    assert (report.exit_code, report.outside, report.quiet, report.notes) == (0, False, False, [])
    assert verdict(report) == "the promise holds"


def test_empty_topics_are_green_but_not_from_the_future() -> None:
    assert [found(scope, 0).exit_code for scope in (Scope(), Scope(until=NOW), Scope(since=NOW))] == [0, 0, 0]
    assert not found(Scope(), 0).quiet
    assert found(Scope(since=FUTURE), 0).exit_code == 3


@pytest.mark.parametrize(("since", "until"), [("2026-12-31", "2026-01-01"), ("2026-01-01", "2026-01-01")])
def test_since_after_until_is_wrong_usage(since: str, until: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("reached")

    monkeypatch.setattr("deploy.verify.run", run)
    ended = CliRunner().invoke(app, ["verify", "--since", since, "--until", until])
    assert ended.exit_code == 2
    assert "expected --since" in ended.stderr
