"""After the replay, on a terminal: everything keeps running, and new slates are shown, until the user leaves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from deploy.demo.progress import Board
from deploy.demo.replay import Replay
from stream.settings import Settings

WAIT = 0.2  # seconds between two checks of the keyboard
LEAVE = ("q", "Q", "\x03", "\x04")


def stay(
    board: Board, settings: Settings, replay: Replay, alive: Callable[[], None], page: str, pressed: Callable[[], str]
) -> None:
    """Show new slates until q or Ctrl-C. Raises FreshetError if a process ends. page: address of the demo page, or ""."""
    user = board.spot.user if board.spot else "1"
    board.hint = (
        f"Everything keeps running; press q to leave.{_see(page)} Send from another terminal and see the slate here:\n"
        f"{_command()} --brokers {settings.brokers} send rating --user {user} --item {replay.example} --value 5"
    )
    board.hint += (
        f"\nWhy is an item in the slate? {_command()} --brokers {settings.brokers} --set app_id={settings.app_id} "
        f"--set bundles={settings.bundles} explain {user} {replay.example}"
    )
    try:
        while pressed() not in LEAVE:
            alive()
            replay.follow(WAIT)
    except KeyboardInterrupt:
        return


def _see(page: str) -> str:
    return f" Click on {page} in a browser." if page else ""


def _command() -> str:
    """Return the `freshet` command as it can be typed here."""
    beside = Path(sys.executable).parent / "freshet"
    if not beside.is_file():
        return "freshet"
    return str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside)
