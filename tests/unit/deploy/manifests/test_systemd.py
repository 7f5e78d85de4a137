"""The systemd units agree with the processes' own limits and exit codes, and systemd takes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "systemd"
NO_RESTART = {"worker": {"65", "76", "78"}, "gateway": {"65", "78"}, "tally": {"65", "76", "78"}}
"""Codes that a restart does not cure: the bundle or a state, lost records, a setting. Somebody has to do something first.
A gateway whose copy has lost records reads it back at its next start."""
COMMANDS = {"worker": "worker", "gateway": "serve", "tally": "tally"}
PROCESSES = pytest.mark.parametrize("process", NO_RESTART)


def unit(process: str) -> str:
    return (FOLDER / f"freshet-{process}@.service").read_text()


def options(process: str) -> dict[str, str]:
    """Name -> value of the unit; of a name that is repeated the last value."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit(process), re.MULTILINE))


@PROCESSES
def test_it_waits_longer_for_a_stop_than_the_process_takes_and_restarts_by_the_exit_codes(process: str) -> None:
    found = options(process)
    assert int(found["TimeoutStopSec"]) > 30  # within which it is gone after SIGTERM
    assert found["ExecStart"].split()[1:] == [COMMANDS[process]]
    assert found["KillSignal"] == "SIGTERM"
    assert found["Restart"] == "on-failure"  # 0 is a stop that was asked for
    assert set(found["RestartPreventExitStatus"].split()) == NO_RESTART[process]
    assert found["StartLimitIntervalSec"] == "0"  # a broker may be away for long
    codes = set(re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    assert codes >= NO_RESTART[process]
    assert "WatchdogSec" not in found  # it sends no keep-alive, and ends by itself where it does not get on


def test_all_units_are_hardened_alike() -> None:
    own = {"Description", "ExecStart", "EnvironmentFile", "Environment", "RestartPreventExitStatus"}
    worker, *others = (
        {name: value for name, value in options(process).items() if name not in own} for process in COMMANDS
    )
    assert others == [worker] * (len(COMMANDS) - 1)


@PROCESSES
def test_its_settings_exist(process: str) -> None:
    text = unit(process) + (FOLDER / "freshet.env.example").read_text()
    named = {name.lower() for name in re.findall(r"\bFRESHET_([A-Z_]+)=", text)}
    assert named
    assert named <= {*Settings.model_fields, "secrets"}
    assert "PASSWORD" not in text


@PROCESSES
def test_systemd_takes_it(tmp_path: Path, process: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("systemd-analyze is not there")
    file = tmp_path / f"freshet-{process}@1.service"
    file.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit(process), flags=re.MULTILINE))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "freshet" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
