"""What a check found: counts, violations, the verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

MOST_LISTED = 100
"""Violations listed in full; the others are counted only."""

Kind = Literal[
    "applied", "bundle-stale", "chain", "claim", "commit", "dead-letter", "double", "epoch-stale", "epoch-unknown",
    "foreign", "forged-claim", "fork", "gap",
    "invalid-applied", "ledger", "lost", "numbers", "order", "phantom", "ranking", "reissue", "slate", "slate-applied",
    "slate-bundle", "slate-chain", "slate-events", "slate-state", "slate-withdrawn", "stale", "state", "store",
    "table-count", "table-pair", "table-stale", "uncovered", "unreported", "valid-dead-letter",
]  # fmt: skip
"""Which promise is broken. docs/verify.md says what each means."""

NoteKind = Literal[
    "deleted", "exposed", "lost-rules", "lost-tables", "no-epoch", "other-model", "outside", "quiet", "undecided",
]  # fmt: skip
"""What is shown although it breaks no promise."""


@dataclass(frozen=True)
class Violation:
    """One broken promise.

    `kind` is a fixed code. The fields after `message` show where it was found; -1 and "" mean that this is not known.
    """

    kind: Kind | NoteKind
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
    """The counts of one check.

    Attributes:
        input: Source records that were checked.
        accepted: Acceptable ones among them.
        applied: Records that are in a state.
        duplicates: Records whose `id` was used before.
        dead_letters: Distinct source records that were set aside.
        forgotten: Records that a control record has erased, and the control records.
        deleted: Empty states that were deleted.
        forwarded: Records that were forwarded to the right partition.
        inference: Acceptable records that were set aside because the model failed on them.
        lost: Acceptable and committed records that are in no state.
        unreported: Unacceptable and committed records without a dead letter.
        double: Records that were applied more than once.
        unshown: Applied records whose slate may lie behind an open transaction.
        undecided: Records of the worker's topics behind open transactions of other producers.
        uncovered: Applied records that no slate shows.
        pending: Records that are not yet committed, so not yet due, or whose outcome lies behind an open transaction.
        unverifiable: What only deleted or compacted records would show.
        unseen: Those of them that only a compacted state can have applied.
        adopted: Users whose state before the range was taken as given.
        users: Users with a state.
        states: State records of the changelog.
        claims: Claims of the changelog's writers.
        fenced: Fenced states. They do not count.
        exposed: Fenced states that are their user's last record.
        slates: Slates that were read.
        replays: Slates flagged as replays.
        reissued: Slates that were re-issued because an item was withdrawn.
        repeated: Records written twice by a client's retry, which is harmless.
        acked, failed, indeterminate: Sends of the producer log, by status.
        failed_found, indeterminate_found: Those of them that are in the topic.
        stored: Values in workers' RocksDB.
        stored_ahead: Those of them that are later than the offset that their folder names.
        numbers: States computed again.
        ranked: Slates scored again.
        numbers_unverifiable: States and slates that could not be computed again.
        table_epoch: Number of the epoch of the tables that was checked; 0: none.
        table_rows: Its rows.
        outside: The requested range lies outside the log, as a whole or by one of its starts, or it holds no source record
            although later ones are there.
        quiet: The range holds no source record, and there is no later one.
        seconds: Duration of the check.
        kinds: Number of violations of each kind.
        violations: The first violations, MOST_LISTED at most.
        notes: Findings that break no promise, MOST_LISTED at most.
        hints: Options to try if the violations come from other settings than those of the workers, each once.
    """

    input: int = 0
    accepted: int = 0
    applied: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    forgotten: int = 0
    deleted: int = 0
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
    reissued: int = 0
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
    table_epoch: int = 0
    table_rows: int = 0
    outside: bool = False
    quiet: bool = False
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    notes: list[Violation] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def add(self, violation: Violation) -> None:
        self.kinds[violation.kind] += 1
        if len(self.violations) < MOST_LISTED:
            self.violations.append(violation)

    def note(self, found: Violation) -> None:
        """List a finding that breaks no promise, but should be shown."""
        if len(self.notes) < MOST_LISTED:
            self.notes.append(found)

    def hint(self, text: str) -> None:
        """Name what to try, once, if a violation may come from settings that are not those of the workers."""
        if text not in self.hints:
            self.hints.append(text)

    @property
    def conserved(self) -> bool:
        """Whether input = applied + set aside + forwarded + duplicates + forgotten, of what is due and can be seen."""
        set_aside = self.dead_letters + self.inference + self.forwarded + self.forgotten
        return self.input - self.pending - self.unseen == self.applied + set_aside + self.duplicates

    @property
    def exit_code(self) -> int:
        """0: the promise holds; 1: it is broken; 3: part of it cannot be checked."""
        if self.kinds:
            return 1
        undone = self.pending or self.undecided or self.outside
        return 3 if self.unverifiable or self.numbers_unverifiable or undone else 0

    def as_dict(self) -> dict[str, Any]:
        """Return the whole report as JSON types, with the verdict."""
        found = asdict(self)
        found["kinds"] = dict(self.kinds)
        return {"ok": self.exit_code == 0, "exit_code": self.exit_code, "conserved": self.conserved} | found
