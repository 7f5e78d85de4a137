"""Somebody else's text (ids, titles, messages, arguments) as a terminal may show it."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line: control and format characters, and what is no Unicode, are escaped."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
