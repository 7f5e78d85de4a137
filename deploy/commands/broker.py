"""`freshet broker`: the embedded Kafka."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

Directory = Annotated[Path, typer.Option("--dir", help="Folder of the broker's data, log and configuration.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

group = typer.Typer(
    no_args_is_help=True, help="Run Apache Kafka here: a real broker for a first try, the demo and tests."
)

HOME = Path(".freshet/kafka")


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    app.add_typer(group, name="broker")


@group.command()
def start(
    directory: Directory = HOME,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0: any free one.")] = 9092,
    as_json: Json = False,
) -> None:
    """Start it and wait until it answers. Exit code 69: runs already, port taken, download failed, or it died."""
    from deploy.kafka import EmbeddedKafka

    broker = EmbeddedKafka(directory, port).start()
    _print(broker.pid, broker.bootstrap, as_json, "broker runs")


@group.command()
def stop(directory: Directory = HOME, as_json: Json = False) -> None:
    """Stop it. Stopping one that does not run is no error."""
    from deploy.kafka import EmbeddedKafka

    stopped = EmbeddedKafka(directory).stop()
    print(json.dumps({"stopped": stopped}) if as_json else "broker stopped" if stopped else "no broker runs here")


@group.command()
def status(directory: Directory = HOME, as_json: Json = False) -> None:
    """Say whether it runs and answers; exit code 1 if not."""
    from deploy.kafka import EmbeddedKafka

    broker = EmbeddedKafka(directory)
    if broker.alive:
        _print(broker.pid, broker.bootstrap, as_json, "broker runs")
        return
    print(json.dumps({"running": False}) if as_json else "no broker runs here")
    raise typer.Exit(1)


def _print(pid: int, bootstrap: str, as_json: bool, text: str) -> None:
    print(
        json.dumps({"running": True, "pid": pid, "brokers": bootstrap})
        if as_json
        else f"{text}: {bootstrap} (pid {pid})"
    )
