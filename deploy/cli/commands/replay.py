"""`freshet replay`: send the data of a folder as live traffic."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from deploy.cli import bounds
from deploy.cli.data_options import NONE_NAMED, ONE, MinTime, NamedColumns, load, oldest, with_columns
from deploy.cli.interrupted import Interrupted
from deploy.clients.message_keys import keyed, require_keys
from deploy.clients.printable import counted, printable
from stream.core.validation import Rules
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.clients.producer import Producer
    from models.data import DataSet, Message


Data = Annotated[
    Path, typer.Argument(help="Data folder or file in a known form (docs/data.md), or one file with named columns.")
]
Rate = Annotated[
    float,
    typer.Option(
        min=0,
        max=bounds.RATE,
        callback=bounds.number,
        help="Events per second; 0: as fast as the broker accepts them.",
    ),
]
Items = Annotated[
    bool, typer.Option("--items/--no-items", help="First send the items that are missing from the topic.")
]
Limit = Annotated[int | None, typer.Option(min=0, max=bounds.EVENTS, help="Maximum number of events, oldest first.")]
Again = Annotated[
    bool,
    typer.Option(
        "--again",
        help="Send all items and events, even if they are there already: removed items come back, changed ones are reset to "
        "DATA, and events are sent without ids and count again.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("replay", context_settings=ONE)(with_columns(replay))


def replay(
    context: typer.Context,
    data: Data,
    rate: Rate = 0.0,
    items: Items = True,
    limit: Limit = None,
    min_time: MinTime = None,
    columns: NamedColumns = NONE_NAMED,
    again: Again = False,
    as_json: Json = False,
) -> None:
    """Send a data folder's items, then its events in order, at a steady rate. Times in the messages are not changed.
    If a worker with these settings would not accept some of the data, the command reports it before it sends anything.

    An event keeps its id from DATA. An event without an id gets one derived from its content. The command reads the
    source topics first and skips what is already there. So each event counts once, even if a replay was cut off or
    repeated, or if the data have grown. An item that is in the topic `items` in any form (as sent, changed, unavailable
    or removed) is left as it is.

    Needs the extra `train` (polars). Exit codes: 65 not a known form, 69 no broker, 78 topic missing.
    """
    from models.data import item_messages
    from models.data.checked import require_accepted

    settings: Settings = context.obj
    since = oldest(min_time, settings)
    given = "rating_scale" in settings.model_fields_set
    found = load(data, columns, settings.rating_scale if given else None)
    # before any of it is sent
    require_accepted(found.name, found.events, Rules(settings.rating_scale, since), found.oldest)
    require_keys(found.name, found.events["user"].unique().to_list(), settings.key)
    catalogue = list(item_messages(found.items)) if items else []
    there = Existing() if again else _existing(settings, catalogue, found)
    if not as_json:
        for note in found.notes:
            print(printable(f"note: {note}"), file=sys.stderr, flush=True)
    chosen = len(found.events) if limit is None else min(limit, len(found.events))
    sent = _send_all(settings, found, catalogue, there, chosen, rate, again, as_json)
    if as_json:
        _print_json(found.name, sent, there)
    else:
        _print(found.name, sent, there)


@dataclass(frozen=True)
class Existing:
    """What of a data set the topics hold already.

    Attributes:
        items: Item id -> how it differs from the data; "" if it does not.
        events: Numbers of the events, in the order of the data.
    """

    items: dict[str, str] = field(default_factory=dict)
    events: set[int] = field(default_factory=set)


class Sent(NamedTuple):
    """What a replay sent.

    Attributes:
        items: The items.
        events: The events.
        already: Number of chosen events that were there already.
        seconds: How long it took to send the events.
    """

    items: Progress
    events: Progress
    already: int
    seconds: float


def _existing(settings: Settings, catalogue: list[Message], data: DataSet) -> Existing:
    """Read what is there already. Raises Interrupted."""
    from deploy.clients.already_sent import already_there
    from deploy.clients.log_reader import KafkaLog
    from deploy.clients.published_items import items_there

    try:
        log = KafkaLog(settings)
        try:
            items = items_there(log, settings.items_topic, catalogue)
            return Existing(items, already_there(log, settings, data.events))
        finally:
            log.close()
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing sent; run the same command to start again") from None


def _send_all(
    settings: Settings,
    data: DataSet,
    catalogue: list[Message],
    there: Existing,
    chosen: int,
    rate: float,
    again: bool,
    quiet: bool,
) -> Sent:
    """Send the items and the first `chosen` events that are not there yet. Raises Interrupted."""
    from deploy.clients.producer import Producer
    from models.data import event_messages

    already = sum(number < chosen for number in there.events)
    lacking = [message for message in catalogue if message.key.decode() not in there.items]
    left = (
        message
        for number, message in enumerate(islice(event_messages(data.events, ids=not again), chosen))
        if number not in there.events
    )
    items, events = Progress(len(lacking), "item"), Progress(chosen - already, "event")
    try:
        with Producer(settings, linger_ms=5) as producer:
            _send(producer, settings, lacking, 0.0, quiet, items)
            began = time.monotonic()
            _send(producer, settings, left, rate, quiet, events)
    except KeyboardInterrupt:
        go_on = "send all of it again" if again else "continue"
        raise Interrupted(f"interrupted: {items} and {events} sent; run the same command to {go_on}") from None
    return Sent(items, events, already, time.monotonic() - began)


def _print_json(name: str, sent: Sent, there: Existing) -> None:
    figures = {
        "source": name,
        "items": sent.items.sent,
        "events": sent.events.sent,
        "already": sent.already,
        "seconds": round(sent.seconds, 3),
        "items_already": len(there.items),
        "items_otherwise": {item: how for item, how in there.items.items() if how},
    }
    print(json.dumps(figures))


def _print(name: str, sent: Sent, there: Existing) -> None:
    from deploy.clients.published_items import notice

    were, them = ("was", "it") if sent.already == 1 else ("were", "them")
    print(
        f"{printable(name)}: {counted(sent.items.sent, 'item')} and {counted(sent.events.sent, 'event')} sent, "
        f"{sent.events.sent / max(sent.seconds, 1e-9):,.0f} events/s"
        + (
            f"; {counted(sent.already, 'event')} {were} there already (--again sends {them} again)"
            if sent.already
            else ""
        )
    )
    if line := notice(there.items):
        print(line)


@dataclass
class Progress:
    """How many of `total` records were sent.

    Attributes:
        total: Number of records to send.
        kind: What a record is, for people: item or event.
        sent: Number of records sent so far.
        unsure: How many of `sent` are not acknowledged yet.
    """

    total: int
    kind: str
    sent: int = 0
    unsure: int = 0

    def __str__(self) -> str:
        least = "at least " if self.unsure else ""
        return f"{least}{self.sent - self.unsure:,} of {counted(self.total, self.kind)}"


def _send(
    producer: Producer, settings: Settings, messages: Iterable[Message], rate: float, quiet: bool, progress: Progress
) -> None:
    """Send the messages at `rate`, never ahead of schedule, and wait until each is acknowledged.

    If sending falls behind, it catches up. `progress` is correct on return and after an exception.
    """
    import rich.progress

    began = time.monotonic()
    futures: list[Any] = []
    try:
        for message in rich.progress.track(messages, "sending", total=progress.total, disable=quiet, transient=True):
            if rate > 0 and (early := began + progress.sent / rate - time.monotonic()) > 0:
                time.sleep(early)
            key = keyed(message, settings.key).key
            futures.append(producer.send(settings.prefix + message.topic, key, message.value))
            progress.sent += 1
            if len(futures) >= 10_000:
                for future in futures[:5_000]:
                    producer.position(future)
                del futures[:5_000]
        for future in futures:
            producer.position(future)
    except KeyboardInterrupt:
        progress.unsure = sum(not producer.acknowledged(future) for future in futures)
        raise
