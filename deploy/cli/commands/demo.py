"""`freshet demo`: run everything together on real data."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli import bounds
from deploy.cli.output_paths import require_file
from deploy.clients.printable import printable
from stream.settings import Settings

Data = Annotated[
    str | None,
    typer.Option(envvar="DATA", help="Data folder, or `generated`. Default: ml-latest-small, downloaded if necessary."),
]
Home = Annotated[Path, typer.Option(help="Folder for the broker, the run, the state and the logs.")]
Rate = Annotated[
    float,
    typer.Option(
        min=0,
        max=bounds.RATE,
        callback=bounds.number,
        help="Maximum number of replayed events per second; 0: as fast as slates arrive.",
    ),
]
Users = Annotated[int, typer.Option(min=1, max=10_000, help="Number of concurrent users in the replay.")]
MaxMinutes = Annotated[
    float, typer.Option(min=0.1, max=bounds.MINUTES, callback=bounds.number, help="Maximum training time.")
]
Svg = Annotated[Path | None, typer.Option(help="Write the last view to this file.")]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("demo")(demo)


def demo(
    context: typer.Context,
    data: Data = None,
    home: Home = Path(".freshet/demo"),
    rate: Rate = 250.0,
    users: Users = 32,
    max_minutes: MaxMinutes = 3.0,
    svg: Svg = None,
) -> None:
    """Train on real data, start Kafka and a worker, replay what training has not seen, and watch slates follow events.

    It prints the address of a page on which you can click, rate and comment yourself, and see the slate move.
    On a terminal it runs until q or Ctrl-C. Otherwise it ends after the check, with one line `demo: {json}`.
    Needs the extras broker and export, and serve for the page. Exit codes: 0 nothing is lost, double or
    uncovered; 1 something is; otherwise the code of the step that failed.
    """
    from contextlib import nullcontext

    from rich.live import Live

    from deploy.demo.keyboard import keys
    from deploy.demo.progress import Board
    from deploy.demo.run import Options, run
    from deploy.demo.source import find
    from deploy.demo.terminal import View, picture
    from deploy.demo.watch import stay
    from models.training.train import TrainSettings

    if svg is not None:
        require_file("--svg", svg)
    for number in (signal.SIGTERM, signal.SIGHUP):  # the terminal may be closed while it runs
        signal.signal(number, _terminated)
    settings: Settings = context.obj
    live = sys.stdout.isatty()
    board = Board() if live else Board(print_line=_print)
    options = Options(home, rate, users)
    training = TrainSettings(max_minutes=max_minutes)
    with Live(View(board), refresh_per_second=6) if live else nullcontext(), keys() as pressed:
        board.begin("data")
        found = find(data or None, home / "data", board.line)
        board.done(f"{found.name}, {len(found.events):,} events")
        watch = (
            (lambda settings, replay, alive, page: stay(board, settings, replay, alive, page, pressed))
            if live
            else None
        )
        result, code = run(found, settings, training, options, board, watch)
        board.hint = ""
    if svg is not None:
        picture(board, svg)
    if not live:
        print("demo: " + json.dumps(result.as_dict()), flush=True)
    if code:
        raise typer.Exit(code)


def _print(line: str) -> None:
    print(printable(line), flush=True)


def _terminated(number: int, frame: object) -> None:
    """Stop everything that was started, as Ctrl-C does."""
    sys.exit(128 + number)
