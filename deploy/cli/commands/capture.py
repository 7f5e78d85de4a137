"""`freshet capture`: keep what the source topics hold in files, to train on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli import bounds
from deploy.clients.printable import printable
from stream.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("capture")(capture)


def capture(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder to capture into. It is made if it is not there.")],
    every: Annotated[
        float,
        typer.Option(
            min=0,
            max=bounds.SECONDS,
            callback=bounds.number,
            help="Seconds between two runs, until it is stopped; 0: run once.",
        ),
    ] = 0.0,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on although Kafka has deleted records that were not captured.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per look.")] = False,
) -> None:
    """Write clicks, ratings, comments and items to Parquet files by day, each record exactly once, up to the topics' ends.

    Run it again to add what has come since; a capture that was killed goes on where it was. `freshet train FOLDER` reads
    the folder. A user who is forgotten (`freshet forget`) is erased from it by the next run. Needs the extra `train`
    (polars).

    Exit codes: 65 the folder holds something else, 69 no broker, 74 the folder cannot be written, 76 records were deleted
    before they were captured, 78 topic missing.
    """
    from deploy.clients.log_reader import KafkaLog
    from deploy.learning.capture import Capture, report

    settings: Settings = context.obj
    log = KafkaLog(settings)
    try:
        job = Capture(settings, folder, log, accept_loss=accept_loss)
        while True:
            done = job.run()
            if as_json:
                print(report(done), flush=True)
            elif done.ranges or done.forgotten or not every:
                records = (
                    ", ".join(f"{count:,} {kind}" for kind, count in done.records.items() if count) or "nothing new"
                )
                more = f"; {done.refused.total():,} records that a worker would not accept" if done.refused else ""
                more += f"; {done.missing:,} offsets were deleted before" if done.missing else ""
                more += f"; {done.forgotten:,} events of forgotten users erased" if done.forgotten else ""
                print(printable(f"captured into {folder}: {records}{more}"), flush=True)
            if not every:
                return
            time.sleep(every)
    finally:
        log.close()
