"""What each chaos check saw, one JSON object a line, so that the report is made from runs and from nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """One fault, one seed.

    fault: its number in docs/reliability.md; name: the scenario. events: sent; repeats: events covered by a replay slate;
    kills: processes killed by the fault; restarts: of workers, by the supervisor; unavailable: longest time in seconds in
    which one partition's users got no slate while events came; memory: most MiB that a worker had resident (0: not
    measured); seconds: the whole check; note: what else is worth telling, one sentence; code: see `code`.
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
    memory: float = 0.0
    seconds: float = 0.0
    note: str = ""
    code: str = field(default_factory=lambda: code())


@cache
def code() -> str:
    """What was running: git's hash of the folder stream/ as committed, with a + where it was changed since."""
    git = ["git", "-C", str(ROOT)]
    tree = subprocess.run([*git, "rev-parse", "--short=12", "HEAD:stream"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "stream"], check=False).returncode
    return (tree.stdout.strip() or "unknown") + ("+" if changed else "")


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
