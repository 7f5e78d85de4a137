"""Somebody else's text (ids, titles, messages, arguments) as a terminal may show it."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line: control and format characters, and what is no Unicode, are escaped."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def marked(text: str) -> str:
    """The same for a console of rich, which takes `[red]` for a mark of its own."""
    from rich.markup import escape

    return escape(printable(text))


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it is not 1: `1 item`, `2,000 items`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
