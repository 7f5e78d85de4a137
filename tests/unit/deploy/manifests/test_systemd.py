"""The systemd unit agrees with the worker's own limits and exit codes, and systemd takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "freshet-worker@.service"
NO_RESTART = {"65", "76", "78"}
"""Codes that a restart does not cure: the bundle or a state, lost records, a setting. Somebody has to do something first."""


def options() -> dict[str, str]:
    """Name -> value of the unit; of a name that is repeated the last value."""
    return dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))


def test_it_waits_longer_for_a_stop_than_a_worker_takes_and_restarts_by_the_exit_codes() -> None:
    found = options()
    assert int(found["TimeoutStopSec"]) > 30  # within which a worker is gone after SIGTERM
    assert found["KillSignal"] == "SIGTERM"
    assert found["Restart"] == "on-failure"  # 0 is a stop that was asked for
    assert set(found["RestartPreventExitStatus"].split()) == NO_RESTART
    assert found["StartLimitIntervalSec"] == "0"  # a broker may be away for long
    codes = set(re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    assert codes >= NO_RESTART
    assert "WatchdogSec" not in found  # a worker sends no keep-alive, and ends by itself where it does not get on


def test_its_settings_exist() -> None:
    text = UNIT.read_text() + (FOLDER / "freshet.env.example").read_text()
    named = {name.lower() for name in re.findall(r"\bFRESHET_([A-Z_]+)=", text)}
    assert named
    assert named <= {*Settings.model_fields, "secrets"}
    assert "PASSWORD" not in text


def test_systemd_takes_it(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("systemd-analyze is not there")
    unit = tmp_path / "freshet-worker@1.service"
    unit.write_text(
        re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", UNIT.read_text(), flags=re.MULTILINE)
    )
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "freshet" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
