"""Ctrl-C in a command that can report what it has done and how to continue."""

from __future__ import annotations

from stream.core.errors import FreshetError


class Interrupted(FreshetError):
    """The command was interrupted. The message says what has been done."""

    exit_code = 130
