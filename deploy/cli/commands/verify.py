"""`freshet verify`: check the promise independently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import bounds
from deploy.cli.data_options import scale_of
from deploy.clients.printable import counted, printable
from stream.core import times

if TYPE_CHECKING:
    from deploy.verify import Report

SHOWN = 10
ROWS = (
    ("input", "source records"),
    ("accepted", "acceptable by the published schemas"),
    ("applied", "in a state"),
    ("duplicates", "an id that this user has already used"),
    ("dead_letters", "not accepted, each with its reason"),
    ("forwarded", "sent on to the right partition"),
    ("inference", "dead letters because the model failed on them"),
    ("lost", "acceptable, but in no state"),
    ("unreported", "unacceptable, but no dead letter"),
    ("double", "applied more than once"),
    ("uncovered", "applied, but not shown by any slate"),
    ("pending", "not yet committed: use --wait to let the worker finish"),
    ("unshown", "applied, but the slate may be behind an open transaction"),
    ("undecided", "in the worker's topics, behind open transactions of other producers"),
    ("unverifiable", "compacted or deleted, cannot be checked"),
    ("adopted", "users whose state before the range is taken as given"),
    ("forgotten", "erased because somebody asked to forget their user"),
    ("deleted", "states of forgotten users, deleted for good"),
    ("users", ""),
    ("states", "changelog records"),
    ("claims", "of writers in the changelog"),
    ("fenced", "states of outdated writers, which are ignored"),
    ("exposed", "of those, the last of their user"),
    ("slates", ""),
    ("replays", "slates that repeat a state"),
    ("acked", "sends in the producer log that the broker acknowledged"),
    ("indeterminate", "sends whose outcome the producer does not know"),
    ("indeterminate_found", "of those, found in the topics"),
    ("failed", "sends that failed"),
    ("failed_found", "of those, found in the topics anyway"),
    ("stored", "values in the workers' folders"),
    ("numbers", "states recomputed"),
    ("ranked", "slates scored again"),
    ("numbers_unverifiable", "states and slates of other models or items"),
    ("table_rows", "of the newest epoch of the tables, counted again"),
)
ALWAYS = {name for name, _ in ROWS[:15]} - {"inference", "forwarded", "unshown", "undecided"} | {
    "users",
    "states",
    "slates",
    "replays",
}
"""Rows that are shown even if they are 0."""
BAD = ("lost", "unreported", "double", "uncovered")


Wait = Annotated[
    float,
    typer.Option(
        min=0,
        max=bounds.SECONDS,
        callback=bounds.number,
        help="Maximum seconds to wait until the worker has committed everything that is there now.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(help="Judge events appended at or after this time: ISO 8601 (UTC without a zone) or epoch ms."),
]
Until = Annotated[str | None, typer.Option(help="Judge events appended before this time.")]
FromOffset = Annotated[
    list[str] | None,
    typer.Option(help="First event to judge on a partition: topic/partition/offset. May be repeated."),
]
ProducerLog = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        help="Check this JSONL producer log of a producer's sends: {id, topic, partition?, offset?, key, sha256, status}.",
    ),
]
DataDir = Annotated[
    list[Path] | None,
    typer.Option(help="Compare the RocksDB of a STOPPED worker with the head of the changelog. May be repeated."),
]
Bundle = Annotated[
    Path | None,
    typer.Option(
        help="Recompute states and slates with this bundle, or each with the bundle of this folder that it names."
    ),
]
Numbers = Annotated[
    int,
    typer.Option(
        min=0,
        max=bounds.EVENTS,
        help="With --bundle: number of users to recompute; 0: all, which takes a long time.",
    ),
]
MinTime = Annotated[
    str | None,
    typer.Option(help="min_time of the workers, if it differs from this command's setting: a date, epoch ms, off."),
]
MinTimeBefore = Annotated[
    list[str] | None,
    typer.Option(
        help="min_time before a change: POSITION=VALUE. POSITION: topic/partition/offset, or a time for all. May be repeated."
    ),
]
RatingScale = Annotated[
    tuple[float, float] | None,
    typer.Option(help="rating_scale of the workers, if it is neither this command's setting nor that of --bundle."),
]
RatingScaleBefore = Annotated[
    list[str] | None, typer.Option(help="rating_scale before a change: POSITION=LOW,HIGH, like --min-time-before.")
]
EnvelopeBefore = Annotated[
    list[str] | None, typer.Option(help="envelope before a change: POSITION=ENVELOPE, like --min-time-before.")
]
PublishedBefore = Annotated[
    list[str] | None,
    typer.Option(help="published before a change: POSITION=NAME,NAME of placements, like --min-time-before."),
]
Tables = Annotated[
    bool, typer.Option("--tables", help="Count the newest epoch of the topic `tables` again from the source topics.")
]
ReissueLimit = Annotated[
    float,
    typer.Option(
        min=0,
        max=bounds.SECONDS,
        callback=bounds.number,
        help="Seconds within which slates that show a withdrawn item must be re-issued.",
    ),
]
SwapLimit = Annotated[
    float,
    typer.Option(
        min=0,
        max=bounds.SECONDS,
        callback=bounds.number,
        help="Seconds within which the owner of each partition must have switched to an activated bundle, or refused it.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("verify")(verify)


def verify(
    context: typer.Context,
    wait: Wait = 0.0,
    since: Since = None,
    until: Until = None,
    from_offset: FromOffset = None,
    producer_log: ProducerLog = None,
    data_dir: DataDir = None,
    bundle: Bundle = None,
    numbers: Numbers = 20,
    min_time: MinTime = None,
    min_time_before: MinTimeBefore = None,
    rating_scale: RatingScale = None,
    rating_scale_before: RatingScaleBefore = None,
    envelope_before: EnvelopeBefore = None,
    published_before: PublishedBefore = None,
    tables: Tables = False,
    reissue_limit: ReissueLimit = 300.0,
    swap_limit: SwapLimit = 300.0,
    as_json: AsJson = False,
) -> None:
    """Recompute everything from the topics to check that no event is lost, applied twice, or missing from the slates.

    Exit codes: 0 the promise holds, 1 it is broken (the first violation is named), 3 part of it cannot be checked
    (records deleted, compacted, or not yet committed), 65 a producer log, folder or bundle cannot be read, 69 no broker, 78
    topics missing.
    """
    from deploy.verify import Scope, run

    starts = dict(map(start_of, from_offset or ()))
    begin, end = time_of(since, "--since"), time_of(until, "--until")
    if begin is not None and end is not None and begin >= end:
        raise typer.BadParameter(printable(f"--since {since} --until {until}: expected --since before --until"))
    scope = Scope(
        wait, begin, end, starts, producer_log, tuple(data_dir or ()), bundle, numbers,
        min_time, tuple(min_time_before or ()), scale_of(rating_scale), tuple(rating_scale_before or ()),
        tuple(envelope_before or ()), tuple(published_before or ()), reissue_limit, tables, swap_limit,
    )  # fmt: skip
    report = run(context.obj, scope=scope)
    if as_json:
        print(json.dumps(report.as_dict()))
    else:
        _show(report)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def time_of(text: str | None, option: str = "") -> int | None:
    """Return a time in epoch ms, or None if none was given.

    Args:
        text: The time, in a form that `stream.core.times.moment` reads.
        option: Name of the option, for the error message.

    Raises:
        typer.BadParameter: It is not a time.
    """
    try:
        return None if text is None else times.moment(text)
    except ValueError as error:
        raise typer.BadParameter(printable(f"{option} {text}: {error}".strip())) from None


def start_of(text: str) -> tuple[tuple[str, int], int]:
    """Parse topic/partition/offset -> ((topic, partition), offset). Raises typer.BadParameter."""
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not (topic and rest.isascii() and partition.isdecimal() and offset.isdecimal()):
        raise typer.BadParameter(printable(f"{text}: expected topic/partition/offset"))
    return (topic, int(partition)), int(offset)


def verdict(report: Report) -> str:
    """Return the outcome of the check in words."""
    if report.exit_code == 1:
        return "the promise is broken"
    if not report.input and (report.outside or report.quiet):
        return "nothing was checked" + (": no event came in this range" if report.quiet else "")
    return "part of it cannot be checked" if report.exit_code else "the promise holds"


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="freshet verify")
    for heading in ("", "records", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for name, meaning in ROWS:
        count = getattr(report, name)
        if not count and name not in ALWAYS:
            continue
        bad = count and name in BAD
        table.add_row(name.replace("_", " "), f"[red]{count:,}[/]" if bad else f"{count:,}", meaning)
    console = Console()
    console.print(table)
    console.print(f"{verdict(report)} ({report.seconds:.1f} s)")
    if found := report.dead_letters + report.inference:
        are = "is" if found == 1 else "are"
        line = f"  {counted(found, 'record')} {are} not applied: `freshet deadletters list` shows why"
        console.print(line, highlight=False)
    for violation in report.violations[:SHOWN]:
        console.print(escape(printable(f"  {violation}")), highlight=False, soft_wrap=True)
    for note in report.notes[:SHOWN]:
        console.print(escape(printable(f"  {note}")), highlight=False, soft_wrap=True)
    more = report.kinds.total() - min(SHOWN, len(report.violations))
    if more > 0:
        console.print(f"  and {more:,} more: " + ", ".join(f"{kind} {count:,}" for kind, count in report.kinds.items()))
    for hint in report.hints:
        console.print(escape(printable(f"  {hint}")), highlight=False, soft_wrap=True)
