"""What events and items may contain: one definition for the wire, `freshet send`, `freshet replay` and the readers of
data.

The structs of stream.core.messages define the fields and their ranges, so the JSON Schemas contain them, too.
stream.core.json_body reads messages by them. This module has the rules that schemas cannot express: ratings by a
deployment's scale, times by the clock, and ids that come as other types. Pure.

Names and prose that are too long: nothing cuts a user, an item or a scene, since two long names could become one. They
are refused everywhere. Titles, texts and categories that are too long are refused on the wire, by `freshet send`, and
in a log of freshet's own messages. Only a reader of a published data set may cut those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Final

from stream.core.errors import RecordError
from stream.core.messages import FUTURE_MS, MAX_ID
from stream.core.times import ahead, date, unit, with_hint

ID: Final = f"a text of 1 to {MAX_ID} characters"
USER: Final = "a user id other than `*`, without U+0000"
LATEST: Final = "at most one hour after"

_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")
_EXACT: Final = 2**53  # from here on, one float stands for several whole numbers
_DIGITS: Final = 30  # a longer text is not such a number, even with leading zeros


@dataclass(frozen=True)
class Rules:
    """Which of the values that the schemas allow one deployment accepts.

    Attributes:
        rating_scale: (min, max), both inclusive.
        oldest: The earliest time in epoch ms, by the setting `min_time`; 0: any.
    """

    rating_scale: tuple[float, float]
    oldest: int = 0

    def rating(self, value: float) -> float:
        """Return the value if it is on the scale. Raises RecordError if it is not."""
        low, high = self.rating_scale
        if not low <= value <= high:
            raise RecordError("validate", "rating_out_of_scale", "value", f"expected {scale(low, high)}, got {value!r}")
        return value

    def time(self, time: int, now_ms: int, now: str) -> int:
        """Return the time if it is neither too old nor in the future.

        Args:
            time: Epoch ms.
            now_ms: Epoch ms of the clock that judges.
            now: What `now_ms` is, for people.

        Raises:
            RecordError: It is too old or in the future; the error has the unit that the time is probably in.
        """
        if time < self.oldest:
            reason, expected, advice = "far_past", earliest(self.oldest), with_hint(time)
        elif time > now_ms + FUTURE_MS:
            reason, expected, advice = "far_future", f"{LATEST} {now}", with_hint(time) or ahead(time - now_ms)
        else:
            return time
        raise RecordError("validate", reason, "time", f"expected {expected}, got {time}{advice}", unit(time))


def earliest(oldest: int) -> str:
    """Return what is expected of a time, for people. `oldest` is in epoch ms."""
    return f"{date(oldest)} or later, by the setting min_time"


def scale(low: float, high: float) -> str:
    """Return a rating scale for people."""
    return f"{low:g} to {high:g}"


def identity(value: object, whole_floats: bool = False) -> str:
    """Return the id in a text or a whole number, as text.

    Args:
        value: The text or number.
        whole_floats: Read 12.0 and "12.0" as "12", for columns of numbers that a program has converted to floats. From
            2^53 on, a float could be one of several whole numbers, so it is refused. A Decimal is exact.

    Raises:
        RecordError: It is anything else. A null is not a user called "None".
    """
    text = value if isinstance(value, str) else ""
    if isinstance(value, bool):
        pass
    elif isinstance(value, Integral):
        text = str(int(value))
    elif whole_floats and isinstance(value, Real):
        number = float(value)
        text = str(int(number)) if abs(number) < _EXACT and number.is_integer() else ""
    elif whole_floats and isinstance(value, Decimal):
        text = str(int(value)) if value.is_finite() and value == int(value) else ""
    elif whole_floats and (found := _WHOLE.fullmatch(text)):
        text = found[1] if len(found[1]) <= _DIGITS and abs(int(found[1])) < _EXACT else ""
    if not 1 <= len(text) <= MAX_ID or not is_text(text):
        expected = f"{ID} or a whole number"
        raise RecordError("validate", "out_of_range", "id", f"id {shown(value)}: expected {expected}")
    return text


def is_text(value: object) -> bool:
    """Check whether this is a text that UTF-8 can encode. A lone surrogate is not."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def shown(value: object) -> str:
    """Return a value for people, never longer than a line."""
    if value is None:
        return "null"
    if isinstance(value, str) and len(value) > 40:
        return f"{value[:40] + '...'!r} ({len(value)} characters)"
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= 60 else text[:57] + "..."
