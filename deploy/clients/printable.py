"""Makes text from outside (ids, titles, messages, arguments) safe to show in a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return the text as one line. Control and format characters, and what is not valid Unicode, are escaped."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def marked(text: str) -> str:
    """Return the same for a console of rich, which would read `[red]` as markup."""
    from rich.markup import escape

    return escape(printable(text))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if it is not 1: `1 item`, `2,000 items`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
