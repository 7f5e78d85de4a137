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

    input: source records that are judged; accepted: acceptable ones; applied: in a state; duplicates: an `id` had before;
    dead_letters: distinct source records set aside; forwarded: sent on to the right partition; inference: acceptable ones set
    aside since the model failed on them;
    lost: acceptable and committed, but in no state; unreported: unacceptable and committed, but no dead letter; double:
    applied more than once; uncovered: applied, but no slate shows it; pending: not yet committed, so not yet due, or
    what became of it lies behind an open transaction; unshown: applied, and a slate may lie behind one; undecided: records of the
    worker's topics behind open transactions of other producers;
    unverifiable: what deleted or compacted records would tell; unseen: those of them that only a compacted state can have
    taken in; adopted: users whose state before the range was taken as given; repeated: written twice by a client's retry,
    harmless.

    claims, fenced, exposed: of the changelog's writers; fenced states count for nothing, exposed ones are their user's last.
    acked, failed, indeterminate: sends of the ledger; *_found: those of them that are in the topic.
    stored: values in workers' RocksDB; stored_ahead: those later than their folder says.
    outside: the range that was asked for lies outside the log, wholly or by one of its starts, or holds no source record while
    later ones are there; quiet: it holds none, and there is no later one.
    numbers: states computed again; ranked: slates scored again; numbers_unverifiable: those that could not be.
    """

    input: int = 0
    accepted: int = 0
    applied: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    forwarded: int = 0
    inference: int = 0
    lost: int = 0
    unreported: int = 0
    double: int = 0
    unshown: int = 0
    undecided: int = 0
    uncovered: int = 0
    pending: int = 0
    unverifiable: int = 0
    unseen: int = 0
    adopted: int = 0
    users: int = 0
    states: int = 0
    claims: int = 0
    fenced: int = 0
    exposed: int = 0
    slates: int = 0
    replays: int = 0
    repeated: int = 0
    acked: int = 0
    failed: int = 0
    failed_found: int = 0
    indeterminate: int = 0
    indeterminate_found: int = 0
    stored: int = 0
    stored_ahead: int = 0
    numbers: int = 0
    ranked: int = 0
    numbers_unverifiable: int = 0
    outside: bool = False
    quiet: bool = False
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    notes: list[Violation] = field(default_factory=list)

    def add(self, violation: Violation) -> None:
        self.kinds[violation.kind] += 1
        if len(self.violations) < KEPT:
            self.violations.append(violation)

    def note(self, found: Violation) -> None:
        """Something to be shown that breaks no promise."""
        if len(self.notes) < KEPT:
            self.notes.append(found)

    @property
    def conserved(self) -> bool:
        """input = applied + dead letters + sent on + counted duplicates, of what is due and in sight."""
        set_aside = self.dead_letters + self.inference + self.forwarded
        return self.input - self.pending - self.unseen == self.applied + set_aside + self.duplicates

    @property
    def exit_code(self) -> int:
        """0 the promise holds; 1 it is broken; 3 part of it cannot be judged."""
        if self.kinds:
            return 1
        undone = self.pending or self.undecided or self.outside
        return 3 if self.unverifiable or self.numbers_unverifiable or undone else 0

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON types, with the verdict."""
        found = asdict(self)
        found["kinds"] = dict(self.kinds)
        return {"ok": self.exit_code == 0, "exit_code": self.exit_code, "conserved": self.conserved} | found
