"""`freshet deadletters`: show dead letters, correct them, and send them back."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import bounds
from deploy.cli.dead_letter_options import (
    All,
    Assign,
    Corrected,
    Json,
    Key,
    KeyFromUser,
    Offset,
    Partition,
    Rate,
    Reason,
    Remove,
    Rename,
    Since,
    Stage,
    Topic,
    Until,
    Value,
)
from deploy.clients.printable import counted, printable
from stream.core.errors import DataError, RecordError
from stream.core.keys import key_of
from stream.settings import Settings

if TYPE_CHECKING:
    from deploy.dead_letters.corrections import Acceptance, Correction, Edits
    from deploy.dead_letters.reader import Choice, DeadLetterReader, Source

group = typer.Typer(no_args_is_help=True, help="Show dead letters, correct them, and send them back to their topics.")

SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    app.add_typer(group, name="deadletters")


@group.command("list")
def list_(
    context: typer.Context,
    topic: Topic = None,
    partition: Partition = None,
    offset: Offset = None,
    stage: Stage = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    open_: Annotated[bool, typer.Option("--open", help="Only dead letters that were not sent back yet.")] = False,
    sent_back: Annotated[
        bool, typer.Option("--sent-back", help="Only dead letters that were already sent back.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show both, in separate lists. The default.")] = False,
    status: Annotated[
        bool, typer.Option("--status/--no-status", help="Check in the source topics which dead letters were sent back.")
    ] = True,
    summary: Annotated[bool, typer.Option("--summary", help="Count dead letters by topic, stage and reason.")] = False,
    oldest: Annotated[bool, typer.Option("--oldest", help="Show the oldest first instead of the newest.")] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=bounds.EVENTS, help="Maximum number of dead letters per status.")
    ] = 100,
    as_json: Json = False,
) -> None:
    """List dead letters, newest first: open letters, and separately letters that were sent back.

    A dead letter was sent back if its source topic holds the record again, identified by the header `original-record`. To
    find out, the command reads the source topics from the oldest dead letter's time on. Use --no-status if that takes too
    long or if you have no permission to read them. Exit codes: 69 no broker, 78 topic missing.
    """
    from deploy.dead_letters.listing import Lists, Shown
    from deploy.dead_letters.reader import opened

    if sum((open_, sent_back, everything)) > 1:
        raise typer.BadParameter("expected one of --open, --sent-back, --all")
    if not status and (open_ or sent_back):
        raise typer.BadParameter("--no-status does not check what was sent back: omit --open and --sent-back")
    choice = _choice(topic, partition, offset, stage, reason, since, until)
    shown = Shown.OPEN if open_ else Shown.BACK if sent_back else Shown.ALL
    with opened(context.obj) as reader:
        found = Lists(context.obj, reader, choice, shown, status)
        _warn(found.unseen)
        if summary:
            found.summarise(as_json)
        else:
            found.show(limit, oldest, as_json)


def _warn(unseen: Iterable[tuple[str, int]]) -> None:
    for tp in unseen:
        print(
            f"freshet: records that were sent back to {'/'.join(map(str, tp))} may be deleted by now",
            file=sys.stderr,
        )


@group.command()
def show(
    context: typer.Context,
    position: Annotated[
        str,
        typer.Argument(
            metavar="POSITION",
            help="Position of the source record or of the dead letter itself: topic/partition/offset.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show one dead letter in full: why it was refused, what was expected, its headers, key and value.

    Exit codes: 65 no dead letter there, 69 no broker, 78 topic missing.
    """
    from deploy.dead_letters import render
    from deploy.dead_letters.corrections import Acceptance
    from deploy.dead_letters.reader import opened

    settings: Settings = context.obj
    topic, _, number = position.rpartition("/")[0].rpartition("/")
    offset = position.rpartition("/")[2]
    if not (topic and f"{number}{offset}".isascii() and number.isdecimal() and offset.isdecimal()):
        raise typer.BadParameter(printable(f"{position}: expected topic/partition/offset"))
    with opened(settings) as reader:
        dead_letter = reader.find((topic, int(number), int(offset)))
    source_topic, key, value = dead_letter.fields["topic"], dead_letter.key, dead_letter.value
    problems = Acceptance(settings).problems(source_topic, key, value, dead_letter.appended_ms)
    if as_json:
        print(json.dumps(render.whole(settings, dead_letter) | {"wrong": [problem._asdict() for problem in problems]}))
        return
    for line in render.lines(settings, dead_letter):
        print(printable(line))


@group.command()
def fix(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    topic: Topic = None,
    partition: Partition = None,
    offset: Offset = None,
    stage: Stage = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    assign: Assign = None,
    rename: Rename = None,
    remove: Remove = None,
    key_from_user: KeyFromUser = False,
    edit: Annotated[bool, typer.Option("--edit", help="Open the file in $VISUAL or $EDITOR.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write dead letters to a file for correction, one JSON object per line. `redrive --corrected` sends them.

    `key` and `value` of a line are what will be sent. Edit them by hand, with jq, or with --set, --rename and --remove.
    `wrong` lists what the worker would still refuse. Exit codes: 65 a line cannot be read, 69 no broker, 74 the file
    cannot be used, 78 topic missing.
    """
    import click

    from deploy.dead_letters.corrections import Acceptance

    choice = _choice(topic, partition, offset, stage, reason, since, until)
    if choice.everything and not everything:
        raise typer.BadParameter("choose what to correct (--topic, --reason, ...), or use --all")
    edits = _edits(assign, rename, remove, key_from_user)
    acceptance = Acceptance(context.obj)
    _write(context.obj, acceptance, choice, edits, file, overwrite)
    if edit:
        click.edit(filename=str(file))
    _show_problems(acceptance, file, as_json)


def _write(
    settings: Settings, acceptance: Acceptance, choice: Choice, edits: Edits, file: Path, overwrite: bool
) -> None:
    """Write the chosen dead letters to a file, one line per source record."""
    from deploy.dead_letters.corrections import line
    from deploy.dead_letters.reader import opened

    seen: set[int] = set()
    with opened(settings) as reader, _new(file, overwrite) as out:
        for dead_letter in reader.read(choice):
            mark = hash(dead_letter.source)
            if mark not in seen:  # after a crash, one record can have two dead letters: write one line
                seen.add(mark)
                out.write(json.dumps(line(acceptance, dead_letter, edits), ensure_ascii=False).encode() + b"\n")


def _show_problems(acceptance: Acceptance, file: Path, as_json: bool) -> None:
    """Print how many lines of the file the worker would accept now, and what is wrong with the others."""
    from deploy.dead_letters.corrections import still_wrong

    wrong: Counter[str] = Counter()
    lines = refused = 0
    for _, problems in still_wrong(acceptance, file):
        lines += 1
        refused += bool(problems)
        wrong.update(str(problem) for problem in problems)
    if as_json:
        print(json.dumps({"file": str(file), "letters": lines, "refused": refused, "wrong": dict(wrong)}))
        return
    print(
        f"{counted(lines, 'dead letter')} in {printable(str(file))}: {lines - refused:,} would be accepted now, {refused:,} not"
    )
    for problem, count in wrong.most_common(SHOWN):
        print(f"  {count:,} x {printable(problem)}")
    print(f"when they are correct, run: freshet deadletters redrive --corrected {printable(str(file))}")


@group.command()
def redrive(
    context: typer.Context,
    topic: Topic = None,
    partition: Partition = None,
    offset: Offset = None,
    stage: Stage = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    key: Key = None,
    value: Value = None,
    corrected: Corrected = None,
    everything: All = False,
    again: Annotated[bool, typer.Option("--again", help="Also send dead letters that were already sent back.")] = False,
    rate: Rate = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, but send nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Send dead letters back to their source topics, each once, and report what became of each.

    Letters that the worker would refuse again are not sent. Letters that were already sent back are skipped; the
    command finds them in their topics by the header `original-record`. Exit codes: 65 a dead letter is still unacceptable or
    truncated (the others are sent), 69 no broker, 78 topic missing.
    """
    from deploy.clients.producer import Producer
    from deploy.dead_letters import render
    from deploy.dead_letters.corrections import read
    from deploy.dead_letters.reader import opened
    from deploy.dead_letters.redrive import Redrive

    settings: Settings = context.obj
    choice = _choice(topic, partition, offset, stage, reason, since, until)
    if not everything and corrected is None and choice.everything:
        raise typer.BadParameter("choose what to send (--topic, --reason, ...), or use --all")
    corrections = read(corrected) if corrected else None
    with opened(settings) as reader:
        if key is not None or value is not None:
            corrections = _single(settings.key, reader, choice, corrections, key, value)
        if corrected and corrections:
            _all_there(reader, corrections, corrected)
        task = Redrive(settings, reader, choice, corrections, again)
        plan = task.plan()
        _warn(plan.unseen)
        if dry_run or not plan.anything:
            refused = render.report(settings, task.run(plan, None), plan, as_json)
        else:
            with Producer(settings, linger_ms=5) as producer:
                refused = render.report(settings, task.run(plan, producer, rate), plan, as_json)
    if refused:
        raise typer.Exit(DataError.exit_code)


def _single(
    form: str,
    reader: DeadLetterReader,
    choice: Choice,
    corrections: dict[Source, Correction] | None,
    key: str | None,
    value: str | None,
) -> dict[Source, Correction]:
    """Return the correction of the single chosen dead letter. form: form of keys, as in the setting `key`."""
    from deploy.dead_letters.corrections import Correction

    sources = set()
    for dead_letter in reader.read(choice):
        if corrections is None or dead_letter.source in corrections:
            sources.add(dead_letter.source)
            if len(sources) > 1:
                break
    if len(sources) != 1:
        many = "several" if sources else "none"
        raise typer.BadParameter(f"--key and --value correct exactly one dead letter, but {many} are chosen")
    try:
        named = None if key is None else key_of(key, form)
    except RecordError as error:
        raise typer.BadParameter(printable(f"--key: {error}")) from None
    return {sources.pop(): Correction(named, None if value is None else value.encode())}


def _all_there(reader: DeadLetterReader, corrections: dict[Source, Correction], file: Path) -> None:
    missing = set(corrections)
    for dead_letter in reader.read():
        missing.discard(dead_letter.source)
    if missing:
        raise DataError(f"{file}: no dead letter came from {'/'.join(min(missing))}")


def _choice(
    topic: str | None,
    partition: int | None,
    offset: int | None,
    stage: str | None,
    reason: str | None,
    since: str | None,
    until: str | None,
) -> Choice:
    from deploy.dead_letters.reader import Choice, moment

    times = []
    for name, text in (("--since", since), ("--until", until)):
        try:
            times.append(None if text is None else moment(text))
        except ValueError as error:
            raise typer.BadParameter(printable(f"{name} {text}: {error}")) from None
    return Choice(topic, partition, offset, stage, reason, *times)


def _edits(assign: list[str] | None, rename: list[str] | None, remove: list[str] | None, key_from_user: bool) -> Edits:
    from deploy.dead_letters.corrections import Edits

    def pairs(option: str, given: list[str] | None) -> list[tuple[str, str]]:
        found = [one.partition("=") for one in given or ()]
        for name, equals, text in found:
            if not name or not equals or any("\ud800" <= char <= "\udfff" for char in name + text):
                raise typer.BadParameter(printable(f"{option} {name}{equals}: expected name=value in UTF-8"))
        return [(name, text) for name, _, text in found]

    return Edits(pairs("--rename", rename), tuple(remove or ()), pairs("--set", assign), key_from_user)


def _new(file: Path, overwrite: bool) -> Any:
    """Open the file for writing, readable by its owner only: payloads may contain personal data."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if overwrite else os.O_EXCL)
        return os.fdopen(os.open(file, flags, 0o600), "wb")
    except FileExistsError:
        raise typer.BadParameter(
            f"{file} already exists and may contain corrections; --overwrite replaces it"
        ) from None
