"""Ctrl-C while a command imports what it needs, and Ctrl-C once more while it ends: one line and 130, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

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


@pytest.mark.parametrize("code", [DURING_IMPORTS, AT_THE_END], ids=["imports", "end"])
def test_ctrl_c_is_one_line_and_130(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr == "freshet: interrupted\n"
    assert done.stdout == ""


def test_whoever_else_imports_the_commands_keeps_the_signals() -> None:
    from deploy.cli import signals

    before = signal.getsignal(signal.SIGINT)
    signals.ending()
    signals.release()
    assert signal.getsignal(signal.SIGINT) is before
