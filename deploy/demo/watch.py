"""After the replay, on a terminal: everything goes on running, and any new slate is shown, until somebody leaves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from deploy.demo.progress import Board
from deploy.demo.replay import Replay
from stream.settings import Settings

WAIT = 0.2  # seconds between two looks at the keyboard
LEAVE = ("q", "Q", "\x03", "\x04")


def stay(
    board: Board, settings: Settings, replay: Replay, alive: Callable[[], None], pressed: Callable[[], str]
) -> None:
    """Returns at q or Ctrl-C. Raises FreshetError where the worker ends."""
    user = board.spot.user if board.spot else "1"
    board.hint = (
        "All goes on running, q leaves. Send from another terminal, see the slate here:\n"
        f"{_command()} --brokers {settings.brokers} send rating --user {user} --item {replay.example} --value 5"
    )
    try:
        while pressed() not in LEAVE:
            alive()
            replay.follow(WAIT)
    except KeyboardInterrupt:
        return


def _command() -> str:
    """`freshet` as it can be typed here."""
    beside = Path(sys.executable).parent / "freshet"
    if not beside.is_file():
        return "freshet"
    return str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside)
