"""`freshet bundles`: list bundles, activate one without a restart, go back, and see what became of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import bounds
from deploy.clients.printable import counted, printable
from stream.core.errors import DataError
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.clients.activations import Activations, Followed
    from deploy.clients.bundle_folder import Listed
    from deploy.clients.log_reader import KafkaLog

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Reason = Annotated[str, typer.Option(help="Why, for people: `freshet bundles history` shows it.")]
Wait = Annotated[
    float,
    typer.Option(
        min=0,
        max=bounds.SECONDS,
        callback=bounds.number,
        help="Maximum seconds to wait until every partition has switched.",
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Write the record and end at once.")]

POLL = 0.2
"""Seconds between two looks."""
QUIET = 5.0
"""Seconds without news after which what a worker has refused is final: all others have reported and switched."""

group = typer.Typer(
    no_args_is_help=True,
    help="List bundles, activate one without a restart, and go back to the one before (docs/swap.md).",
)


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    app.add_typer(group, name="bundles")


@group.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List the bundles in the folder of the setting `bundles`, the oldest first: id, time, data, figures, which one CURRENT
    names, and which one is activated. Exit codes: 65 the folder cannot be read, 69 no broker, 78 topic missing.
    """
    from deploy.clients import activations, bundle_folder

    settings: Settings = context.obj
    found = bundle_folder.listed(settings.bundles)
    with _log(settings) as log:
        newest = activations.followed(log, settings).newest
    activated, current = newest.bundle if newest else "", bundle_folder.current(settings.bundles)
    if as_json:
        rows = [
            one._asdict()
            | {"data": dict(one.data), "metrics": dict(one.metrics)}
            | {"current": one.bundle == current, "activated": one.bundle == activated}
            for one in found
        ]
        print(json.dumps({"bundles": rows, "current": current or None, "activated": activated or None}))
        return
    for one in found:
        print(printable(_line(one, current, activated)), flush=True)
    if not found:
        _say(f"{settings.bundles.absolute()} holds no bundle: `freshet export RUN` makes one")
    if activated and activated not in {one.bundle for one in found}:
        _say(f"the activated bundle {activated} is not in {settings.bundles.absolute()}")
    if activated and current and activated != current:
        _say("CURRENT and the activation differ: workers serve the activated bundle")


@group.command()
def activate(
    context: typer.Context,
    bundle: Annotated[str, typer.Argument(metavar="ID", help="The bundle's id, or its first digits.")],
    reason: Reason = "",
    wait: Wait = 120.0,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Have all workers and gateways serve a bundle, without a restart. It is checked first, as a worker would: every hash, and
    the golden vectors. Then wait until every worker has reported and every partition has switched.

    Exit codes: 1 a worker or gateway has refused it, 3 not all have switched in time, 65 the bundle cannot be used, 69 no
    broker, 78 topic missing, or a setting contradicts the bundle.
    """
    from deploy.clients import bundle_folder

    settings: Settings = context.obj
    _activate(settings, bundle_folder.find(settings.bundles, bundle), reason, 0.0 if no_wait else wait, as_json)


@group.command()
def rollback(
    context: typer.Context,
    reason: Reason = "",
    wait: Wait = 120.0,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Activate the bundle that was in force before the newest activation.

    Exit codes: as of `freshet bundles activate`; 65 also if there is no bundle before.
    """
    from deploy.clients import activations, bundle_folder

    settings: Settings = context.obj
    with _log(settings) as log:
        known = activations.followed(log, settings)
    newest = known.newest
    if newest is None:
        raise DataError("nothing was activated yet, so there is nothing to go back to")
    before = known.before(bundle_folder.current(settings.bundles))
    if not before:
        raise DataError(
            f"before {newest.bundle[:12]}... no other bundle was in force, as far as the topic and CURRENT say: choose one of "
            "`freshet bundles list`, and `freshet bundles activate ID`"
        )
    chosen = bundle_folder.find(settings.bundles, before)
    _activate(settings, chosen, reason or f"rollback of {newest.bundle[:12]}", 0.0 if no_wait else wait, as_json)


@group.command()
def history(context: typer.Context, as_json: Json = False) -> None:
    """Show all activations, the oldest first: time, bundle, reason, seconds until all partitions had switched, and who has
    refused it and why. Exit codes: 69 no broker, 78 topic missing.
    """
    from deploy.clients import activations
    from stream.core.times import date

    settings: Settings = context.obj
    with _log(settings) as log:
        found, count = activations.followed(log, settings), activations.partitions(log, settings)
    if as_json:
        print(json.dumps({"activations": [_summary(one, count) for one in found.entries.values()]}))
        return
    for one in found.entries.values():
        took = one.seconds(count)
        what = (
            f"switched in {took:.1f} s" if took is not None else f"{len(one.switched)} of {count} partitions switched"
        )
        print(printable(f"{one.number} {date(one.time)} {one.bundle[:12]} {what}  {one.reason}".rstrip()), flush=True)
        _refusals(one)
    if not found.entries:
        _say("nothing was activated yet: workers serve the bundle that CURRENT names")


def _activate(settings: Settings, bundle: str, reason: str, wait: float, as_json: bool) -> None:
    from deploy.clients import activations, admin
    from deploy.clients.producer import Producer
    from stream.core import bundle_log

    if len(reason) > bundle_log.MAX_REASON:
        raise typer.BadParameter(f"--reason: {len(reason)} characters, expected at most {bundle_log.MAX_REASON}")
    with _log(settings) as log:
        known = activations.followed(log, settings)
        count = activations.partitions(log, settings)
        _check(settings, bundle)
        record = bundle_log.Activate(bundle, int(time.time() * 1000), reason)
        with Producer(settings) as producer:
            future = producer.send(settings.bundles_topic, bundle_log.key_of(record), bundle_log.encode(record))
            number = producer.position(future).offset
        # until it is read back: an acknowledged record may be hidden from readers for a moment
        known.entries.setdefault(number, activations.Followed(number, bundle, record.time, reason))
        workers = admin.workers(settings) if wait else 0
        if not as_json:
            _say(f"{bundle} is activated: number {number} of {settings.bundles_topic}")
        done = _await(log, settings, known, number, count, workers or 0, wait) if wait and workers != 0 else None
    if done is None:
        if as_json:
            print(json.dumps({"activation": number, "bundle": bundle, "workers": workers if wait else None}))
        elif wait:
            _say("no worker runs: the next one to start serves it")
        return
    took = done.seconds(count)
    if as_json:
        print(json.dumps(_summary(done, count) | {"workers": workers}))
    elif took is not None:
        print(f"{counted(count, 'partition')} switched in {took:.1f} s", flush=True)
    else:
        print(f"{len(done.switched)} of {counted(count, 'partition')} switched", flush=True)
    if not as_json:
        _refusals(done)
    if done.refused:
        raise typer.Exit(1)
    if took is None:
        if not as_json:
            _say(_unfinished(done, wait))
        raise typer.Exit(3)


def _check(settings: Settings, bundle: str) -> None:
    """Load a bundle as a worker does, on the CPU. Raises BundleError and SettingsError."""
    from stream.inference.bundle import load
    from stream.inference.models import open_models
    from stream.inference.serving import check_fit
    from stream.inference.text_encoder import open_encoder

    loaded = load(settings.bundles / bundle)
    check_fit(settings, loaded)
    open_models(loaded, "cpu")
    open_encoder(loaded, "cpu")


def _await(
    log: KafkaLog, settings: Settings, known: Activations, number: int, count: int, workers: int, wait: float
) -> Followed:
    """Return the activation once it is final: all have switched, or those that will not have said so; or the time is up."""
    from deploy.clients import activations

    deadline = time.monotonic() + wait
    news = time.monotonic()
    offset = number
    while True:
        entries, offset = activations.read(log, settings.bundles_topic, offset)
        known.apply(entries)
        if entries:
            news = time.monotonic()
        mine = known.entries[number]
        reported = mine.reports() >= workers
        newer = known.newest is not None and known.newest.number > number
        quiet = time.monotonic() - news > QUIET
        if reported and (mine.seconds(count) is not None or (mine.refused and quiet)):
            return mine
        if newer or time.monotonic() >= deadline:
            return mine
        time.sleep(POLL)


def _unfinished(found: Followed, wait: float) -> str:
    reported = counted(found.reports(), "worker")
    return (
        f"not every partition has switched within {wait:g} s, or another bundle was activated meanwhile ({reported} had loaded "
        "it): `freshet bundles history` shows how it goes on, and the workers' logs say what holds them up"
    )


def _summary(one: Followed, partitions: int) -> dict[str, Any]:
    return {
        "activation": one.number, "bundle": one.bundle, "time": one.time, "reason": one.reason,
        "partitions": partitions, "switched": len(one.switched), "seconds": one.seconds(partitions),
        "loaded": [
            {"worker": name, "process": report.process, "seconds": report.seconds}
            for name, report in one.loaded.items()
        ],
        "refused": [
            {"worker": name, "process": report.process, "reason": report.reason}
            for name, report in one.refused.items()
        ],
    }  # fmt: skip


def _refusals(one: Followed) -> None:
    for name, report in one.refused.items():
        _say(f"{report.process} {name} has refused {one.bundle[:12]} and serves what it had: {report.reason}")


def _line(one: Listed, current: str, activated: str) -> str:
    from stream.core.times import date

    marks = [mark for mark, of in (("CURRENT", current), ("activated", activated)) if one.bundle == of]
    if one.unusable:
        return f"{one.bundle}  unusable: {one.unusable}" + _marked(marks)
    events = one.data.get("events")
    data = str(one.data.get("name", "unknown data")) + (f", {counted(events, 'event')}" if type(events) is int else "")
    figures = ", ".join(f"{name} {value:.4f}" for name, value in one.metrics.items() if isinstance(value, float | int))
    return f"{one.bundle}  {date(one.created)}  {data}  {figures}".rstrip() + _marked(marks)


def _marked(marks: Iterable[str]) -> str:
    text = ", ".join(marks)
    return f"  [{text}]" if text else ""


def _say(text: str) -> None:
    """Print a line for people on stderr."""
    print(printable(f"freshet: {text}"), file=sys.stderr, flush=True)


@contextmanager
def _log(settings: Settings) -> Iterator[KafkaLog]:
    from deploy.clients.log_reader import KafkaLog

    log = KafkaLog(settings)
    try:
        yield log
    finally:
        log.close()
