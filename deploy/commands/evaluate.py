"""`freshet evaluate`: how well a run foretells held-out choices, beside popularity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def evaluate(
        data: Annotated[Path, typer.Argument(help="Data folder that the run was trained on, or `generated`.")],
        run: Annotated[Path | None, typer.Option(help="Run folder; without one, it is trained in .cache/runs.")] = None,
        filter_seen: Annotated[bool, typer.Option(help="Leave out items that the user has had.")] = True,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    ) -> None:
        """Rank every held-out choice against the state before it (prequential, full catalogue), beside popularity."""
        from rich.console import Console
        from rich.table import Table

        from models.data import generate, read
        from models.data.dataset import fingerprint
        from models.evaluate import evaluate as judge
        from models.run import load_run, save_run
        from models.text import TextEncoder
        from models.train import TrainSettings, train

        source = generate() if str(data) == "generated" else read(data)
        encoder = TextEncoder()
        folder = run or Path(".cache/runs") / fingerprint(source.events)[:16]
        if run is None and not (folder / "run.json").exists():
            Console(stderr=True).print(f"training {folder} first")
            save_run(train(source, TrainSettings(), encoder).run, folder)
        found = judge(source, load_run(folder), encoder, filter_seen=filter_seen)
        figures = found.figures()
        if as_json:
            about = {"data": found.data, "holdout": found.holdout, "filter_seen": filter_seen}
            print(json.dumps({**about, "judged": len(found.owners), "models": figures}))
            return
        title = f"{found.data}: last {found.holdout} of each user, {len(found.owners)} choices"
        table = Table("model", "HR@10", "NDCG@10", "HR@10 over popularity (95 %)", title=title)
        for name, of in figures.items():
            low, high = of.get("intervals", {}).get("HR@10 - popularity", (None, None))
            over = "" if low is None else f"{low:+.4f} to {high:+.4f}"
            table.add_row(name, f"{of['test']['HR@10']:.4f}", f"{of['test']['NDCG@10']:.4f}", over)
        Console().print(table)
