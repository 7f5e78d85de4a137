"""Write a made-up shop: SHOP/clicks.csv and SHOP/items.csv, in freshet's own form (docs/data.md).

    python examples/make_shop.py shop

It has 120 articles in four departments, and 300 visitors. A visitor mostly goes from one article to the next within a department,
and sometimes changes the department. So the next choice follows from the last ones, and there is something to learn.
Each article has the attributes `price` (2 to 61) and `added` (a date in May 2026), for filters and rules (docs/rules.md).
"""

from __future__ import annotations

import csv
import json
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

DEPARTMENTS = {
    "garden": ("watering can", "spade", "rake", "seed tray", "hose"),
    "kitchen": ("wooden spoon", "pan", "kettle", "bread knife", "sieve"),
    "office": ("notebook", "pencil", "stapler", "desk lamp", "folder"),
    "bicycle": ("bell", "saddle", "pump", "chain", "helmet"),
}
SIZES = ("small", "medium", "large", "red", "green", "blue")
VISITORS = 300
EVENTS = 24
"""Per visitor."""
START = 1_780_000_000_000
"""Epoch milliseconds of the first event."""


def main(folder: Path) -> None:
    """Write both files into `folder`."""
    rng = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    articles = {
        department: [f"{department[0].upper()}-{number:02d}" for number in range(len(kinds) * len(SIZES))]
        for department, kinds in DEPARTMENTS.items()
    }
    with (folder / "items.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "title", "categories", "attributes"])
        for department, kinds in DEPARTMENTS.items():
            titles = [f"{kind}, {size}" for kind in kinds for size in SIZES]
            for number, title in enumerate(titles):
                rows.writerow([articles[department][number], title.capitalize(), department, attributes(number)])
    with (folder / "clicks.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "item", "time", "action"])
        for visitor in range(VISITORS):
            department, place = rng.choice(list(articles)), rng.randrange(30)
            for event in range(EVENTS):
                if rng.random() < 0.1:
                    department, place = rng.choice(list(articles)), rng.randrange(30)
                place = (place + rng.choice((1, 1, 1, 2))) % 30
                action = "purchase" if rng.random() < 0.1 else "view"
                time = START + (event * VISITORS + visitor) * 60_000
                rows.writerow([f"v-{visitor}", articles[department][place], time, action])


def attributes(number: int) -> str:
    """Return the attributes of a department's article as JSON: a price, and the day on which it came into the shop."""
    day = datetime.fromtimestamp(START / 1000, UTC).date() - timedelta(days=number)
    return json.dumps({"price": number * 7 % 60 + 2, "added": day.isoformat()})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "shop"))
