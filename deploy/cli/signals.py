"""Signals while the command starts. A worker's signals are blocked until it listens for them (stream.process.stopping).

deploy.cli imports this module before anything else, for two reasons. Ctrl-C may come during any later import. And the
threads of a library (numpy, for example) inherit the signal mask of the thread that starts them. A thread without the
mask may receive a signal. Python then handles it in the main thread only, which may be blocked in a write to a log that
has no reader. The worker would never notice the stop signal.

So this module imports only what Python has loaded already, or loads in a millisecond.
"""

from __future__ import annotations

import os
import signal
import sys

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _program() -> str:
    """Return the name of the program: of its file, or of the package that `python -m` runs.

    While Python imports the package, the file is not known yet: sys.argv[0] is "-m", and only sys.orig_argv has the name.
    """
    if sys.argv[0] == "-m":
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    name, _ = os.path.splitext(os.path.basename(sys.argv[0]))
    return os.path.basename(os.path.dirname(sys.argv[0])) if name == "__main__" else name


OURS = _program() in ("freshet", "deploy.cli", "cli")
"""True for the `freshet` command and `python -m deploy.cli`. Any other program that imports deploy.cli keeps its signals."""
HEARD = OURS and signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""False if the shell ignores SIGINT, as it does for a command in the background."""
SAID = "freshet: interrupted"


def _imports(number: int, frame: object) -> None:
    """Handle Ctrl-C during imports: an exception there would print a traceback, or an import would catch it."""
    os.write(2, f"{SAID}\n".encode())
    os._exit(130)


def _end(number: int, frame: object) -> None:
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
