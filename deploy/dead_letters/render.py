"""Text output for dead letters: tables, one dead letter in full, and what became of the dead letters that were sent back."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from deploy.clients.printable import counted, printable
from deploy.clients.schema import parse
from deploy.dead_letters.corrections import Acceptance, as_text
from deploy.dead_letters.reader import DeadLetter, iso
from deploy.dead_letters.redrive import REFUSED, Outcome, Plan, Status
from stream.core.errors import REASONS
from stream.settings import Settings

WIDTH = 160
"""Columns if the output is not a terminal: a pipe or a file."""

NUMBERS = ("letters", "open")
"""Headings of numeric columns."""


def report(settings: Settings, outcomes: Iterator[Outcome], plan: Plan, as_json: bool) -> int:
    """Print every dead letter's outcome as it arrives, then the counts. Return how many were refused."""
    counts: Counter[Status] = Counter()
    rows = []
    for dead_letter, status, landed, problems in outcomes:
        counts[status] += 1
        source, origin = "/".join(dead_letter.source), dead_letter.origin(settings)
        if as_json:
            rows.append(
                {"source": source, "origin": origin, "letter": list(dead_letter.position), "status": status,
                 "landed": None if landed is None else list(landed), "wrong": [one._asdict() for one in problems]}
            )  # fmt: skip
            continue
        more = [f"as {'/'.join(map(str, landed))}"] if landed else []
        more += [f"first {origin}"] if origin != source else []
        more += [str(problem) for problem in problems]
        print(printable("  ".join((source, status, *more))))
    if as_json:
        print(
            json.dumps(
                {"chosen": plan.chosen, "sent": counts[Status.SENT], "counts": counts, "letters": rows,
                 "unseen": plan.unseen}
            )
        )  # fmt: skip
    else:
        statuses = ", ".join(f"{count:,} {status}" for status, count in counts.items())
        print(f"{counted(plan.chosen, 'dead letter')} chosen" + (f": {statuses}" if statuses else ""))
    return sum(counts[status] for status in REFUSED)


def whole(settings: Settings, dead_letter: DeadLetter) -> dict[str, Any]:
    """Return the whole dead letter as JSON types."""
    return {
        "letter": list(dead_letter.position),
        "origin": dead_letter.origin(settings),
        **dead_letter.fields,
        "time": dead_letter.appended_ms,
        "headers": [[name, as_text(value)] for name, value in dead_letter.headers],
        "key": as_text(dead_letter.key),
        "value": as_text(dead_letter.value),
    }


def lines(settings: Settings, dead_letter: DeadLetter) -> Iterator[str]:
    """Yield the lines that `freshet deadletters show` prints."""

    fields = dead_letter.fields
    origin, source = dead_letter.origin(settings), "/".join(dead_letter.source)
    expected = Acceptance(settings).expected(fields["topic"], fields["field"])
    sent_back = f" (sent back; first {origin})" if origin != source else ""
    yield f"source    {source}{sent_back}, appended {iso(dead_letter.appended_ms)}"
    position = "/".join(map(str, dead_letter.position))
    yield f"letter    {position}, set aside {iso(dead_letter.failed_ms)} by {fields.get('host', '')}"
    yield f"reason    {fields['reason']} at stage {fields['stage']}" + (
        f", field {fields['field']}" if fields["field"] else ""
    )
    yield f"          {REASONS.get(fields['reason'], 'This version does not know this reason.')}"
    yield f"message   {fields['message']}"
    if expected:
        yield f"expected  {fields['field']}: {expected}"
    truncated = "; only the first part was kept" if fields["truncated"] == "true" else ""
    yield f"version   {fields.get('app.version', '')}, bundle {fields.get('model.sha256', '')[:12]}"
    yield "headers   " + ("" if dead_letter.headers else "none")
    yield from (f"  {name}: {_text_of(value)}" for name, value in dead_letter.headers)
    yield f"key       {_text_of(dead_letter.key)}"
    yield f"value     {len(dead_letter.value or b''):,} bytes{truncated}"
    yield from _pretty(dead_letter.value).split("\n")


def table(title: str, headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=title)
    for heading in headings:
        shown.add_column(heading, overflow="fold", justify="right" if heading in NUMBERS else "left")
    for row in rows:
        shown.add_row(*(escape(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(shown)


def _text_of(part: bytes | None) -> str:
    if part is None:
        return "null"
    try:
        return part.decode()
    except UnicodeDecodeError:
        return repr(part)[1:]


def _pretty(value: bytes | None) -> str:

    try:
        return json.dumps(parse(value or b""), indent=2, ensure_ascii=False)
    except ValueError:
        return _text_of(value)
