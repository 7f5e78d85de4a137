"""Names of record headers that are not UTF-8.

Kafka specifies text but does not check it, and aiokafka and kafka-python fail on the whole partition. Here such a name
is read with its invalid bytes escaped (`\\xff`), and the record is processed like any other.
"""

from __future__ import annotations

from typing import Any


class Escaping(bytearray):
    """A buffer of records whose slices can always be decoded to text."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Part(part) if isinstance(at, slice) else part


class _Part(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, "backslashreplace")
