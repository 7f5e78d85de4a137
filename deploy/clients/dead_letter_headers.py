"""The headers of a dead letter: which ones are freshet's own."""

from __future__ import annotations

from deploy.clients.log_reader import Record

HEADER = "__rec.errors."
"""How the names of freshet's own headers begin."""


def headers(record: Record) -> dict[str, str]:
    """The `__rec.errors.` headers of a dead letter as text, whole names."""
    return {
        name: (value or b"").decode("utf-8", "replace") for name, value in record.headers if name.startswith(HEADER)
    }
