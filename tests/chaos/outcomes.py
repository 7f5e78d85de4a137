"""What each chaos check saw, one JSON object a line, so that the report is made from runs and from nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """One fault, one seed.

    fault: its number in docs/reliability.md; name: the scenario. events: sent; repeats: events covered by a replay slate;
    kills: processes killed by the fault; restarts: of workers, by the supervisor; unavailable: longest time in seconds
    without any slate while events came; seconds: the whole check; note: what else is worth telling, one sentence.
    """

    fault: int
    name: str
    seed: int
    events: int = 0
    lost: int = 0
    double: int = 0
    uncovered: int = 0
    repeats: int = 0
    kills: int = 0
    restarts: int = 0
    unavailable: float = 0.0
    seconds: float = 0.0
    note: str = ""


def file() -> Path:
    """FRESHET_OUTCOMES, else .cache/chaos/outcomes.jsonl of this checkout."""
    return Path(os.environ.get("FRESHET_OUTCOMES") or ROOT / ".cache" / "chaos" / "outcomes.jsonl")


def record(outcome: Outcome) -> None:
    """Append one outcome."""
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps(asdict(outcome)) + "\n")


def read() -> Iterator[Outcome]:
    """Every outcome recorded so far, in the order of recording."""
    if not file().is_file():
        return
    for line in file().read_text("utf-8").splitlines():
        yield Outcome(**json.loads(line))
