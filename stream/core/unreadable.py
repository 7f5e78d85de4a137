"""What reading bytes that somebody else has written may raise. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
"""Raised by msgspec for bytes that are not what is expected. RecursionError: lists or objects that are nested very deeply, also
in fields that are not read. OverflowError: a number that cannot be written again."""
