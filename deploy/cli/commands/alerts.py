"""`freshet alerts`: print the alert rules for Prometheus."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(alerts)


def alerts(
    runbook_url: Annotated[
        str,
        typer.Option(
            "--runbook-url", help="Address of your copy of docs/runbook.md, linked from every alert; empty: relative."
        ),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
) -> None:
    """Print the alert rules for Prometheus. Exit codes: 65 the address is not valid, 74 the file cannot be written."""
    from deploy.cli.alert_rules import with_runbook

    rules = with_runbook(runbook_url)
    if out is None:
        sys.stdout.write(rules)
        return
    out.write_text(rules, "utf-8")
    out.chmod(0o644)  # Prometheus runs as another user
