"""Imported before anything that starts threads: a worker's signals wait until it listens for them (stream.process.stopping).

A library's threads (numpy's, for one) inherit the mask of the thread that starts them. One without it may be given a signal, and
Python then tells the main thread alone, which may stand in a write to a log that nobody reads: the stop would never be heard.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

PROGRAMS: Final = ("freshet", "cli")
"""As the command and as python -m deploy.cli; whoever else imports it keeps its signals."""

_program = Path(sys.argv[0])
OURS: Final = (_program.parent.name if _program.stem == "__main__" else _program.stem) in PROGRAMS
HEARD: Final = OURS and signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""Not where a shell has it ignored, for a command in the background."""
SAID: Final = "freshet: interrupted"


def _imports(number: int, frame: object) -> NoReturn:
    """Ctrl-C before anything is begun: an exception among imports would be a traceback, or be caught by one of them."""
    os.write(2, f"{SAID}\n".encode())
    os._exit(130)


def _end(number: int, frame: object) -> NoReturn:
    os._exit(130)


if OURS and "worker" in sys.argv[1:]:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
elif HEARD:
    signal.signal(signal.SIGINT, _imports)


def release() -> None:
    """It is another command than the worker, and begins: signals come as ever."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if HEARD:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ending() -> None:
    """The command was interrupted and all is said: once more Ctrl-C ends it at once, whatever a library still does at exit."""
    if HEARD:
        signal.signal(signal.SIGINT, _end)
