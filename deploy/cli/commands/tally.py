"""`freshet tally`: run the tally process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.settings import Settings, load


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("tally")(tally)


def tally(
    context: typer.Context,
    once: Annotated[
        bool,
        typer.Option("--once", help="Read to the present end of the source topics, publish one epoch, and end."),
    ] = False,
    recount: Annotated[
        bool,
        typer.Option(
            "--recount",
            help="Count everything again if the bundle has other half-lives, reach or decay than the sums in the folder.",
        ),
    ] = False,
    bundles: Annotated[Path | None, typer.Option(help="Folder that contains CURRENT and the bundles.")] = None,
    tally_dir: Annotated[
        Path | None, typer.Option(help="Folder for the RocksDB of the tally. It must be kept.")
    ] = None,
    web_port: Annotated[
        int | None, typer.Option(help="Port of /metrics, /healthz and /readyz; 0: any free port.")
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Continue if source records were deleted before they were counted.")
    ] = False,
) -> None:
    """Count items and pairs of the stream until SIGTERM, and publish them as epochs of the topic `tables`.

    Exit codes: 0 stopped as requested, 1 hung inside a library, 65 bad bundle, 69 no broker, 74 disk full, 75 another tally
    has started, 76 records lost, 78 wrong settings or topics, 70 anything else.
    """
    from stream.process import fatal
    from stream.process.stopping import stopping

    stopping.listen()  # before anything else: from here on the tally notices a stop signal
    fatal.prepare("tally")
    from deploy.clients.admin import check
    from deploy.clients.topic_monitor import TopicWatch
    from stream.tally import process

    settings: Settings = context.obj
    given = {"bundles": bundles, "tally_dir": tally_dir, "web_port": web_port, "accept_loss": accept_loss or None}
    changed = {name: value for name, value in given.items() if value is not None}
    if changed:
        settings = load(**{name: getattr(settings, name) for name in settings.model_fields_set} | changed)
    topology = check(settings, tally=True)
    settings = settings.model_copy(update={"partitions": topology.partitions})
    TopicWatch(settings, topology.ids).start()
    process.run(settings, topology.ids, topology.cluster, once=once, recount=recount)
