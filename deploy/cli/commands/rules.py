"""`freshet rules`: put, list and delete rules."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.clients.printable import printable
from stream.core.errors import DataError, RecordError
from stream.settings import Settings

if TYPE_CHECKING:
    from deploy.clients.producer import Sent
    from stream.core.rules import Active, RuleBook

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

    Warns if a rule is expired, or names items, categories or attributes that no item has.

    Exit codes: 65 not acceptable or contradicts another rule, 69 no broker, 78 topic missing.
    """
    from deploy.clients.missing_items import Reading
    from deploy.clients.rule_doubts import WAIT, warnings
    from stream.core.rule_warnings import of_times

    settings: Settings = context.obj
    if (rule is None) == (file is None):
        raise typer.BadParameter("expected a rule as JSON, or --file")
    if rule is not None and os.path.isfile(rule):
        raise typer.BadParameter(printable(f"{rule} is a file: freshet rules put --file {rule}"))
    lines = [("", rule.encode())] if rule is not None else _lines(file)
    book = _book(settings)
    records: list[tuple[bytes, bytes | None]] = []
    sent: dict[str, Active] = {}
    for where, line in lines:
        checked = _checked(book, settings, where, line)
        key = checked.rule.encode()
        book.apply([(book.current.offset + 1, key, line)])
        records.append((key, line))
        sent[checked.rule] = checked
    put, rules = list(sent.values()), book.current.rules
    reading = Reading(settings, lambda log: warnings(log, settings.items_topic, put, rules))
    _send(settings, records, as_json)
    now = int(time.time() * 1000)
    for text in [*(f"{one.rule}: {text}" for one in put for text in of_times(one, now)), *reading.lines(WAIT)]:
        _say(text)


@group.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List the rules in force, one a line, as `put --file` reads them. Which of them do not apply now, and which rules are
    refused and why, is said on stderr. Exit codes: 69 no broker, 78 topic missing.
    """
    from stream.core.rules import ACTIVE, REFUSED, SCHEDULED
    from stream.core.times import date

    rules = _book(context.obj).current
    now = int(time.time() * 1000)
    times = {one.rule: (one.since, one.until) for one in rules.rules}
    found: list[dict[str, Any]] = [
        {
            "rule": one.rule, "offset": rules.known[one.rule], "in_force": True, "state": one.state(now),
            "message": _plain(one.message),
        }
        for one in rules.rules
    ]  # fmt: skip
    found += [
        {
            "rule": one.rule, "offset": one.offset, "in_force": False, "state": REFUSED, "refused": one.message,
            "field": one.field,
        }
        for one in rules.refused
    ]  # fmt: skip
    found.sort(key=lambda one: int(one["offset"]))
    if as_json:
        print(json.dumps({"rules": found, "offset": rules.offset}))
        return
    for one in found:
        if one["in_force"]:
            print(printable(json.dumps(one["message"], ensure_ascii=False)), flush=True)
            since, until = times[one["rule"]]
            if one["state"] == SCHEDULED:
                _say(f"{one['rule']} does not apply yet: since is {date(since)}")
            elif one["state"] != ACTIVE:
                _say(f"{one['rule']} does not apply any more: until was {date(until)}")
        else:
            field = f"{one['field']}: " if one["field"] else ""
            _say(f"{one['rule']} is not in force: {field}{one['refused']}")
    if not found:
        _say("there are no rules")


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
        lacking = ", ".join(map(repr, missing))
        left = ", ".join(repr(rule) for rule in rules if rule in known)
        remains = f": {left} {'remain' if len(rules) - len(missing) > 1 else 'remains'}" if left else ""
        raise DataError(
            printable(
                f"there {'are no rules' if len(missing) > 1 else 'is no rule'} {lacking}; nothing was deleted{remains}"
            )
        )
    _send(settings, [(rule.encode(), None) for rule in rules], as_json)


def _book(settings: Settings) -> RuleBook:
    from deploy.clients import rule_book
    from deploy.clients.log_reader import KafkaLog

    log = KafkaLog(settings)
    try:
        return rule_book.read(log, settings)
    finally:
        log.close()


def _checked(book: RuleBook, settings: Settings, where: str, line: bytes) -> Active:
    """Return a rule. Raises RecordError if it is not acceptable beside the others."""
    from stream.core.rules import CONTRADICTION, DECODER, active

    try:
        found = active(DECODER.decode(line), settings.key)
        if refusal := book.current.refusal(found):
            raise RecordError("validate", CONTRADICTION, "", refusal)
    except RecordError as error:
        expected = "; expected one rule per line" if where and error.stage == "decode" else ""
        raise RecordError(
            error.stage, error.reason, error.field, printable(f"{where}{error.named}{expected}")
        ) from None
    return found


def _say(text: str) -> None:
    """Print a line for people. The rules themselves are on stdout."""
    print(printable(f"freshet: {text}"), file=sys.stderr, flush=True)


def _plain(message: Any) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(message)
    return {name: value for name, value in fields.items() if value is not None}


def _lines(file: Path | None) -> list[tuple[str, bytes]]:
    try:
        lines = [] if file is None else file.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None
    found = [(f"{file}, line {number}: ", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(f"{file}: empty, nothing sent; expected JSON lines, one rule per line")
    return found


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
