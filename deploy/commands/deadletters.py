"""`freshet deadletters`: what could not be taken, and sending it back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.errors import DataError
from stream.settings import Settings

if TYPE_CHECKING:
    from deploy.letters import Correction, Letter

group = typer.Typer(no_args_is_help=True, help="Show dead letters, and send them back to their topics.")

Topic = Annotated[str | None, typer.Option(help="Only those that came from this topic.")]
Partition = Annotated[int | None, typer.Option(help="Only those that came from this partition.")]
Offset = Annotated[int | None, typer.Option(help="Only the one that came from this offset.")]
Stage = Annotated[str | None, typer.Option(help="Only those of this stage.")]
Reason = Annotated[str | None, typer.Option(help="Only those of this reason.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


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
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """Show dead letters with stage, field and reason. Exit codes: 69 no broker, 78 topic missing."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    found = list(islice(_chosen(context.obj, topic, partition, offset, stage, reason), limit))
    if as_json:
        print(json.dumps({"letters": [letter.as_dict() for letter in found]}))
        return
    table = Table(title=f"{len(found):,} dead letters")
    for heading in ("source", "stage", "field", "reason", "message"):
        table.add_column(heading, overflow="fold")
    for letter in found:
        said = [letter.said[name] for name in ("stage", "field", "reason", "message")]
        table.add_row(escape("/".join(letter.source)), *map(escape, said))
    Console().print(table)


@group.command()
def replay(
    context: typer.Context,
    topic: Topic = None,
    partition: Partition = None,
    offset: Offset = None,
    stage: Stage = None,
    reason: Reason = None,
    key: Annotated[str | None, typer.Option(help="Send this key instead; needs one single letter.")] = None,
    value: Annotated[str | None, typer.Option(help="Send this value instead; needs one single letter.")] = None,
    corrected: Annotated[
        Path | None,
        typer.Option(help="JSONL of {topic, partition, offset, key?, value?}: only these letters, so corrected."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Needed where nothing narrows the choice.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Send dead letters back to where they came from, with their key and a `replay` header.

    A record that came as several dead letters (after a crash) is sent once. Each call sends again: what was sent before
    has a `replay` header in its topic. Exit codes: 65 truncated or a bad correction, 69 no broker, 78 topic missing.
    """
    from deploy import letters
    from deploy.producer import Producer

    settings: Settings = context.obj
    if not everything and corrected is None and all(one is None for one in (topic, partition, offset, stage, reason)):
        raise typer.BadParameter("name what to send (--topic, --reason, ...), or say --all")
    corrections = _corrections(corrected) if corrected else {}
    chosen = {letter.source: letter for letter in _chosen(settings, topic, partition, offset, stage, reason)}
    if corrected:
        if missing := corrections.keys() - chosen.keys():
            raise DataError(f"{corrected}: no dead letter came from {'/'.join(min(missing))}")
        chosen = {source: chosen[source] for source in corrections}
    if key is not None or value is not None:
        if len(chosen) != 1:
            raise typer.BadParameter(f"--key and --value correct one letter, {len(chosen)} are chosen")
        one = letters.Correction(*(None if part is None else part.encode() for part in (key, value)))
        corrections = dict.fromkeys(chosen, one)
    ready = [letters.outgoing(settings, letter, corrections.get(source)) for source, letter in chosen.items()]
    sent = []
    if ready and not dry_run:
        with Producer(settings, linger_ms=5) as producer:
            futures = [producer.send(*record) for record in ready]
            sent = [producer.place(future) for future in futures]
    if as_json:
        records = [place._asdict() for place in sent]
        print(json.dumps({"chosen": len(chosen), "sent": len(sent), "records": records}))
    else:
        print(f"{len(chosen):,} dead letters chosen, {len(sent):,} sent back")


def _chosen(
    settings: Settings,
    topic: str | None,
    partition: int | None,
    offset: int | None,
    stage: str | None,
    reason: str | None,
) -> Iterator[Letter]:
    from deploy import letters

    wanted = {"topic": topic, "partition": partition, "offset": offset, "stage": stage, "reason": reason}
    asked = {name: str(value) for name, value in wanted.items() if value is not None}
    return (
        letter for letter in letters.read(settings) if all(letter.said[name] == value for name, value in asked.items())
    )


def _corrections(file: Path) -> dict[tuple[str, str, str], Correction]:
    from deploy.letters import Correction

    found = {}
    try:
        for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                source = (str(row["topic"]), str(row["partition"]), str(row["offset"]))
                found[source] = Correction(*(_bytes(row.get(part)) for part in ("key", "value")))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise DataError(f"{file}, line {number}: expected {{topic, partition, offset, key?, value?}}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    return found


def _bytes(part: object) -> bytes | None:
    """A correction's key or value: text as it is, an object as JSON."""
    if part is None:
        return None
    return part.encode() if isinstance(part, str) else json.dumps(part, ensure_ascii=False).encode()
