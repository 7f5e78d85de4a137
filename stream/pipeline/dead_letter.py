"""Dead letters: a record that cannot be accepted is kept as received, with the place and the reason in its headers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import version

from stream.core.errors import RecordError
from stream.core.messages import DeadLetterHeaders
from stream.core.origin import MAX_ORIGIN, ORIGINAL_RECORD_HEADER
from stream.kafka.batch import Record
from stream.kafka.producer import Outgoing

MAX_VALUE = 4 << 20  # bytes of key and value together; the topic allows 64 KiB more for the headers
MAX_HEADERS = 32 << 10  # bytes of the received headers that are kept
FRAME = 10  # maximum bytes around one header, so that empty headers count, too
MAX_MESSAGE = 512

_NAMES = dict(zip(DeadLetterHeaders.__struct_fields__, DeadLetterHeaders.__struct_encode_fields__, strict=True))


class DeadLetters:
    """Creates dead letters for this process.

    Args:
        model: Hex id of the bundle in use.
        now: Returns the time in epoch ms.
    """

    def __init__(self, model: str, now: Callable[[], int] = lambda: int(time.time() * 1000)) -> None:
        self._now = now
        self._fixed = {"app_version": version("freshet"), "model_sha256": model, "host": socket.gethostname()}

    def use(self, model: str) -> None:
        """Name another bundle from here on; `model` is its hex id."""
        self._fixed["model_sha256"] = model

    def letter(self, topic: str, partition: int, record: Record, error: RecordError) -> Outgoing:
        """Return the dead letter of one record. Its headers are those of DeadLetterHeaders, then the received ones."""
        value = record.value or b""
        key = record.key and record.key[:MAX_VALUE]
        room = MAX_VALUE - len(key or b"")
        cut = len(value) > room or key != record.key
        fields = {
            "topic": topic,
            "partition": str(partition),
            "offset": str(record.offset),
            "stage": error.stage,
            "reason": error.reason,
            "field": error.field,
            "exception": type(error).__name__,
            "message": _printable(str(error)),
            "attempt": "1",
            "failed_at": str(self._now()),
            "appended_at": str(record.timestamp),
            "payload_sha256": sha256(value).hexdigest(),
            "truncated": "true" if cut else "false",
            **self._fixed,
        }
        headers = [(_NAMES[name], text.encode()) for name, text in fields.items()]
        headers += _received(record)
        return Outgoing(key, record.value and record.value[:room], headers)


def _received(record: Record) -> list[tuple[str, bytes]]:
    """Return the record's own headers as far as they fit, without those that imitate ours.

    The first `original-record` names the record that was sent back, and is kept in any case. If it cannot be a place,
    it is dropped, and no later one replaces it.
    """
    kept: list[tuple[str, bytes]] = []
    size = 0
    named = False
    for name, value in record.headers or ():
        if name.startswith("__rec.errors."):
            continue
        if name == ORIGINAL_RECORD_HEADER:
            if not named and len(value or b"") <= MAX_ORIGIN:
                kept.append((name, value))
            named = True
            continue
        size += FRAME + len(name.encode()) + len(value or b"")
        if size <= MAX_HEADERS:
            kept.append((name, value))
    return kept


def _printable(message: str) -> str:
    return "".join(char if char.isprintable() else " " for char in message)[:MAX_MESSAGE]
