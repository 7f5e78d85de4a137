"""Finds which user a record's key stands for, by the setting `key`. Independent of the worker: only the standard library.

utf8: the id's bytes. json: the id as a JSON string with the escapes that RFC 8259 demands and no others. long: 8 bytes,
big-endian, two's complement, of the number that the id is in plain decimal.
"""

from __future__ import annotations

import json
import re
import struct

LONGEST_USER = 256
FORMS = ("utf8", "json", "long")
ANYONE = "*"
ANYONE_KEY = b"*"
"""User and key of the slate for unknown users, in every form."""

_ESCAPED = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SPECIAL = re.compile(r'["\\\x00-\x1f]')
_DECIMAL = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_LONG = struct.Struct(">q")


class Keys:
    """Reads and writes keys of one form. form: One of FORMS."""

    def __init__(self, form: str) -> None:
        self.form = form

    def of(self, user: str) -> bytes | None:
        """Return the key of a user's records; None if the form has no key for this id."""
        if self.form == "json":
            return b'"' + _SPECIAL.sub(_escaped, user).encode() + b'"'
        if self.form == "long":
            number = int(user) if _DECIMAL.fullmatch(user) else 2**63
            return _LONG.pack(number) if -(2**63) <= number < 2**63 else None
        return user.encode()

    def user(self, key: bytes | None) -> str | None:
        """Return the user who has this key; None if no user can have it.

        By the schemas a user has 1 to 256 characters, is not `*`, and holds no U+0000.
        """
        try:
            text = self._text(key or b"")
            known = self.of(text) == key
        except (ValueError, RecursionError, struct.error):
            return None
        return text if known and 1 <= len(text) <= LONGEST_USER and text != "*" and "\0" not in text else None

    def name(self, key: bytes | None) -> str:
        """Return a key for messages: the user, or the bytes as text if no user has it."""
        user = self.user(key)
        return (key or b"").decode(errors="replace") if user is None else user

    def _text(self, key: bytes) -> str:
        """Return the text in a key of this form. Raises ValueError, RecursionError or struct.error if it has another form."""
        if self.form == "long":
            return str(_LONG.unpack(key)[0])
        text = key.decode()
        if self.form == "json":
            text = json.loads(text)
            if not isinstance(text, str):
                raise ValueError("not a JSON string")
        return text


TEXT = Keys("utf8")


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPED.get(found[0]) or f"\\u{ord(found[0]):04x}"
