"""What a check found: counts, violations, the verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

KEPT = 100
"""Violations kept in full; the others are counted only."""


@dataclass(frozen=True)
class Violation:
    """One broken promise. `kind` is a fixed code; the rest says where, as far as it is known (-1: not known)."""

    kind: str
    message: str
    user: str = ""
    seq: int = -1
    topic: str = ""
    partition: int = -1
    offset: int = -1

    def __str__(self) -> str:
        parts = [f"user {self.user}"] if self.user else []
        if self.seq >= 0:
            parts.append(f"seq {self.seq}")
        if self.topic:
            parts.append(f"{self.topic}/{self.partition}/{self.offset}")
        return f"{self.kind}: {self.message}" + (f" ({', '.join(parts)})" if parts else "")


@dataclass
class Report:
    """Counts of one check.

    input: source records in view; accepted: acceptable ones; applied: in a state; duplicates: an `id` had before;
    dead_letters: distinct source records set aside; lost: acceptable and committed, but in no state; unreported:
    unacceptable and committed, but no dead letter; double: applied more than once; uncovered: applied, but no slate
    shows it; pending: not yet committed, so not yet due; unverifiable: what deleted or compacted records would tell;
    unseen: those
    of them that only a compacted state can have taken in; repeated: written twice by a client's retry, harmless.
    """

    input: int = 0
    accepted: int = 0
    applied: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    lost: int = 0
    unreported: int = 0
    double: int = 0
    uncovered: int = 0
    pending: int = 0
    unverifiable: int = 0
    unseen: int = 0
    users: int = 0
    states: int = 0
    slates: int = 0
    replays: int = 0
    repeated: int = 0
    item_dead_letters: int = 0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    def add(self, violation: Violation) -> None:
        self.kinds[violation.kind] += 1
        if len(self.violations) < KEPT:
            self.violations.append(violation)

    @property
    def conserved(self) -> bool:
        """input = applied + dead letters + counted duplicates, of what is due and in sight."""
        return self.input - self.pending - self.unseen == self.applied + self.dead_letters + self.duplicates

    @property
    def exit_code(self) -> int:
        """0 the promise holds; 1 it is broken; 3 part of it cannot be judged."""
        if self.kinds:
            return 1
        return 3 if self.unverifiable or self.pending else 0

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON types, with the verdict."""
        found = asdict(self)
        found["kinds"] = dict(self.kinds)
        return {"ok": self.exit_code == 0, "exit_code": self.exit_code, "conserved": self.conserved} | found
