"""`freshet serve`: run one gateway process, the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.core.errors import SettingsError
from stream.settings import Settings, load


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("serve")(serve)


def serve(
    context: typer.Context,
    bundles: Annotated[Path | None, typer.Option(help="Folder that contains CURRENT and the bundles.")] = None,
    replica_dir: Annotated[
        Path | None, typer.Option(help="Folder for the copy of the states. Each gateway needs a separate one.")
    ] = None,
    partitions: Annotated[
        str | None, typer.Option(help="Partitions whose users are served: 0,1,2. All by default.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Host or address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any free port.")] = None,
    provider: Annotated[str | None, typer.Option(help="Provider that runs the models: cuda, auto or cpu.")] = None,
) -> None:
    """Answer over HTTP from the users' live states until SIGTERM. Writes events, items, rules and control records, no states.

    The API describes itself at /docs and /openapi.json. docs/api.md explains what answers contain.

    Exit codes: 0 stopped as requested, 1 hung inside a library, 65 bad bundle, 69 no broker or provider, 74 disk full,
    76 records lost, 78 wrong settings or topics, 70 anything else.
    """
    from stream.process import fatal
    from stream.process.stopping import stopping

    stopping.listen()  # before anything else: from here on the gateway notices a stop signal
    fatal.prepare("gateway")
    from deploy.clients.admin import check
    from deploy.clients.topic_monitor import TopicWatch
    from stream.catalogue.bundles import candidates
    from stream.gateway import gateway as process

    settings: Settings = context.obj
    given = {
        "bundles": bundles,
        "replica_dir": replica_dir,
        "serve_partitions": None if partitions is None else _numbers(partitions),
        "serve_host": host,
        "serve_port": port,
        "provider": provider,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if changed:
        settings = load(**{name: getattr(settings, name) for name in settings.model_fields_set} | changed)
    topology = check(settings, gateway=True)
    settings = settings.model_copy(update={"partitions": topology.partitions})
    TopicWatch(settings, topology.ids).start()
    process.run(settings, topology.ids, topology.cluster, candidates(settings))


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers in 0,1,2. Raises SettingsError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise SettingsError(f"--partitions: found {text[:60]!r}, expected numbers with commas between them, like 0,1")
    return tuple(int(part) for part in parts)
