"""The headers of a dead letter, and which of them are freshet's own."""

from __future__ import annotations

from deploy.clients.log_reader import Record

HEADER = "__rec.errors."
"""Prefix of the names of freshet's own headers."""


def headers(record: Record) -> dict[str, str]:
    """Return the `__rec.errors.` headers of a dead letter as text, with their full names."""
    return {
        name: (value or b"").decode("utf-8", "replace") for name, value in record.headers if name.startswith(HEADER)
    }
