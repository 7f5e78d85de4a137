"""`freshet replay`: a data folder as live traffic."""

from __future__ import annotations

import json
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.dataoptions import (
    NONE_NAMED,
    MinTime,
    NamedColumns,
    load,
    oldest,
    with_columns,
)
from deploy.keyed import keyed, require_keys
from stream.settings import Settings
from stream.valid import Rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.producer import Producer
    from models.data import Message


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("replay")(with_columns(replay))


def replay(
    context: typer.Context,
    data: Annotated[
        Path, typer.Argument(help="Data folder or file in a known form (docs/data.md), or one with names of columns.")
    ],
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: as fast as the broker takes them.")] = 0.0,
    items: Annotated[
        bool, typer.Option("--items/--no-items", help="First send the items that the topic lacks.")
    ] = True,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many events, the oldest.")] = None,
    min_time: MinTime = None,
    columns: NamedColumns = NONE_NAMED,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Send all items and all events, whatever is there: removed items come back, changed ones are as in DATA again, "
            "events have no ids and count once more.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send a data folder's items, then its events in their order, at a steady rate. Times in the messages stay as they are.
    What a worker of these settings would not take is told before any of it is sent.

    Each event has an id made of the data and its number. The source topics are read first, and what is there already is left
    out: a replay that was cut off or repeated counts each event once. An item that the topic `items` has in any form (as sent,
    changed, unavailable or removed) is left as it is.

    Needs the extra `train` (polars). Exit codes: 65 not a known form, 69 no broker, 78 topic missing.
    """
    from deploy.catalogued import items_there, told
    from deploy.producer import Producer
    from deploy.replayed import already_there, id_prefix
    from deploy.verify.log import KafkaLog
    from models.data import event_messages, item_messages
    from models.data.checked import require_accepted

    settings: Settings = context.obj
    since = oldest(min_time, settings)
    given = "rating_scale" in settings.model_fields_set
    found = load(data, columns, settings.rating_scale if given else None)
    require_accepted(found.name, found.events, Rules(settings.rating_scale, since))  # before any of it is sent
    require_keys(found.name, found.events["user"].unique().to_list(), settings.key)
    catalogue = list(item_messages(found.items)) if items else []
    prefix, there, kept = "", set[int](), dict[str, str]()
    if not again:
        prefix = id_prefix(found.events)
        log = KafkaLog(settings)
        try:
            kept = items_there(log, settings.items_topic, catalogue)
            there = already_there(log, settings, prefix)
        finally:
            log.close()
    lacking = [message for message in catalogue if message.key.decode() not in kept]
    chosen = islice(event_messages(found.events, prefix), limit)
    left = (message for number, message in enumerate(chosen) if number not in there)
    with Producer(settings, linger_ms=5) as producer:
        announced = _send(producer, settings, lacking, 0.0, as_json)
        began = time.monotonic()
        events = _send(producer, settings, left, rate, as_json)
    seconds = time.monotonic() - began
    if as_json:
        said = {
            "source": found.name, "items": announced, "events": events, "already": len(there), "seconds": round(seconds, 3),
            "items_already": len(kept), "items_otherwise": {name: how for name, how in kept.items() if how},
        }  # fmt: skip
        print(json.dumps(said))
    else:
        print(
            f"{found.name}: {announced:,} items and {events:,} events sent, {events / max(seconds, 1e-9):,.0f} events/s"
            + (f"; {len(there):,} events were there already (--again sends them once more)" if there else "")
        )
        if line := told(kept):
            print(line)


def _send(producer: Producer, settings: Settings, messages: Iterable[Message], rate: float, quiet: bool) -> int:
    """Send at the rate, never faster; behind time it catches up -> how many. Waits for the acknowledgement of each in
    the end."""
    import rich.progress

    sent = 0
    began = time.monotonic()
    futures = []
    for message in rich.progress.track(messages, "sending", disable=quiet, transient=True):
        if rate > 0 and (early := began + sent / rate - time.monotonic()) > 0:
            time.sleep(early)
        key = keyed(message, settings.key).key
        futures.append(producer.send(settings.prefix + message.topic, key, message.value))
        sent += 1
        if len(futures) >= 10_000:
            for future in futures[:5_000]:
                producer.place(future)
            del futures[:5_000]
    for future in futures:
        producer.place(future)
    return sent
