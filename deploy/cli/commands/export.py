"""`freshet export`: turn a training run into a bundle that workers load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.clients.printable import printable


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("export")(export)


def export(
    run: Annotated[Path, typer.Argument(help="Folder that `freshet train` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Folder for bundles. Default: the setting `bundles`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    *,
    context: typer.Context,
) -> None:
    """Export RUN to ONNX, check it against torch, publish it as a bundle and make it CURRENT.

    Exit codes: 0 published, 65 the run is not finished or the graphs deviate from torch.
    """
    import msgspec
    import torch

    from export.publish import build, hidden_folder, publish
    from models.training.run import load_run
    from stream.inference.bundle import CURRENT, MANIFEST, Manifest, current, load

    torch.set_num_threads(1)  # the network is small; more threads only take cores from others
    trained = load_run(run)
    bundles = out or context.obj.bundles
    hidden_folder(bundles).rmdir()  # fail now if the folder is unusable, not after 15 seconds of work
    base = load(current(bundles)) if trained.network.size.untied and (bundles / CURRENT).exists() else None
    files = build(trained, base=base)
    folder = publish(files, bundles)
    manifest = msgspec.json.decode(files[MANIFEST], type=Manifest)
    if as_json:
        about = {
            "bundle": folder.name,
            "folder": str(folder),
            "bytes": sum(map(len, files.values())),
            "dims": msgspec.to_builtins(manifest.dims),
            "parity": msgspec.to_builtins(manifest.parity),
        }
        typer.echo(msgspec.json.encode(about).decode())
        return
    typer.echo(f"bundle {printable(str(folder))}")
    for name, parity in sorted(manifest.parity.items()):
        typer.echo(
            f"  {name:6} differs from torch by at most {parity.max:.2g} {parity.unit} (allowed {parity.tolerance:g})"
        )
