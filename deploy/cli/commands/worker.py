"""`freshet worker`: run one worker process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.settings import Settings, load


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("worker")(worker)


def worker(
    context: typer.Context,
    bundles: Annotated[Path | None, typer.Option(help="Folder that contains CURRENT and the bundles.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for the RocksDB of this worker. Each worker needs a separate one.")
    ] = None,
    web_port: Annotated[
        int | None, typer.Option(help="Port of /metrics, /healthz and /readyz; 0: any free port.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Provider that runs the models: cuda, auto or cpu.")] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Continue if source records were deleted before they were read.")
    ] = False,
) -> None:
    """Run one worker until SIGTERM. It reads events, keeps interest states and writes slates.

    Exit codes: 0 stopped as requested, 1 hung inside a library, 65 bad bundle, 69 no broker or provider, 74 disk full,
    75 lease expired, 76 records lost, 78 wrong settings or topics, 70 anything else.
    """
    from stream.process import fatal
    from stream.process.stopping import stopping

    stopping.listen()  # before anything else: from here on the worker notices a stop signal
    fatal.prepare()
    from deploy.clients.admin import check
    from deploy.clients.topic_monitor import TopicWatch
    from stream.catalogue.bundles import candidates
    from stream.worker import run

    settings: Settings = context.obj
    given = {
        "bundles": bundles,
        "data_dir": data_dir,
        "web_port": web_port,
        "provider": provider,
        "accept_loss": accept_loss or None,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if changed:
        settings = load(**{name: getattr(settings, name) for name in settings.model_fields_set} | changed)
    topology = check(settings, worker=True)
    settings = settings.model_copy(update={"partitions": topology.partitions})
    TopicWatch(settings, topology.ids).start()
    run(settings, topology.ids, topology.cluster, topology.room, candidates(settings))
