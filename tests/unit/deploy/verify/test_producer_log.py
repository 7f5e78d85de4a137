"""The producer's ledger: what was acknowledged is there, and a line that says nothing is refused by its number."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from deploy.verify import Report, Scope, check
from stream.core.errors import DataError
from tests.unit.deploy.verify.worlds import ALICE, eventful, small
from tests.unit.synthetic import PARTITIONS, World, partition_of


def line(world: World, topic: str, partition: int, offset: int, status: str = "acked", /, **fields: Any) -> str:
    row = world.log.topics[topic][partition][offset]
    sent: dict[str, object] = {
        "id": f"{topic}-{partition}-{offset}", "topic": topic, "partition": partition, "offset": offset,
        "key": (row.key or b"").decode(), "sha256": sha256(row.value or b"").hexdigest(), "status": status,
    }  # fmt: skip
    return json.dumps({name: value for name, value in (sent | fields).items() if value is not None})


def sends(world: World, folder: Path, *lines: str) -> Report:
    file = folder / "ledger.jsonl"
    file.write_text("\n".join(lines))
    return check(world.log, world.settings, scope=Scope(producer_log=file))


def everything(world: World, **fields: Any) -> list[str]:
    return [
        line(world, topic, partition, row.offset, **fields)
        for topic in world.settings.sources
        for partition in range(PARTITIONS)
        for row in world.log.topics[topic][partition]
    ]


def test_a_ledger_that_agrees(tmp_path: Path) -> None:
    world = eventful()
    report = sends(world, tmp_path, *everything(world))
    assert (report.acked, report.exit_code) == (300, 0)


def test_a_ledger_without_places_agrees_too(tmp_path: Path) -> None:
    world = small()
    report = sends(world, tmp_path, *everything(world, partition=None, offset=None))
    assert (report.acked, report.exit_code) == (6, 0)


def test_sends_of_which_the_producer_does_not_know(tmp_path: Path) -> None:
    world = small()
    partition = partition_of(ALICE)
    nowhere = sha256(b"never arrived").hexdigest()
    there = line(world, "ratings", partition, 0, "indeterminate", partition=None, offset=None)
    report = sends(
        world, tmp_path, there,
        line(world, "clicks", partition, 0, "indeterminate", partition=None, offset=None, sha256=nowhere),
        line(world, "comments", partition, 0, "failed", partition=None, offset=None),
        line(world, "clicks", partition, 0, "failed", sha256=nowhere),
    )  # fmt: skip
    assert (report.indeterminate, report.indeterminate_found) == (2, 1)
    assert (report.failed, report.failed_found) == (2, 1)
    assert report.exit_code == 0


def test_what_was_acked_is_not_found_again_for_another_send(tmp_path: Path) -> None:
    """Two sends of one value: the record that is there is the acked one's."""
    world = small()
    partition = partition_of(ALICE)
    again = line(world, "ratings", partition, 0, "indeterminate", partition=None, offset=None, id="again")
    report = sends(world, tmp_path, again, line(world, "ratings", partition, 0))
    assert (report.acked, report.indeterminate, report.indeterminate_found) == (1, 1, 0)


def test_a_send_is_known_by_its_header(tmp_path: Path) -> None:
    world = World()
    _, partition, offset = world.send(0, ALICE, headers=(("send-id", b"s-1"),))
    world.work()
    unknown = line(
        world, "clicks", partition, offset, "indeterminate", partition=None, offset=None, id="s-1", sha256="00" * 32
    )
    assert sends(world, tmp_path, unknown).indeterminate_found == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sha256": "00" * 32}, "another value"),
        ({"offset": 99}, "beyond the log's end"),
        ({"partition": None, "offset": None, "sha256": "00" * 32}, "nowhere"),
    ],
)
def test_an_acked_send_that_is_not_there(tmp_path: Path, fields: dict[str, object], says: str) -> None:
    world = small()
    report = sends(world, tmp_path, line(world, "clicks", partition_of(ALICE), 0, **fields))
    assert report.kinds == {"ledger": 1}
    assert says in report.violations[0].message
    assert f"send clicks-{partition_of(ALICE)}-0" in report.violations[0].message
    assert report.violations[0].user == ALICE


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("{", "line 2: found '{', expected one JSON object"),
        ("[]", "line 2: found '[]', expected one JSON object"),
        ("[" * 100_000, "expected one JSON object"),
        (b"\xff", "line 2: found '\ufffd', expected one JSON object"),
        ({"topic": "clickz"}, "line 2, topic: found 'clickz', expected one of clicks, ratings, comments"),
        ({"topic": 1}, "line 2, topic: found 1, expected one of clicks"),
        ({"partition": PARTITIONS}, "line 2, partition: found 2, expected 0 to 1, or none"),
        ({"partition": 10**4999}, "line 2, partition: found a number of more than 24 digits, expected 0 to 1"),
        ({"partition": -1}, "line 2, partition: found -1, expected 0 to 1"),
        ({"partition": True}, "line 2, partition: found True, expected 0 to 1"),
        ({"partition": 0.0}, "line 2, partition: found 0.0, expected 0 to 1"),
        ({"partition": "0"}, "line 2, partition: found '0', expected 0 to 1"),
        ({"offset": 10**4999}, "line 2, offset: found a number of more than 24 digits, expected 0 to 9223372036854775807"),
        ({"offset": 2**63}, "line 2, offset: found 9223372036854775808, expected 0 to 9223372036854775807"),
        ({"offset": -1}, "line 2, offset: found -1, expected 0 to"),
        ({"partition": None}, "line 2, offset: found 0, expected no offset, since there is no partition"),
        ({"status": "?"}, "line 2, status: found '?', expected one of acked, failed, indeterminate"),
        ({"id": None}, "line 2, id: found nothing, expected text or a whole number"),
        ({"id": 1.5}, "line 2, id: found 1.5, expected text or a whole number"),
        ({"key": 7}, "line 2, key: found 7, expected text, or none"),
        ({"sha256": "00"}, "line 2, sha256: found '00', expected 64 hex digits"),
        ({"sha256": None}, "line 2, sha256: found nothing, expected 64 hex digits"),
    ],
)  # fmt: skip
def test_a_ledger_that_cannot_be_read(tmp_path: Path, fields: dict[str, object] | str | bytes, says: str) -> None:
    world = small()
    good = line(world, "clicks", 0, 0)
    bad = (
        json_of(json.loads(good) | fields).encode()
        if isinstance(fields, dict)
        else fields if isinstance(fields, bytes) else fields.encode()
    )  # fmt: skip
    file = tmp_path / "ledger.jsonl"
    file.write_bytes(good.encode() + b"\n" + bad)
    with pytest.raises(DataError) as refused:
        check(world.log, world.settings, scope=Scope(producer_log=file))
    assert says in str(refused.value)
    assert str(refused.value).startswith(f"{file}, line 2")
    assert len(str(refused.value)) < 400


def json_of(fields: dict[str, object]) -> str:
    """As json.dumps, which refuses numbers of thousands of digits."""
    return "{" + ", ".join(
        f'"{name}": {"1" + "0" * 4999 if value == 10**4999 else json.dumps(value)}'
        for name, value in fields.items()
        if value is not None
    ) + "}"  # fmt: skip


def test_a_ledgers_line_is_of_the_partition_that_it_names_itself(tmp_path: Path) -> None:
    """Whatever else in the line looks like a partition."""
    world = small()
    fields = json.loads(line(world, "clicks", partition_of(ALICE), 0, sha256="00" * 32))
    for more in (
        {"note": {"partition": 1 - partition_of(ALICE)}} | fields,
        fields | {"note": {"partition": 1 - partition_of(ALICE)}},
        fields | {"note": {"partition": "x"}},
    ):
        for text in (json.dumps(more), json.dumps(more).replace('"partition"', r'"p\u0061rtition"', 1)):
            report = sends(world, tmp_path, text)
            assert (report.acked, report.kinds) == (1, {"ledger": 1})


def test_a_ledger_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read"):
        check(small().log, small().settings, scope=Scope(producer_log=tmp_path / "none.jsonl"))
