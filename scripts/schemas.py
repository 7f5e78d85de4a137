"""Writes the JSON Schemas of all messages from their structs into docs/schemas: `python -m scripts.schemas`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import msgspec

from stream.core import bundle_log
from stream.core.messages import MESSAGES

FOLDER: Final = Path(__file__).resolve().parents[1] / "docs" / "schemas"


def schemas() -> dict[str, str]:
    """Return file name -> JSON Schema text (2020-12), one per message."""
    return {
        f"{name}.json": json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(message), indent=2
        )
        + "\n"
        for name, message in {**MESSAGES, **bundle_log.MESSAGES}.items()
    }


def main() -> None:
    """Write the schemas into the given folder, or into docs/schemas of this repository."""
    parser = argparse.ArgumentParser(prog="python -m scripts.schemas", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="default: %(default)s")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in schemas().items():
        (folder / file).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
