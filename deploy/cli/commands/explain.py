"""`freshet explain`: why a user is recommended an item, or why not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.clients.printable import counted, marked, printable
from stream.core.errors import DataError, RecordError
from stream.settings import DEFAULT_PLACEMENT, Settings

if TYPE_CHECKING:
    from rich.table import Table

    from deploy.clients.explained import Found


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("explain")(explain)


def explain(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="The user's id.")],
    item: Annotated[str, typer.Argument(help="The item's id; it need not be in the slate.")],
    placement: Annotated[str, typer.Option(help="The placement of the slate.")] = DEFAULT_PLACEMENT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show why a user is recommended an item, or why not: the parts of its score, and the events that have moved it.

    It reads the user's state, the items and the rules from Kafka and scores them with the current bundle, as a worker
    does. It needs neither a worker nor a gateway, and writes nothing. With a large changelog it takes a while, as it
    reads the user's partition from the beginning.

    Exit codes: 65 no such user, item or placement, or bad bundle; 69 no broker, 78 topic missing or wrong settings.
    """
    from deploy.clients.explained import explain as explained
    from deploy.clients.log_reader import KafkaLog

    settings: Settings = context.obj
    log = KafkaLog(settings)
    try:
        found = explained(log, settings, user, item, placement)
    except RecordError as error:
        raise typer.BadParameter(printable(f"USER: {error}")) from None
    except DataError as error:
        raise DataError(printable(str(error))) from None
    finally:
        log.close()
    if as_json:
        print(json.dumps(_document(found, user, item)))
    else:
        _show(found, user, item)


def _document(found: Found, user: str, item: str) -> dict[str, Any]:
    import msgspec

    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    explanation = msgspec.to_builtins(found.explanation)
    return {"user": user, "item": item} | fields | {"explanation": explanation}


def _show(found: Found, user: str, item: str) -> None:
    from msgspec import UNSET
    from rich.console import Console

    console = Console()
    name = f"{item}, {found.title}" if found.title else item
    place = "not in the slate" if found.place is None else f"place {found.place + 1} of the slate"
    print(printable(f"{name} for {user} after {counted(found.seq, 'event')}: {place}"))
    console.print(_parts(found))
    if found.explanation.events:
        console.print(_events(found))
    if (moved := found.explanation.diversity) is not UNSET:
        before = "none" if moved.before is None else str(moved.before + 1)
        print(
            f"diversity {moved.strength:g}: by score place {before}, re-ranked place {moved.after + 1}; quality "
            f"{moved.quality:+.4f}, gain {moved.gain:+.4f}"
        )
    print(printable(found.explanation.text))
    if found.why_not:
        print(printable(f"not in the slate: {found.why_not}"))


def _parts(found: Found) -> Table:
    """Return the table of the parts of the score."""
    from msgspec import UNSET
    from rich.table import Table

    explanation = found.explanation
    parts = explanation.parts
    table = Table()
    table.add_column("part")
    table.add_column("of")
    table.add_column("score", justify="right")
    rows = [("interest", "", parts.interest)]
    if explanation.earlier:
        rows.append(("", "events before the last 64, texts of comments", explanation.earlier))
    rows.append(("neighbours", "", parts.neighbours))
    rows += [
        ("", one.item if one.title is UNSET else f"{one.item}, {one.title}", one.part)
        for one in explanation.neighbours
    ]  # fmt: skip
    if explanation.texts:
        rows.append(("text", "", parts.text))
    rows += [
        ("", one.item if one.title is UNSET else f"{one.item}, {one.title}", one.part)
        for one in explanation.texts
    ]  # fmt: skip
    rows += [("popularity", "", parts.popularity), ("rules", "", parts.rules)]
    rows += [("", f"boost {one.rule}: {one.factor:g} times the odds", one.part) for one in explanation.boosts]
    if explanation.pin is not UNSET:
        rows.append(("", f"pin {explanation.pin.rule}: place {explanation.pin.place + 1}", explanation.pin.part))
    for part, of, score in rows:
        number = f"{score:+.4f}"
        table.add_row(part, marked(of), number if part else f"({number})")
    table.add_section()
    table.add_row("sum", "", f"{found.score:+.4f}")
    return table


def _events(found: Found) -> Table:
    """Return the table of the events that have moved the interest most."""
    from msgspec import UNSET
    from rich.table import Table

    table = Table(title="the last events that have moved the interest most")
    for name in ("event", "item", "title", "value"):
        table.add_column(name)
    table.add_column("moved", justify="right")
    for one in found.explanation.events:
        kind = one.type if one.action is UNSET else f"{one.type} ({one.action})"
        value = "" if one.value is UNSET else f"{one.value:g}"
        title = "" if one.title is UNSET else one.title
        table.add_row(marked(kind), marked(one.item), marked(title), value, f"{one.moved:+.4f}")
    return table
