"""After the replay, on a terminal: everything goes on running, and any new slate is shown, until somebody leaves."""

from __future__ import annotations

from collections.abc import Callable

from deploy.demo.board import Board
from deploy.demo.replay import Replay
from stream.settings import Settings

WAIT = 0.2  # seconds between two looks at the keyboard
LEAVE = ("q", "Q", "\x03", "\x04")


def stay(
    board: Board, settings: Settings, replay: Replay, alive: Callable[[], None], pressed: Callable[[], str]
) -> None:
    """Returns at q or Ctrl-C. Raises FreshetError where the worker ends."""
    given = f"--brokers {settings.brokers} --set app_id={settings.app_id}"
    board.hint = (
        f"It goes on running; q leaves. In another terminal, send an event and see its slate here:\n"
        f"freshet {given} send rating --user {board.spot.user if board.spot else 1} --item {replay.example} --value 5"
    )
    try:
        while pressed() not in LEAVE:
            alive()
            replay.follow(WAIT)
    except KeyboardInterrupt:
        return
