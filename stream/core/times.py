"""Times as people and files write them: their unit, and the oldest time that is accepted. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

MIN_TIME: Final = "2000-01-01"
"""The default of the setting `min_time`. Seconds that are taken for milliseconds are in January 1970."""
EXPECTED: Final = "expected an ISO date (2000-01-01), epoch milliseconds, or off"
EXPECTED_MOMENT: Final = "expected ISO 8601 (2000-01-01, 2000-01-01T12:00) or epoch milliseconds"
LATEST_MS: Final = 253_402_300_799_999  # the year 9999

UNITS: Final = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
"""Units of time that files and producers use, in nanoseconds."""
PLAUSIBLE: Final = (315_532_800 * 10**9, 4_102_444_800 * 10**9)
"""1980 and 2100, in nanoseconds. A time is probably in the unit that puts it between them."""

_YEAR = re.compile(r"[1-9][0-9]{3}")
_MONTH = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])")
_LOCAL = re.compile(r"([0-9]{1,2})([./])([0-9]{1,2})\2([0-9]{4})(?:,?[ T]+([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?")
_DIGITS: Final = 30  # a longer number is not a time, and Python refuses to read thousands of digits


def unit(time: int, expected: str = "milliseconds") -> str:
    """Return the unit of UNITS that a time is probably in, or "" if that is `expected` or none is likely."""
    low, high = PLAUSIBLE
    found = [name for name, size in UNITS.items() if low <= time * size <= high]
    return found[0] if found and found[0] != expected else ""


def hint(time: int, expected: str = "milliseconds") -> str:
    """Return what is probably wrong with a time that is far off, and what to do; "" if no other unit is likely."""
    likely = unit(time, expected)
    if not likely:
        return ""
    have, want = UNITS[likely], UNITS[expected]
    cure = f"multiply by {have // want}" if have > want else f"divide by {want // have}"
    return f"{time} looks like {likely}; times are {expected}: {cure}"


def with_hint(time: int, expected: str = "milliseconds") -> str:
    """Return the hint as the end of another message."""
    return f"; {message}" if (message := hint(time, expected)) else ""


def parse(text: str) -> int:
    """Return the setting `min_time` in epoch ms: what `moment` reads, or 0 for `off`. Raises ValueError."""
    return 0 if text == "off" else moment(text, EXPECTED)


def moment(text: str, expected: str = EXPECTED_MOMENT) -> int:
    """Return a time that a person wrote, in epoch ms.

    It may be an ISO date or time (UTC if it names no zone), a year (its first day), epoch ms, or 0. A number must be
    between 1980 and 2100 as epoch ms. Any other number is a year and a month, seconds, or a typo, and would silently
    switch off what uses it. A date may be older.

    Args:
        text: The text.
        expected: The error message if it is none of these.

    Raises:
        ValueError: It is not a time; the message has the likely reading.
    """
    if text.isascii() and text.isdecimal() and len(text) not in (4, 8):  # 1996 is a year, 20000101 a date
        return _number(text, expected)
    try:
        moment = datetime.fromisoformat(f"{text}-01-01" if _YEAR.fullmatch(text) else text)
        found = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError(f"{expected}{with_written(text)}") from None
    if not 0 <= found <= LATEST_MS:
        raise ValueError(f"{expected}, from 1970 to 9999")
    return found


def _number(text: str, expected: str) -> int:
    """Return a number written in digits as epoch ms. Raises ValueError."""
    found = int(text) if len(text) <= _DIGITS else LATEST_MS + 1
    low, high = (end // UNITS["milliseconds"] for end in PLAUSIBLE)
    if not found or low <= found <= high:
        return found
    if likely := hint(found):
        raise ValueError(likely)
    if found > LATEST_MS:
        raise ValueError(expected)
    meant = f"{text[:4]}-{text[4:]}-01" if _MONTH.fullmatch(text) else "2000-01-01"
    raise ValueError(
        f"found {text}, which is {date(found)} as epoch milliseconds; {expected}; milliseconds must be from 1980 to 2100; "
        f"write the date ({meant}) if you mean one"
    )


def with_written(text: str) -> str:
    """Return how to write a date of the form DAY.MONTH.YEAR or with slashes, as the end of a message; "" for others."""
    if not (found := _LOCAL.fullmatch(text.strip())):
        return ""
    point = found[2]
    one, two, year, hour, minute, second = (int(found[at] or 0) for at in (1, 3, 4, 5, 6, 7))
    day, month = (one, two) if point == "." or one > 12 else (two, one)
    try:
        at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return ""
    iso = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    meant = "" if point == "." or max(one, two) > 12 else " if the month comes first"
    return f"; write {iso} for it{meant} (UTC; or with a zone: {iso[:-1]}+01:00)"


def ahead(ms: int) -> str:
    """Return the end of a message about a time that is `ms` milliseconds ahead of the clock that judges it."""
    days, minutes = ms // 86_400_000, ms // 60_000
    far = f"{days:,} days" if days > 1 else f"{minutes // 60} h {minutes % 60} min"
    return f"; that is {far} ahead: is the producer's clock or its time zone wrong?"


def date(time: int) -> str:
    """Return epoch ms as a date if it is the start of a day, else as a time, UTC."""
    moment = datetime.fromtimestamp(time / 1000, UTC)
    return moment.strftime("%Y-%m-%d") if time % 86_400_000 == 0 else moment.strftime("%Y-%m-%dT%H:%M:%SZ")
