"""What each chaos check saw, one JSON object a line, so that the report is made from runs and from nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def today() -> str:
    """The date, UTC."""
    return datetime.now(UTC).date().isoformat()


@cache
def running_code() -> str:
    """What was running: git's hash of the folder stream/ as committed, with a + where it was changed since."""
    if given := os.environ.get("CHAOS_CODE"):  # where the checkout came without git
        return given
    git = ["git", "-C", str(ROOT)]
    tree = subprocess.run([*git, "rev-parse", "--short=12", "HEAD:stream"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "stream"], check=False).returncode
    return (tree.stdout.strip() or "unknown") + ("+" if changed else "")


@dataclass(frozen=True)
class Outcome:
    """One fault, one seed.

    fault: its number in docs/reliability.md; name: the scenario. events: sent; repeats: events covered by a replay slate;
    kills: processes killed by the fault; restarts: of workers, by the supervisor; unavailable: longest time in seconds in
    which one partition's users got no slate while events came; memory: most MiB that a worker had resident (0: not
    measured); seconds: the whole check; note: what else is worth telling, one sentence; code: see `running_code`;
    day: of the run, UTC.
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
    code: str = field(default_factory=running_code)
    day: str = field(default_factory=today)

    @property
    def key(self) -> tuple[int, str, int]:
        return self.fault, self.name, self.seed


@dataclass(frozen=True)
class Rival:
    """One subject under the kills of one seed, freshet among them; judged as tests.rivals.verdict says.

    subject: what ran, its version and the settings that matter. events: acknowledged; kills: SIGKILLs, wipes: those with the
    data folder deleted; exits: how often it ended by itself and was started again; lost, double, unshown, users_wrong: the
    verdict; caught_up: seconds from the last event until the group had committed everything, -1 where it never did;
    day: of the run, UTC.
    """

    subject: str
    version: str
    settings: str
    seed: int
    events: int
    kills: int
    wipes: int
    exits: int
    lost: int
    double: int
    unshown: int
    users: int
    users_wrong: int
    caught_up: float
    seconds: float
    day: str = field(default_factory=today)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.subject, self.settings, self.seed


def file(name: str) -> Path:
    """name: reliability or rivals. Below CHAOS_OUTCOMES, else .cache/chaos of this checkout."""
    return Path(os.environ.get("CHAOS_OUTCOMES") or ROOT / ".cache" / "chaos") / f"{name}.jsonl"


def record(outcome: Outcome | Rival) -> None:
    """Append one outcome."""
    path = file("rivals" if isinstance(outcome, Rival) else "reliability")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps(asdict(outcome)) + "\n")


def read(path: Path) -> Iterator[Outcome]:
    """Every outcome in a file, in the order of recording; none where there is no file."""
    for line in _lines(path):
        yield Outcome(**json.loads(line))


def read_rivals(path: Path) -> Iterator[Rival]:
    """Every run of a subject in a file, in the order of recording."""
    for line in _lines(path):
        yield Rival(**({"day": ""} | json.loads(line)))  # before there was a day


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.is_file() else []
