"""What the demo page shows besides the API's own answers: the hit rate, in a file that the gateway reads."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from deploy.demo.progress import Figures

FIGURES: Final = "figures.json"
PACKAGES: Final = ("uvicorn", "httptools")


def needed_packages() -> str:
    """Return a package of the extra `serve` that is missing; "" if the gateway can run."""
    return next((name for name in PACKAGES if find_spec(name) is None), "")


def write_figures(file: Path, figures: Figures) -> None:
    """Write the hit rate so far, as the setting `serve_figures` expects it. A reader finds the old or the new one."""
    hits = figures.hits
    if hits is None:
        return
    document = hits._asdict() | {"final": figures.done == figures.total}
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(document), "utf-8")
    partial.replace(file)
