"""Ctrl-C in a command that has something to say: what is done, and how to go on."""

from __future__ import annotations

from stream.core.errors import FreshetError


class Interrupted(FreshetError):
    """The command was interrupted; the message says what was done."""

    exit_code = 130
