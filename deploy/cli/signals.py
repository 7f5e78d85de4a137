"""Signals while the command starts. A worker's signals are blocked until it listens for them (stream.process.stopping).

Import this module before anything that starts threads. The threads of a library (numpy, for example) inherit the signal
mask of the thread that starts them. A thread without the mask may receive a signal. Python then handles it in the main
thread only, which may be blocked in a write to a log that has no reader. The worker would never notice the stop signal.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

PROGRAMS: Final = ("freshet", "cli")
"""The `freshet` command and `python -m deploy.cli`. Any other program that imports this module keeps its signals."""

_program = Path(sys.argv[0])
OURS: Final = (_program.parent.name if _program.stem == "__main__" else _program.stem) in PROGRAMS
HEARD: Final = OURS and signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""False if the shell ignores SIGINT, as it does for a command in the background."""
SAID: Final = "freshet: interrupted"


def _imports(number: int, frame: object) -> NoReturn:
    """Handle Ctrl-C during imports: an exception there would print a traceback, or an import would catch it."""
    os.write(2, f"{SAID}\n".encode())
    os._exit(130)


def _end(number: int, frame: object) -> NoReturn:
    os._exit(130)


if OURS and "worker" in sys.argv[1:]:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
elif HEARD:
    signal.signal(signal.SIGINT, _imports)


def release() -> None:
    """Restore normal signal handling when a command other than the worker begins."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if HEARD:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ending() -> None:
    """Let a second Ctrl-C end the process immediately, even if a library is still cleaning up at exit.

    Call it when the command was interrupted and has nothing left to report.
    """
    if HEARD:
        signal.signal(signal.SIGINT, _end)
