"""Imported before anything that starts threads: a worker's signals wait until it listens for them (stream.stopping).

A library's threads (numpy's, for one) inherit the mask of the thread that starts them. One without it may be given a signal, and
Python then tells the main thread alone, which may stand in a write to a log that nobody reads: the stop would never be heard.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

PROGRAMS: Final = ("freshet", "cli")
"""As the command and as python -m deploy.cli; whoever else imports it keeps its signals."""

if Path(sys.argv[0]).stem in PROGRAMS and "worker" in sys.argv[1:]:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release() -> None:
    """It is another command: signals come as ever."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
