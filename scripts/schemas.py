"""Writes the JSON Schemas of all messages from their structs: `python -m scripts.schemas docs/schemas`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from stream.core.messages import MESSAGES


def schemas() -> dict[str, str]:
    """Return file name -> JSON Schema text (2020-12), one per message."""
    return {
        f"{name}.json": json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(message), indent=2
        )
        + "\n"
        for name, message in MESSAGES.items()
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in schemas().items():
        (folder / file).write_text(text)
