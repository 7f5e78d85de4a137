"""`freshet broker`: run the embedded Kafka."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.clients.printable import printable

if TYPE_CHECKING:
    from deploy.embedded_kafka import EmbeddedKafka

Directory = Annotated[Path, typer.Option("--dir", help="Folder for the broker's data, log and configuration.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

group = typer.Typer(
    no_args_is_help=True, help="Run Apache Kafka on this machine: a real broker for a first try, the demo and tests."
)

HOME = Path(".freshet/kafka")


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    app.add_typer(group, name="broker")


@group.command()
def start(
    directory: Directory = HOME,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Loopback port of the first node; 0: any free port.")
    ] = 9092,
    nodes: Annotated[
        int,
        typer.Option(min=1, max=5, help="Number of nodes. From 3 on, the cluster keeps three copies of everything."),
    ] = 1,
    as_json: Json = False,
) -> None:
    """Start the broker and wait until it answers. Exit code 69: already running, port taken, download failed, died."""
    from deploy.embedded_kafka import EmbeddedKafka, KafkaCluster

    if nodes > 1:
        _print(KafkaCluster(directory, nodes, port).start().nodes, as_json)
    else:
        _print([EmbeddedKafka(directory, port, _note).start()], as_json)


@group.command()
def stop(directory: Directory = HOME, as_json: Json = False) -> None:
    """Stop the broker and all its nodes. It is not an error if none is running."""
    from deploy.embedded_kafka import at

    stopped = at(directory).stop()
    print(json.dumps({"stopped": stopped}) if as_json else "broker stopped" if stopped else "no broker is running here")


@group.command()
def status(directory: Directory = HOME, as_json: Json = False) -> None:
    """Show whether every node runs and answers. Exit code 1 if not."""
    from deploy.embedded_kafka import KafkaCluster, at

    found = at(directory)
    nodes = found.nodes if isinstance(found, KafkaCluster) else [found]
    up = [node for node in nodes if node.alive]
    if up:
        _print(up, as_json, len(nodes))
    elif as_json:
        print(json.dumps({"running": False}))
    else:
        print("no broker is running here")
    if len(up) < len(nodes):
        raise typer.Exit(1)


def _print(up: Sequence[EmbeddedKafka], as_json: bool, of: int = 0) -> None:
    """Print the running nodes. of: the total number of nodes."""
    brokers = ",".join(node.bootstrap for node in up)
    if as_json:
        pids = {"pid": up[0].pid} if max(of, len(up)) == 1 else {"pids": [node.pid for node in up]}
        print(json.dumps({"running": len(up) >= of, **pids, "brokers": brokers}))
    elif max(of, len(up)) == 1:
        print(f"broker is running: {brokers} (pid {up[0].pid})")
    else:
        some = f"{len(up)} nodes are running" if len(up) >= of else f"{len(up)} of {of} nodes are running"
        numbers = ", ".join(str(node.pid) for node in up)
        print(f"{some}: {brokers} (pids {numbers})")


def _note(text: str) -> None:
    print(printable(f"note: {text}"), file=sys.stderr, flush=True)
