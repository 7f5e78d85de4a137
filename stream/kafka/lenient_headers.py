"""Names of record headers that are not UTF-8. Kafka promises text and checks nothing; aiokafka and kafka-python give up on the
whole partition. Here such a name is read with its bad bytes escaped (`\\xff`), and the record goes on like any other.
"""

from __future__ import annotations

from typing import Any


class Escaping(bytearray):
    """A buffer of records whose parts become text whatever they hold."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Part(part) if isinstance(at, slice) else part


class _Part(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, "backslashreplace")
