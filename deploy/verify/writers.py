"""Whose state records count: writers claim a changelog partition, and what an outdated one still writes is fenced.

A claim is a record with the key CLAIM and the value {"epoch": n, ...}; it holds if n is above all before it. A state record
names its writer's epoch in the header `writer`, epoch 0 without. It is fenced if a higher epoch came before it in the log: it is
no part of the state. The log's own order decides, and no clock.
"""

from __future__ import annotations

import json

from deploy.verify.log import Record

CLAIM = b"\xffwriter"
HEADER = "writer"
FENCED, UNCLAIMED = "fenced", "unclaimed"


class Writers:
    """One changelog partition, read in order."""

    def __init__(self) -> None:
        self.current = 0

    def claim(self, record: Record) -> str:
        """Take in a claim -> what is wrong with it, "" where nothing is. One that comes too late is right and changes nothing."""
        said = epoch(record)
        try:
            value = json.loads(record.value or b"")
            claimed = value["epoch"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return "a claim that is not JSON with an epoch"
        if type(claimed) is not int or claimed < 1 or (said is not None and said != claimed):
            return f"a claim of epoch {str(claimed)[:20]}, its header says {said}"
        self.current = max(self.current, claimed)
        return ""

    def judge(self, record: Record) -> str:
        """A state record: FENCED, where its epoch is over; UNCLAIMED, where nobody in sight has claimed it; else ""."""
        mine = epoch(record) or 0
        if mine < self.current:
            return FENCED
        if mine > self.current:  # proves a claim, perhaps one that compaction took away
            self.current = mine
            return UNCLAIMED
        return ""


def epoch(record: Record) -> int | None:
    """The epoch in a record's header; None without, and where it is not a decimal."""
    for name, value in record.headers:
        if name == HEADER:
            text = (value or b"").decode("ascii", "replace")
            return int(text) if text.isdecimal() and len(text) < 19 else None
    return None
