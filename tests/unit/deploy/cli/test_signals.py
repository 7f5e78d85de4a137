"""Ctrl-C while a command imports what it needs, and Ctrl-C once more while it ends: one line and 130, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DURING_IMPORTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it from the start
sys.argv = ["freshet", "topics", "check"]

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
            while True: pass

sys.meta_path.insert(0, Slow())
import deploy.cli.main
"""
AT_THE_END = """
import atexit, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["freshet", "topics", "check"]
import deploy.cli.main, deploy.clients.admin

def stop(*_, **__):
    raise KeyboardInterrupt

def again():
    os.kill(os.getpid(), signal.SIGINT)
    while True: pass

atexit.register(again)
deploy.clients.admin.check = stop
deploy.cli.main.main()
"""
WHILE_A_CLASS_IS_MADE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["freshet", "topics", "check"]
import deploy.cli.main, deploy.clients.admin

class Sends:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)
        while True: pass

def check(*_, **__):
    type("Made", (), {"sends": Sends()})

deploy.clients.admin.check = check
deploy.cli.main.main()
"""


@pytest.mark.parametrize("code", [DURING_IMPORTS, AT_THE_END, WHILE_A_CLASS_IS_MADE], ids=["imports", "end", "class"])
def test_ctrl_c_is_one_line_and_130(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr == "freshet: interrupted\n"
    assert done.stdout == ""


SENDING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it from the start

class Sends:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["AT"]:
            os.kill(os.getpid(), signal.SIGINT)
            while True: pass

sys.meta_path.insert(0, Sends())
"""
SCRIPT = "from deploy.cli.main import main\nif __name__ == '__main__':\n    main()\n"
"""What pip makes of [project.scripts]."""


@pytest.mark.parametrize("at", ["deploy.cli.main", "typer", "deploy.clients.printable", "stream.settings.settings"])
@pytest.mark.parametrize("program", ["-m", "-mdeploy.cli", "script"])
def test_ctrl_c_during_any_import_of_the_command_is_one_line_and_130(tmp_path: Path, program: str, at: str) -> None:
    """From the first import after the package's own; before that, Python itself starts."""
    (tmp_path / "sitecustomize.py").write_text(SENDING)
    (tmp_path / "freshet").write_text(SCRIPT)
    started = {"-m": ["-m", "deploy.cli"], "-mdeploy.cli": ["-mdeploy.cli"], "script": [str(tmp_path / "freshet")]}
    done = subprocess.run(
        [sys.executable, *started[program], "topics", "check"],
        cwd=tmp_path, env=os.environ | {"AT": at, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert done.stderr == "freshet: interrupted\n"
    assert done.stdout == ""


def test_whoever_else_imports_the_commands_keeps_the_signals() -> None:
    from deploy.cli import signals

    before = signal.getsignal(signal.SIGINT)
    signals.ending()
    signals.release()
    assert signal.getsignal(signal.SIGINT) is before
