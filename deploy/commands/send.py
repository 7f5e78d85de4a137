"""`freshet send`: put events and items on their topics."""

from __future__ import annotations

import json
import time as clock
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.errors import DataError, RecordError
from stream.settings import Settings

group = typer.Typer(no_args_is_help=True, help="Send events and items, one or a file of them.")

User = Annotated[str | None, typer.Option(help="The user's id; also the record's key.")]
Item = Annotated[str | None, typer.Option(help="The item's id.")]
Time = Annotated[int | None, typer.Option(help="Epoch milliseconds, UTC; default: now.")]
Scene = Annotated[str | None, typer.Option(help="Where it happened: home, search, a site.")]
SlateOf = Annotated[str | None, typer.Option("--slate", help="The slate that led here; kept, not used yet.")]
EventId = Annotated[
    str | None, typer.Option("--id", help="The event's id; one that the user had before is a duplicate.")
]
File = Annotated[Path | None, typer.Option(help="JSONL: one message a line, fields as in docs/schemas.")]
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
        int | None, typer.Option(help="The item's place in that slate, from 0; kept, not used yet.")
    ] = None,
    dwell_ms: Annotated[int | None, typer.Option(help="How long the user stayed; kept, not used yet.")] = None,
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
    """A user opened or chose an item, or did --action with it. Exit codes: 65 not acceptable, 69 no broker, 78 topic missing."""
    said = {
        "user": user, "item": item, "time": time, "scene": scene, "slate": slate, "rank": rank, "dwell_ms": dwell_ms,
        "id": event, "action": action,
    }  # fmt: skip
    _send(context.obj, "click", said, file, as_json)


@group.command()
def rating(
    context: typer.Context,
    user: User = None,
    item: Item = None,
    value: Annotated[float | None, typer.Option(help="Within the setting rating_scale.")] = None,
    time: Time = None,
    scene: Scene = None,
    slate: SlateOf = None,
    event: EventId = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """A user rated an item. Exit codes: 65 not acceptable, 69 no broker, 78 topic missing."""
    said = {
        "user": user, "item": item, "time": time, "value": value, "scene": scene, "slate": slate, "id": event,
    }  # fmt: skip
    _send(context.obj, "rating", said, file, as_json)


@group.command()
def comment(
    context: typer.Context,
    user: User = None,
    item: Item = None,
    text: Annotated[str | None, typer.Option(help="What the user wrote.")] = None,
    value: Annotated[float | None, typer.Option(help="A rating with it.")] = None,
    time: Time = None,
    scene: Scene = None,
    slate: SlateOf = None,
    event: EventId = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """A user wrote about an item. Exit codes: 65 not acceptable, 69 no broker, 78 topic missing."""
    said = {
        "user": user, "item": item, "time": time, "text": text, "value": value, "scene": scene, "slate": slate,
        "id": event,
    }  # fmt: skip
    _send(context.obj, "comment", said, file, as_json)


@group.command("item")
def item_(
    context: typer.Context,
    item: Item = None,
    title: Annotated[str | None, typer.Option(help="What people see.")] = None,
    text: Annotated[str | None, typer.Option(help="What the item is about; read by BERT.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    scene: Annotated[
        list[str] | None, typer.Option(help="Where it may be shown; kept, not used yet; may be repeated.")
    ] = None,
    unavailable: Annotated[bool, typer.Option("--unavailable", help="Known, but not to be recommended.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Send a tombstone: the item leaves the catalogue.")] = False,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Add, change or remove an item of the catalogue. Exit codes: 65 not acceptable, 69 no broker, 78 topic missing."""
    if remove:
        if not item:
            raise typer.BadParameter("--remove needs --item")
        _deliver(context.obj, context.obj.items_topic, iter([(item.encode(), None)]), as_json)
        return
    said: dict[str, Any] = {"item": item, "title": title, "text": text, "categories": category, "scenes": scene}
    if unavailable:
        said["available"] = False
    _send(context.obj, "item", said, file, as_json)


def _send(settings: Settings, kind: str, said: dict[str, Any], file: Path | None, as_json: bool) -> None:
    given = {name: value for name, value in said.items() if value is not None}
    if file is not None and given:
        raise typer.BadParameter(f"--file holds whole messages; leave out {', '.join(given)}")
    if file is None:
        needed = ("item", "title") if kind == "item" else ("user", "item")
        if missing := [f"--{name}" for name in needed if name not in given]:
            raise typer.BadParameter(f"expected --file, or {' and '.join(missing)}")
        if kind != "item":
            given.setdefault("time", int(clock.time() * 1000))
        lines = iter([("", json.dumps(given).encode())])
    else:
        lines = _lines(file)
    topic = settings.items_topic if kind == "item" else settings.prefix + kind + "s"
    _deliver(settings, topic, _checked(kind, settings, lines), as_json)


def _lines(file: Path) -> Iterator[tuple[str, bytes]]:
    """(place for people, line) of a JSONL file."""
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                if line.strip():
                    yield f"{file}, line {number}: ", line.strip()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None


def _checked(kind: str, settings: Settings, lines: Iterator[tuple[str, bytes]]) -> Iterator[tuple[bytes, bytes | None]]:
    """(key, value) of messages that a worker would take. Raises RecordError naming the line and the field."""
    from stream.decoder import JsonDecoder
    from stream.events import MESSAGES

    decoder: JsonDecoder[Any] = JsonDecoder(MESSAGES[kind])
    low, high = settings.rating_scale
    for place, line in lines:
        try:
            message = decoder.decode(line)
            value = getattr(message, "value", None)
            if value is not None and not low <= value <= high:
                raise RecordError(
                    "validate", "rating_out_of_scale", "value", f"value {value!r}: expected {low:g} to {high:g}"
                )
        except RecordError as error:
            raise RecordError(error.stage, error.reason, error.field, f"{place}{error}") from None
        yield (message.item if kind == "item" else message.user).encode(), line


def _deliver(settings: Settings, topic: str, records: Iterator[tuple[bytes, bytes | None]], as_json: bool) -> None:
    from deploy.producer import Producer

    checked = list(records)  # all of a file, before any of it is sent
    with Producer(settings, linger_ms=5) as producer:
        futures = [producer.send(topic, key, value) for key, value in checked]
        places = [producer.place(future) for future in futures]
    if as_json:
        print(json.dumps({"sent": len(places), "records": [place._asdict() for place in places]}))
    elif len(places) == 1:
        print("{}/{}/{}".format(*places[0]))
    else:
        print(f"{len(places):,} records sent to {topic}")
