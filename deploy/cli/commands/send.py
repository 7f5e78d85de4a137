"""`freshet send`: send events and items to their topics."""

from __future__ import annotations

import json
import math
import sys
import time as clock
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.clients.printable import counted, printable
from stream.core import times
from stream.core.errors import DataError, RecordError
from stream.core.validation import Rules
from stream.settings import Settings

NAMED = 3
"""How many items a warning names."""

group = typer.Typer(no_args_is_help=True, help="Send events and items: a single one, or a file of them.")

User = Annotated[
    str | None, typer.Option(help="The user's id; also the record's key, in the form of the setting `key`.")
]
Item = Annotated[str | None, typer.Option(help="The item's id.")]


def moment(text: str) -> int:
    """Return --time in epoch ms. Raises typer.BadParameter.

    It accepts a whole number of epoch ms, or ISO 8601 (UTC if it names no zone).
    """
    if text.removeprefix("-").isdecimal() and text.isascii():
        return int(text)
    try:
        if text == "off":  # only the setting min_time has this value
            raise ValueError(text)
        return times.parse(text)
    except ValueError:
        raise typer.BadParameter(
            printable(
                f"found {text[:40]!r}, expected epoch milliseconds or an ISO time (2026-01-31T12:00:00Z)"
                f"{times.with_written(text)}"
            )
        ) from None


Time = Annotated[
    int | None,
    typer.Option(parser=moment, metavar="TIME", help="Epoch milliseconds or ISO 8601, UTC; default: now."),
]
Scene = Annotated[str | None, typer.Option(help="Where it happened: home, search, a site.")]
SlateOf = Annotated[
    str | None, typer.Option("--slate", help="The slate that led to the event. Stored, but not used yet.")
]
EventId = Annotated[
    str | None, typer.Option("--id", help="The event's id. If the user has already used it, the event is a duplicate.")
]
File = Annotated[
    Path | None, typer.Option(help="Send this JSONL file: one message per line, with the fields of docs/schemas.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    app.add_typer(group, name="send")


@group.command()
def click(
    context: typer.Context,
    user: User = None,
    item: Item = None,
    time: Time = None,
    scene: Scene = None,
    slate: SlateOf = None,
    rank: Annotated[
        int | None, typer.Option(help="The item's rank in that slate, from 0. Stored, but not used yet.")
    ] = None,
    dwell_ms: Annotated[
        int | None, typer.Option(help="How long the user stayed, in ms. Stored, but not used yet.")
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(
            help="What the user did: view, click, cart, purchase, like, dislike, skip, or a name of your own."
        ),
    ] = None,
    event: EventId = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Send a click: a user opened or chose an item, or did --action. Warns if the item is not in the topic `items`.

    Exit codes: 65 not acceptable, 69 no broker, 78 topic missing.
    """
    fields = {
        "user": user, "item": item, "time": time, "scene": scene, "slate": slate, "rank": rank, "dwell_ms": dwell_ms,
        "id": event, "action": action,
    }  # fmt: skip
    _send(context.obj, "click", fields, file, as_json)


@group.command()
def rating(
    context: typer.Context,
    user: User = None,
    item: Item = None,
    value: Annotated[float | None, typer.Option(help="The rating, within the setting rating_scale.")] = None,
    time: Time = None,
    scene: Scene = None,
    slate: SlateOf = None,
    event: EventId = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Send a rating: a user rated an item. Warns if the item is not in the topic `items`.

    Exit codes: 65 not acceptable, 69 no broker, 78 topic missing.
    """
    fields = {
        "user": user, "item": item, "time": time, "value": value, "scene": scene, "slate": slate, "id": event,
    }  # fmt: skip
    _send(context.obj, "rating", fields, file, as_json)


@group.command()
def comment(
    context: typer.Context,
    user: User = None,
    item: Item = None,
    text: Annotated[str | None, typer.Option(help="What the user wrote.")] = None,
    value: Annotated[float | None, typer.Option(help="The rating that came with the comment.")] = None,
    time: Time = None,
    scene: Scene = None,
    slate: SlateOf = None,
    event: EventId = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Send a comment: a user wrote about an item. Warns if the item is not in the topic `items`.

    Exit codes: 65 not acceptable, 69 no broker, 78 topic missing.
    """
    fields = {
        "user": user, "item": item, "time": time, "text": text, "value": value, "scene": scene, "slate": slate,
        "id": event,
    }  # fmt: skip
    _send(context.obj, "comment", fields, file, as_json)


@group.command("item")
def item_(
    context: typer.Context,
    item: Item = None,
    title: Annotated[str | None, typer.Option(help="The title that people see.")] = None,
    text: Annotated[str | None, typer.Option(help="What the item is about. BERT reads this text.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="A category of the item. May be repeated.")] = None,
    scene: Annotated[
        list[str] | None,
        typer.Option(help="Where the item may be shown. None: anywhere. May be repeated."),
    ] = None,
    available: Annotated[
        bool | None,
        typer.Option("--available/--unavailable", help="An unavailable item is known, but is not recommended."),
    ] = None,
    attributes: Annotated[
        str | None,
        typer.Option(
            help='What filters and rules can ask for, as JSON: {"price": 9.5, "brand": "Ada"}. {} clears them.'
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Send only the given fields. The item loses all its other fields.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Send a tombstone, which removes the item from the catalogue.")
    ] = False,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Add, change or remove an item of the catalogue. Exit codes: 65 not acceptable, 69 no broker, 78 topic missing.

    For an existing item, the command reads its newest record first and changes only the given fields. An empty text,
    category, scene or list of attributes clears the field. If two writers change an item at the same time, the later
    record replaces the other completely.
    """
    if remove:
        if not item:
            raise typer.BadParameter("--remove needs --item")
        _deliver(context.obj, context.obj.items_topic, iter([(item.encode(), None)]), as_json)
        return
    fields: dict[str, Any] = {
        "item": item, "title": title, "text": text, "categories": category, "scenes": scene, "available": available,
        "attributes": _object(attributes),
    }  # fmt: skip
    if file is None and item is not None:
        given = {name: value for name, value in fields.items() if value is not None}
        fields = _whole_item(context.obj, item, given, replace)
    _send(context.obj, "item", fields, file, as_json)


def _object(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(printable(f"--attributes: expected a JSON object: {error}")) from None


def _whole_item(settings: Settings, item: str, given: dict[str, Any], replace: bool) -> dict[str, Any]:
    """Return the item's fields to send: those of its newest record, changed by the given ones."""
    from deploy.clients.item_change import changed, cleared
    from deploy.clients.log_reader import KafkaLog

    for name, empty in (("text", ""), ("categories", [""]), ("scenes", [""]), ("attributes", {})):
        if given.get(name) == empty:
            given[name] = None
    whole = cleared(given)
    if replace:
        return whole
    # before anything is read: refuse what no worker would accept
    list(_checked("item", settings, iter([("", json.dumps({"title": ""} | whole).encode())])))
    log = KafkaLog(settings)
    try:
        found = changed(settings, log, given)
    finally:
        log.close()
    if found is None and "title" not in given:
        raise typer.BadParameter(printable(f"{item} is not in the catalogue: a new item requires --title"))
    return whole if found is None else found


def _send(settings: Settings, kind: str, fields: dict[str, Any], file: Path | None, as_json: bool) -> None:
    given = {name: value for name, value in fields.items() if value is not None}
    if file is not None and given:
        raise typer.BadParameter(f"--file contains whole messages; omit {', '.join(given)}")
    if file is None:
        needed = ("item", "title") if kind == "item" else ("user", "item")
        if missing := [f"--{name}" for name in needed if name not in given]:
            raise typer.BadParameter(f"expected --file, or {' and '.join(missing)}")
        if not math.isfinite(value := given.get("value", 0.0)):
            low, high = settings.rating_scale
            raise typer.BadParameter(
                f"--value: found {value}, expected a number from {low:g} to {high:g}, by rating_scale"
            )
        if kind != "item":
            given.setdefault("time", int(clock.time() * 1000))
        lines = iter([("", json.dumps(given).encode())])
    else:
        lines = _lines(file)
    topic = settings.items_topic if kind == "item" else settings.prefix + kind + "s"
    items: set[str] | None = None if kind == "item" else set()
    untitled: list[str] = []
    _deliver(settings, topic, _checked(kind, settings, lines, items, untitled), as_json, items)
    if untitled:
        print(printable(f"freshet: {_no_title(untitled)}"), file=sys.stderr, flush=True)


def _no_title(untitled: list[str]) -> str:
    """Return the warning about items without a title."""
    named = ", ".join(f"'{printable(item)}'" for item in untitled[:NAMED]) + (
        f" and {len(untitled) - NAMED:,} more" if len(untitled) > NAMED else ""
    )
    has, it = ("has", "it") if len(untitled) == 1 else ("have", "them")
    return (
        f"{counted(len(untitled), 'item')} {has} an empty title: {named}. Slates show only the id, and the model knows {it} "
        f"only by text and categories; to add a title: freshet send item --item ID --title TITLE"
    )


def _lines(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each line of a JSONL file as (where it is, in words for people; the line).

    Raises DataError if the file cannot be read or holds no message.
    """
    empty = True
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                if line.strip():
                    empty = False
                    yield f"{file}, line {number}: ", line.strip()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None
    if empty:
        raise DataError(f"{file}: empty, nothing sent; expected JSON lines, one message per line as in docs/schemas")


def _checked(
    kind: str,
    settings: Settings,
    lines: Iterator[tuple[str, bytes]],
    items: set[str] | None = None,
    untitled: list[str] | None = None,
) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield (key, value) of each message that a worker would accept.

    Add the items of events to `items`, and the items that have no title to `untitled`.

    Raises:
        RecordError: A message is not acceptable. The error names the line and the field.
    """
    from stream.core.envelopes import explained_item
    from stream.core.json_body import JsonDecoder
    from stream.core.keys import key_of
    from stream.core.messages import MESSAGES

    decoder: JsonDecoder[Any] = JsonDecoder(MESSAGES[kind])
    rules = Rules(settings.rating_scale, settings.oldest)
    for where, line in lines:
        try:
            message = decoder.decode(line)
            if kind == "item":
                key = message.item.encode()
                if untitled is not None and not message.title.strip():
                    untitled.append(message.item)
            else:
                _check(message, rules)
                key = key_of(message.user, settings.key)
        except RecordError as error:
            if kind == "item":
                error = explained_item(error, line)
            expected = f"; {_expected(kind)}" if where and not error.field else ""
            raise RecordError(error.stage, error.reason, error.field, f"{where}{error.named}{expected}") from None
        if items is not None:
            items.add(message.item)
        yield key, line


def _expected(kind: str) -> str:
    """Return the end of an error about a line that is not a JSON object: what is expected, and how to send a CSV."""
    expected = f"expected JSON lines, one {kind} per line as in docs/schemas/{kind}.json; "
    if kind == "item":
        return (
            f"{expected}to send a CSV of items, use `freshet replay FOLDER` with items.csv and the events (clicks.csv, "
            "ratings.csv or comments.csv) in the folder; --limit 0 sends only the items"
        )
    return f"{expected}to send a CSV, use `freshet replay FOLDER` with {kind}s.csv in the folder"


def _check(message: Any, rules: Rules) -> None:
    """Raise RecordError if a worker would not accept an event with these values now."""
    value = getattr(message, "value", None)
    if value is not None:
        rules.rating(value)
    rules.time(message.time, int(clock.time() * 1000), "now, by this machine's clock")


def _deliver(
    settings: Settings,
    topic: str,
    records: Iterator[tuple[bytes, bytes | None]],
    as_json: bool,
    items: set[str] | None = None,
) -> None:
    from deploy.clients.missing_items import Look
    from deploy.clients.producer import Producer

    checked = list(records)  # check the whole file before sending any of it
    look = Look(settings, items) if items else None
    with Producer(settings, linger_ms=5) as producer:
        futures = [producer.send(topic, key, value) for key, value in checked]
        positions = [producer.position(future) for future in futures]
    if as_json:
        print(json.dumps({"sent": len(positions), "records": [position._asdict() for position in positions]}))
    elif len(positions) == 1:
        print("{}/{}/{}".format(*positions[0]))
    else:
        print(f"{counted(len(positions), 'record')} sent to {topic}")
    if look is not None and (warning := look.warning()):
        print(f"freshet: {warning}", file=sys.stderr, flush=True)
