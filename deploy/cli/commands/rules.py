"""`freshet rules`: put, list and delete rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.clients.printable import printable
from stream.core.errors import DataError, RecordError
from stream.settings import Settings

if TYPE_CHECKING:
    from deploy.clients.producer import Sent
    from stream.core.rules import RuleBook

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

group = typer.Typer(
    no_args_is_help=True, help="Put, list and delete rules: block, only, boost, pin and cap (docs/rules.md)."
)


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    app.add_typer(group, name="rules")


@group.command()
def put(
    context: typer.Context,
    rule: Annotated[str | None, typer.Argument(help="The rule as JSON.")] = None,
    file: Annotated[Path | None, typer.Option(help="File with one rule per line (JSONL).")] = None,
    as_json: Json = False,
) -> None:
    """Put rules in force, in place of those with the same ids. All are checked before any is sent.

    Exit codes: 65 not acceptable or contradicts another rule, 69 no broker, 78 topic missing.
    """
    settings: Settings = context.obj
    if (rule is None) == (file is None):
        raise typer.BadParameter("expected a rule as JSON, or --file")
    lines = [("", rule.encode())] if rule is not None else _lines(file)
    book = _book(settings)
    records: list[tuple[bytes, bytes | None]] = []
    for where, line in lines:
        name = _checked(book, settings, where, line)
        book.apply([(book.current.offset + 1, name, line)])
        records.append((name, line))
    _send(settings, records, as_json)


@group.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List all rules, and why some are not in force. Exit codes: 69 no broker, 78 topic missing."""
    rules = _book(context.obj).current
    found: list[dict[str, Any]] = [
        {"rule": one.rule, "offset": rules.known[one.rule], "in_force": True, "message": _plain(one.message)}
        for one in rules.rules
    ]
    found += [
        {"rule": one.rule, "offset": one.offset, "in_force": False, "refused": one.message, "field": one.field}
        for one in rules.refused
    ]
    found.sort(key=lambda one: int(one["offset"]))
    if as_json:
        print(json.dumps({"rules": found, "offset": rules.offset}))
        return
    for one in found:
        if one["in_force"]:
            print(printable(json.dumps(one["message"], ensure_ascii=False)))
        else:
            field = f"{one['field']}: " if one["field"] else ""
            print(printable(f"{one['rule']} is not in force: {field}{one['refused']}"))
    if not found:
        print("there are no rules")


@group.command()
def delete(
    context: typer.Context,
    rules: Annotated[list[str], typer.Argument(help="Ids of the rules.")],
    as_json: Json = False,
) -> None:
    """Delete rules. Exit codes: 65 there is no such rule, 69 no broker, 78 topic missing."""
    settings: Settings = context.obj
    known = _book(settings).current.known
    if missing := [rule for rule in rules if rule not in known]:
        raise DataError(printable(f"there is no rule {missing[0]!r}; nothing was deleted"))
    _send(settings, [(rule.encode(), None) for rule in rules], as_json)


def _book(settings: Settings) -> RuleBook:
    from deploy.clients import rule_book
    from deploy.clients.log_reader import KafkaLog

    log = KafkaLog(settings)
    try:
        return rule_book.read(log, settings)
    finally:
        log.close()


def _checked(book: RuleBook, settings: Settings, where: str, line: bytes) -> bytes:
    """Return the key of a rule. Raises RecordError if it is not acceptable beside the others."""
    from stream.core.json_body import JsonDecoder
    from stream.core.messages import Rule
    from stream.core.rules import CONTRADICTION, active

    try:
        message = JsonDecoder(Rule).decode(line)
        if refusal := book.current.refusal(active(message, settings.key)):
            raise RecordError("validate", CONTRADICTION, "", refusal)
    except RecordError as error:
        raise RecordError(error.stage, error.reason, error.field, printable(f"{where}{error.named}")) from None
    return message.rule.encode()


def _plain(message: Any) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(message)
    return {name: value for name, value in fields.items() if value is not None}


def _lines(file: Path | None) -> list[tuple[str, bytes]]:
    try:
        lines = [] if file is None else file.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None
    return [(f"{file}, line {number}: ", line) for number, line in enumerate(lines, start=1) if line.strip()]


def _send(settings: Settings, records: list[tuple[bytes, bytes | None]], as_json: bool) -> None:
    from deploy.clients.producer import Producer

    with Producer(settings) as producer:
        futures = [producer.send(settings.rules_topic, key, value) for key, value in records]
        sent: list[Sent] = [producer.position(future) for future in futures]
    if as_json:
        print(json.dumps({"sent": len(sent), "records": [one._asdict() for one in sent]}))
    else:
        for one in sent:
            print("{}/{}/{}".format(*one))
