"""Counts the newest epoch of the topic `tables` again from the source topics (docs/tables.md), the plain slow way.

Of each user it keeps every choice, and pairs are counted once at the end, from the newest ones. It shares no code with the
tally: what is acceptable, the decay, the sums, the rows and the hash are computed here in other ways.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from deploy.clients.log_reader import Log, Record, Span, TopicPartition
from deploy.clients.printable import printable
from deploy.verify.accepted_settings import Accepts
from deploy.verify.fingerprints import LONGEST_POSITION, ORIGINAL_RECORD
from deploy.verify.report import Kind, Report, Violation
from deploy.verify.validator import Accepted, ForgetRequest, Validator
from stream.core.errors import DataError
from stream.settings import Settings

HISTORY: Final = 1024
MARKS: Final = 64
CLOSED: Final = b"e"
ROW: Final = b"i:"
UNTOLD: Final = ("epoch", "created", "hash")
ONE: Final = 1 << 20  # a choice of weight 1 at the landmark
PARTS: Final = 10  # a half-life is divided into 2^PARTS
MOST: Final = 20  # violations of each kind that are named
COMMENT: Final = 2

_POSITION = re.compile(rb"(.{1,249})/(0|[1-9]\d{0,9})/(0|[1-9]\d{0,18})")


class Choice(NamedTuple):
    """A choice. weight: Of its action, in units of 1/1024."""

    time: int
    topic: int
    offset: int
    item: str
    weight: int


@dataclass
class Published:
    """What the topic holds.

    Attributes:
        rows: Item -> its row, as JSON has it.
        closed: The newest closing record; None if there is none.
        offset: Its offset.
    """

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    closed: dict[str, Any] | None = None
    offset: int = -1


@dataclass
class Choices:
    """The choices of one user, by source topic, and the last ids."""

    kept: tuple[list[Choice], list[Choice], list[Choice]] = field(default_factory=lambda: ([], [], []))
    ids: tuple[list[object], list[object], list[object]] = field(default_factory=lambda: ([], [], []))


@dataclass(frozen=True)
class Counted:
    """What the events give. near: Item -> [[other item, sum], ...], as the rows have it."""

    count: Mapping[str, int]
    popular: Mapping[str, int]
    touched: Mapping[str, int]
    near: Mapping[str, list[list[Any]]]
    now: int


class Decay:
    """2^((time - landmark) / half-life), rounded down to a part of a half-life, in units of 1/ONE."""

    def __init__(self, landmark: int, half_life: int) -> None:
        self._landmark = landmark
        self._half_life = half_life
        parts = 1 << PARTS
        self._table = [_root((ONE**parts) << part) for part in range(parts)] if half_life else []

    def at(self, time: int) -> int:
        if not self._half_life:
            return ONE
        elapsed = time - self._landmark
        whole = elapsed // self._half_life
        value = self._table[((elapsed - whole * self._half_life) << PARTS) // self._half_life]
        return value << whole if whole >= 0 else value >> -whole


def _root(number: int) -> int:
    """Return the 2^PARTS-th root of a number, rounded down: as many square roots."""
    for _ in range(PARTS):
        number = math.isqrt(number)
    return number


def check_tables(
    log: Log, settings: Settings, accepts: Accepts, bundle: Path | None, report: Report, partitions: int
) -> None:
    """Check the newest epoch.

    Args:
        log: Where the records come from.
        settings: Settings of the deployment.
        accepts: The settings by which records were accepted.
        bundle: A bundle, or a folder of bundles, besides the setting `bundles`.
        report: Where to add what was found.
        partitions: Number of partitions of each source topic.

    Raises:
        DataError: The manifest of the epoch's bundle is not there.
        TopologyError: A topic is missing.
    """
    found = _read(log, settings.tables_topic, report)
    closed = found.closed
    if closed is None:
        report.note(Violation("no-epoch", f"{settings.tables_topic} has no epoch", topic=settings.tables_topic))
        return
    report.table_epoch, report.table_rows = closed["epoch"], len(found.rows)
    if _hash(found.rows, closed) != closed["hash"]:
        _violation(
            report,
            "table-stale",
            "the rows are not those of the newest closing record: the hash differs",
            found,
            settings,
        )
    spans = log.spans(settings.sources)
    if not _readable(closed, spans, found, settings, report):
        return
    inputs = _inputs(closed["bundle"], (bundle, settings.bundles))
    validator = Validator(partitions, accepts.rating_scale, accepts.oldest, accepts.envelope, settings.key)
    counted = _count(log, settings, closed, validator, inputs, partitions)
    _compare(counted, found, settings, report)


def _read(log: Log, topic: str, report: Report) -> Published:
    """Read the topic, and check that each epoch follows the one before, and that the newest record of each key has its form."""
    found = Published()
    wrong: dict[bytes, Violation] = {}
    for record in log.records(topic, log.spans([topic])):
        key = record.key or b""
        if key != CLOSED and not key.startswith(ROW):
            continue  # it says nothing of an epoch
        wrong.pop(key, None)
        try:
            if key == CLOSED:
                closed = _closed(record.value)
                _follows(closed, found.closed, topic, record.offset, report)
                found.closed, found.offset = closed, record.offset
            elif record.value is None:
                found.rows.pop(_item(key), None)
            else:
                row = _row(record.value, _item(key))
                found.rows[row["item"]] = row
        except (ValueError, RecursionError) as error:
            name = key.decode("utf-8", "replace")
            if key != CLOSED:
                found.rows.pop(name.removeprefix("i:"), None)
            message = f"the newest record with the key {printable(name[:60])!r} is not acceptable: {error}"
            wrong[key] = Violation("table-stale", message, topic=topic, partition=0, offset=record.offset)
    for violation in wrong.values():
        _add(report, violation)
    return found


def _follows(
    closed: Mapping[str, Any], before: Mapping[str, Any] | None, topic: str, offset: int, report: Report
) -> None:
    """Check that an epoch is newer than the one before."""
    if before is None:
        return
    if closed["epoch"] <= before["epoch"] or any(
        closed["offsets"].get(name, 0) < counted for name, counted in before["offsets"].items()
    ):
        message = f"epoch {closed['epoch']} after {before['epoch']}: its number or an offset goes back"
        report.add(Violation("table-stale", message, topic=topic, partition=0, offset=offset))


def _item(key: bytes) -> str:
    """Return the item of a row's key. Raises ValueError."""
    return key[len(ROW) :].decode()


def _row(value: bytes, item: str) -> dict[str, Any]:
    """Return the row in a record. Raises ValueError if it has not the form that docs/tables.md describes."""
    row = _object(value, ("item",), ("epoch", "count", "popular", "touched"), ())
    if row["item"] != item:
        raise ValueError("item: it is not that of the key")
    near = row.get("near")
    if not isinstance(near, list) or not all(
        isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) and _is_count(one[1]) for one in near
    ):
        raise ValueError("near: expected a list of [item, sum]")
    return row


def _closed(value: bytes | None) -> dict[str, Any]:
    """Return the closing record. Raises ValueError if it has not the form that docs/tables.md describes."""
    if value is None:
        raise ValueError("there is no value")
    closed = _object(
        value,
        ("hash", "bundle"),
        ("epoch", "landmark", "now", "near_half_life", "prior_half_life", "keep", "reach", "cap", "rows", "created"),
        ("back", "shrink", "decay"),
    )
    offsets = closed.get("offsets")
    if not isinstance(offsets, dict) or not all(map(_is_count, offsets.values())):
        raise ValueError("offsets: expected a first offset for each source partition")
    return closed


def _object(value: bytes, texts: Sequence[str], counts: Sequence[str], numbers: Sequence[str]) -> dict[str, Any]:
    """Return a JSON object with these fields: texts, whole numbers from 0, numbers from 0. Raises ValueError."""
    found = json.loads(value)
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")
    for name in texts:
        if not isinstance(found.get(name), str):
            raise ValueError(f"{name}: expected a text")
    for name in counts:
        if not _is_count(found.get(name)):
            raise ValueError(f"{name}: expected a whole number from 0")
    for name in numbers:
        one = found.get(name)
        if not isinstance(one, int | float) or isinstance(one, bool) or not 0 <= one < math.inf:
            raise ValueError(f"{name}: expected a number from 0")
    return found


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _readable(
    closed: Mapping[str, Any],
    spans: Mapping[TopicPartition, Span],
    found: Published,
    settings: Settings,
    report: Report,
) -> bool:
    """Return whether all that the epoch covers can be read."""
    for (topic, partition), span in spans.items():
        until = closed["offsets"].get(f"{topic}/{partition}", 0)
        if until > span.end:
            message = f"the epoch covers {topic}/{partition} up to {until}, and the log ends at {span.end}"
            _violation(report, "table-stale", message, found, settings)
            return False
        if until and span.start:
            report.unverifiable += 1
            message = f"the epoch cannot be counted again: {topic}/{partition} begins at {span.start}"
            report.note(Violation("deleted", message, topic=topic, partition=partition, offset=span.start))
            return False
    return True


def _inputs(bundle: str, folders: Iterable[Path | None]) -> dict[str, Any]:
    """Return `inputs` of the manifest of a bundle. Raises DataError."""
    for folder in folders:
        for path in (folder / bundle / "manifest.json", folder / "manifest.json") if folder is not None else ():
            if path.is_file() and sha256(raw := path.read_bytes()).hexdigest() == bundle:
                inputs: dict[str, Any] = json.loads(raw)["inputs"]
                return inputs
    raise DataError(
        f"--tables: the newest epoch has the choices and weights of the bundle {bundle[:12]}..., which is neither in the setting "
        "bundles nor given with --bundle"
    )


def _count(
    log: Log,
    settings: Settings,
    closed: Mapping[str, Any],
    validator: Validator,
    inputs: Mapping[str, Any],
    partitions: int,
) -> Counted:
    near = Decay(closed["landmark"], closed["near_half_life"])
    prior = Decay(closed["landmark"], closed["prior_half_life"])
    count: Counter[str] = Counter()
    popular: Counter[str] = Counter()
    touched: Counter[str] = Counter()
    ahead: defaultdict[str, Counter[str]] = defaultdict(Counter)
    now = 0

    def add(choice: Choice, times: int) -> None:
        count[choice.item] += times * (near.at(choice.time) * choice.weight // 1024)
        popular[choice.item] += times * (prior.at(choice.time) * choice.weight // 1024)
        touched[choice.item] += times

    for partition in range(partitions):
        users: defaultdict[bytes, Choices] = defaultdict(Choices)
        for behaviour, record, found in _events(log, settings, closed, validator, partition):
            user = users[found.user]
            kept, ids = user.kept[behaviour], user.ids[behaviour]
            if isinstance(found, ForgetRequest):
                for choice in sorted(kept)[-HISTORY:]:
                    add(choice, -1)
                kept.clear()
                ids.clear()
                continue
            identity = ("id", found.id) if found.id else _origin(record, settings.sources)
            if identity:
                if identity in ids[-MARKS:]:
                    continue
                ids.append(identity)
            now = max(now, found.time)
            if weight := _weight(behaviour, found, inputs):
                choice = Choice(found.time, behaviour, record.offset, found.item, weight)
                kept.append(choice)
                add(choice, 1)
        for user in users.values():
            newest = sorted(choice for kept in user.kept for choice in sorted(kept)[-HISTORY:])[-HISTORY:]
            for (first, second), amount in _pairs(newest, closed, near).items():
                ahead[first][second] += amount
    touched = +touched
    return Counted(count, popular, touched, _near(touched, count, ahead, closed, near.at(now)), now)


def _events(
    log: Log, settings: Settings, closed: Mapping[str, Any], validator: Validator, partition: int
) -> Iterator[tuple[int, Record, Accepted | ForgetRequest]]:
    """Yield the acceptable records of one partition of each topic, up to the epoch's offsets."""
    for behaviour, topic in enumerate(settings.sources):
        span = Span(0, closed["offsets"].get(f"{topic}/{partition}", 0))
        for record in log.records(topic, {(topic, partition): span}) if span.end else ():
            found = validator.validate(
                behaviour, partition, record.timestamp, record.key, record.value, record.offset, record.headers
            )
            if not isinstance(found, str):
                yield behaviour, record, found


def _origin(record: Record, topics: Sequence[str]) -> tuple[str, str] | None:
    """Return the position that the first header `original-record` names; None if there is none."""
    for name, value in record.headers:
        if name == ORIGINAL_RECORD:
            found = _POSITION.fullmatch((value or b"")[: LONGEST_POSITION + 1])
            named = found is not None and found[1].decode("latin-1") in topics
            return ("position", (value or b"").decode("latin-1")) if named else None
    return None


def _weight(behaviour: int, event: Accepted, inputs: Mapping[str, Any]) -> int:
    """Return the weight of an event as a choice, in units of 1/1024; 0 if it is none."""
    chosen = ("clicks", "ratings", "comments")[behaviour] in inputs["choices"]
    if not chosen or (behaviour == COMMENT and math.isnan(event.value)):
        return 0
    weight = float(inputs["weights"].get(event.action, 1.0)) if event.action else 1.0
    return max(1, round(weight * 1024)) if weight > 0 else 0


def _pairs(choices: Sequence[Choice], closed: Mapping[str, Any], near: Decay) -> Counter[tuple[str, str]]:
    """Return what a user adds to each pair."""
    addends: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for place, second in enumerate(choices):
        for distance in range(1, min(place, closed["reach"]) + 1):
            first = choices[place - distance]
            if first.item != second.item:
                share = round(closed["decay"] ** (distance - 1) * 4096)
                amount = near.at(second.time) * share // 4096 * math.isqrt(first.weight * second.weight) // 1024
                addends[first.item, second.item].append(amount)
    return Counter({pair: min(sum(some), closed["cap"] * max(some)) for pair, some in addends.items()})


def _near(
    items: Iterable[str],
    count: Mapping[str, int],
    ahead: Mapping[str, Counter[str]],
    closed: Mapping[str, Any],
    fresh: int,
) -> dict[str, list[list[Any]]]:
    """Return the best neighbours of each item."""
    back = round(closed["back"] * 1024)
    both: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for first, seconds in ahead.items():
        for second, amount in seconds.items():
            both[first][second] += amount * 1024
            both[second][first] += amount * back
    shrunk = closed["shrink"] * max(1, fresh)
    found = {}
    for item in items:
        ranked = []
        for other, total in both[item].items():
            below = math.sqrt(count[item]) * math.sqrt(count[other]) + shrunk
            if total:
                ranked.append((-(total / 1024 / below) if below else 0.0, other, total))
        found[item] = [[other, total] for _, other, total in sorted(ranked)[: closed["keep"]]]
    return found


def _compare(counted: Counted, found: Published, settings: Settings, report: Report) -> None:
    closed = found.closed or {}
    rows: dict[str, dict[str, Any]] = {
        item: {
            "item": item, "count": counted.count[item], "popular": counted.popular[item], "touched": counted.touched[item],
            "near": counted.near[item],
        }
        for item in counted.touched
    }  # fmt: skip
    for item in sorted(rows.keys() | found.rows.keys()):
        expected, there = rows.get(item), found.rows.get(item)
        if expected is None or there is None:
            message = f"item {item!r}: " + ("it has a row, and nobody has chosen it" if there else "its row is missing")
            _violation(report, "table-count", message, found, settings)
            continue
        for name in ("count", "popular", "touched"):
            if there[name] != expected[name]:
                message = f"item {item!r}: {name} {there[name]}, recounted {expected[name]}"
                _violation(report, "table-count", message, found, settings)
        if there["near"] != expected["near"]:
            message = f"item {item!r}: {_difference(there['near'], expected['near'])}"
            _violation(report, "table-pair", message, found, settings)
    if (closed["now"], closed["rows"]) != (counted.now, len(rows)):
        message = f"now {closed['now']} and {closed['rows']} rows, recounted {counted.now} and {len(rows)}"
        _violation(report, "table-stale", message, found, settings)
    elif _hash(rows, closed) != closed["hash"] and not report.kinds.keys() & {
        "table-count",
        "table-pair",
        "table-stale",
    }:
        _violation(report, "table-stale", "the hash is not that of the recounted epoch", found, settings)


def _difference(there: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]) -> str:
    """Return in words where two lists of neighbours differ first."""
    for place, (one, other) in enumerate(zip(there, expected, strict=False)):
        if one != other:
            return f"neighbour {place} is {one[0]!r} with {one[1]}, recounted {other[0]!r} with {other[1]}"
    return f"{len(there)} neighbours, recounted {len(expected)}"


def _hash(rows: Mapping[str, Mapping[str, Any]], closed: Mapping[str, Any]) -> str:
    """Return the hash of an epoch, as docs/tables.md describes it."""
    lines = [
        json.dumps({name: value for name, value in rows[item].items() if name != "epoch"}, **_PLAIN) + "\n"
        for item in sorted(rows)
    ]
    told = {
        name: repr(value) if isinstance(value, float) else value for name, value in closed.items() if name not in UNTOLD
    }
    return sha256("".join((*lines, json.dumps(told, **_PLAIN))).encode()).hexdigest()


_PLAIN: Final[dict[str, Any]] = {"sort_keys": True, "ensure_ascii": False, "separators": (",", ":")}


def _violation(report: Report, kind: Kind, message: str, found: Published, settings: Settings) -> None:
    """Report a violation; more than MOST of one kind are only counted."""
    _add(report, Violation(kind, message, topic=settings.tables_topic, partition=0, offset=found.offset))


def _add(report: Report, violation: Violation) -> None:
    if report.kinds[violation.kind] < MOST:
        report.add(violation)
    else:
        report.kinds[violation.kind] += 1
