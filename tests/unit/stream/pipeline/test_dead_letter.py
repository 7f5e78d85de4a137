"""A dead letter fits into its topic whatever the record was like; what was cut is said."""

from __future__ import annotations

from hashlib import sha256
from types import SimpleNamespace

import pytest

from stream.core.errors import RecordError
from stream.kafka.producer import Outgoing
from stream.pipeline.dead_letter import MAX_VALUE, DeadLetters

ROOM = MAX_VALUE + (64 << 10)  # what the topic takes


def letter(
    key: bytes | None = b"user1", value: bytes | None = b"{", headers: list[tuple[str, bytes]] | None = None
) -> tuple[Outgoing, dict[str, str]]:
    record = SimpleNamespace(offset=2**62, timestamp=1, key=key, value=value, headers=headers or [])
    error = RecordError("validate", "wrong_type", "item", "\U0001f600" * 1000)
    made = DeadLetters("f" * 64).letter("t" * 249, 4096, record, error)
    return made, {name: text.decode() for name, text in made.headers if name.startswith("__rec.errors.")}


def size(made: Outgoing) -> int:
    """Bytes of the record, with more around each part than Kafka's format has."""
    parts = [made.key or b"", made.value or b""]
    parts += [part for name, value in made.headers for part in (name.encode(), value)]
    return 100 + sum(len(part) + 5 for part in parts)


@pytest.mark.parametrize(
    ("key", "value", "headers", "cut"),
    [
        (b"k", b"v" * (MAX_VALUE - 1), [], False),
        (b"k", b"v" * MAX_VALUE, [], True),
        (b"k", b"v" * (20 << 20), [("h", b"x" * (1 << 20))], True),
        (b"k" * (MAX_VALUE + 1), b"v", [], True),
        (b"k" * (6 << 20), b"v" * (6 << 20), [("h", b"x" * (31 << 10))], True),
        (b"k", b"v" * (MAX_VALUE - 1), [("", b"")] * 200_000, False),
        (None, None, [("original-record", b"clicks/0/1")] * 200_000, False),
    ],
)
def test_it_fits(key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], cut: bool) -> None:
    made, errors = letter(key, value, headers)
    assert size(made) <= ROOM
    assert errors["__rec.errors.truncated"] == ("true" if cut else "false")
    assert errors["__rec.errors.payload.sha256"] == sha256(value or b"").hexdigest()
    if cut:
        assert (key or b"").startswith(made.key or b"")
        assert (value or b"").startswith(made.value or b"")
    else:
        assert (made.key, made.value) == (key, value)
