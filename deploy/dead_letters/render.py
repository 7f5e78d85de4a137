"""Text output for dead letters: tables, one letter in full, and what became of the letters that were sent back."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from deploy.clients.printable import counted, printable
from deploy.clients.schema import parse
from deploy.dead_letters.corrections import Acceptance, as_text
from deploy.dead_letters.reader import Letter, iso
from deploy.dead_letters.redrive import REFUSED, Outcome, Plan, Status
from stream.core.errors import REASONS
from stream.settings import Settings

WIDTH = 160
"""Columns if the output is not a terminal: a pipe or a file."""

NUMBERS = ("letters", "open")
"""Headings of numeric columns."""


def report(settings: Settings, outcomes: Iterator[Outcome], plan: Plan, as_json: bool) -> int:
    """Print every letter's outcome as it arrives, then the counts. Return how many letters were refused."""
    counts: Counter[Status] = Counter()
    rows = []
    for letter, status, landed, problems in outcomes:
        counts[status] += 1
        source, origin = "/".join(letter.source), letter.origin(settings)
        if as_json:
            rows.append(
                {"source": source, "origin": origin, "letter": list(letter.place), "status": status,
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
        said = ", ".join(f"{count:,} {status}" for status, count in counts.items())
        print(f"{counted(plan.chosen, 'dead letter')} chosen" + (f": {said}" if said else ""))
    return sum(counts[status] for status in REFUSED)


def whole(settings: Settings, letter: Letter) -> dict[str, Any]:
    """Return the whole letter as JSON types."""
    return {
        "letter": list(letter.place),
        "origin": letter.origin(settings),
        **letter.said,
        "time": letter.appended_ms,
        "headers": [[name, as_text(value)] for name, value in letter.rest],
        "key": as_text(letter.key),
        "value": as_text(letter.value),
    }


def lines(settings: Settings, letter: Letter) -> Iterator[str]:
    """Yield the lines that `freshet deadletters show` prints."""

    said = letter.said
    origin, source = letter.origin(settings), "/".join(letter.source)
    expected = Acceptance(settings).expected(said["topic"], said["field"])
    sent_back = f" (sent back; first {origin})" if origin != source else ""
    yield f"source    {source}{sent_back}, appended {iso(letter.appended_ms)}"
    yield f"letter    {'/'.join(map(str, letter.place))}, set aside {iso(letter.failed_ms)} by {said.get('host', '')}"
    yield f"reason    {said['reason']} at stage {said['stage']}" + (f", field {said['field']}" if said["field"] else "")
    yield f"          {REASONS.get(said['reason'], 'This version does not know this reason.')}"
    yield f"message   {said['message']}"
    if expected:
        yield f"expected  {said['field']}: {expected}"
    truncated = "; only the first part was kept" if said["truncated"] == "true" else ""
    yield f"version   {said.get('app.version', '')}, bundle {said.get('model.sha256', '')[:12]}"
    yield "headers   " + ("" if letter.rest else "none")
    yield from (f"  {name}: {_bytes_told(value)}" for name, value in letter.rest)
    yield f"key       {_bytes_told(letter.key)}"
    yield f"value     {len(letter.value or b''):,} bytes{truncated}"
    yield from _pretty(letter.value).split("\n")


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


def _bytes_told(part: bytes | None) -> str:
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
        return _bytes_told(value)
