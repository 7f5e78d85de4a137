"""Fixtures of the commands' tests."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import deploy.cli.main
from stream.observability import logs


@pytest.fixture(autouse=True)
def _own_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The log that a serving command sets up for its process ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for owner, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for name in logs.QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def freshet(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process -> exit code, standard output, standard error."""
    for name in os.environ:
        if name.startswith("FRESHET_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setenv("FRESHET_CONFIG", "set by --config, for later loads")  # so that it is taken back after the test
    monkeypatch.delenv("FRESHET_CONFIG")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["freshet", *words])
        code = 0
        try:
            deploy.cli.main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run
