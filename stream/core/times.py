"""Times as people and files say them: in which unit, from which date on. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

MIN_TIME: Final = "2000-01-01"
"""The setting `min_time` where nobody sets it: seconds that are taken for milliseconds lie in January 1970."""
EXPECTED: Final = "expected an ISO date (2000-01-01), epoch milliseconds, or off"
EXPECTED_MOMENT: Final = "expected ISO 8601 (2000-01-01, 2000-01-01T12:00) or epoch milliseconds"
LATEST_MS: Final = 253_402_300_799_999  # the year 9999

UNITS: Final = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
"""Units of time that files and producers use, in nanoseconds."""
PLAUSIBLE: Final = (315_532_800 * 10**9, 4_102_444_800 * 10**9)
"""1980 and 2100, in nanoseconds: a time between them is likely in the unit that puts it there."""

_YEAR = re.compile(r"[1-9][0-9]{3}")
_MONTH = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])")
_DIGITS: Final = 30  # more are no time, and Python refuses to read thousands of them


def unit(time: int, expected: str = "milliseconds") -> str:
    """The unit of UNITS that a time is likely in, where that is another than `expected`; "" where nothing speaks for one."""
    low, high = PLAUSIBLE
    found = [name for name, size in UNITS.items() if low <= time * size <= high]
    return found[0] if found and found[0] != expected else ""


def hint(time: int, expected: str = "milliseconds") -> str:
    """What is likely wrong with a time that is far off, and what to do; "" where nothing speaks for another unit."""
    likely = unit(time, expected)
    if not likely:
        return ""
    have, want = UNITS[likely], UNITS[expected]
    cure = f"multiply by {have // want}" if have > want else f"divide by {want // have}"
    return f"{time} looks like {likely}; times are {expected}: {cure}"


def with_hint(time: int, expected: str = "milliseconds") -> str:
    """The hint to put behind another message."""
    return f"; {said}" if (said := hint(time, expected)) else ""


def parse(said: str) -> int:
    """Epoch ms of a setting `min_time`: what `moment` reads, or `off` for 0. Raises ValueError."""
    return 0 if said == "off" else moment(said, EXPECTED)


def moment(said: str, expected: str = EXPECTED_MOMENT) -> int:
    """Epoch ms of a time that a person wrote: an ISO date or time (UTC where it names no zone), a year (its first day), epoch ms,
    or 0. expected: what is said where it is none of these.

    A number must lie between 1980 and 2100 as epoch ms: any other is a year and a month, seconds, or a slip, and would switch off
    in silence what goes by it. A date may be older. Raises ValueError, with the likely reading.
    """
    if said.isascii() and said.isdecimal() and len(said) not in (4, 8):  # 1996 is a year, 20000101 a date
        return _number(said, expected)
    try:
        moment = datetime.fromisoformat(f"{said}-01-01" if _YEAR.fullmatch(said) else said)
        found = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError(expected) from None
    if not 0 <= found <= LATEST_MS:
        raise ValueError(f"{expected}, from 1970 to 9999")
    return found


def _number(said: str, expected: str) -> int:
    """Epoch ms of digits alone. Raises ValueError."""
    found = int(said) if len(said) <= _DIGITS else LATEST_MS + 1
    low, high = (end // UNITS["milliseconds"] for end in PLAUSIBLE)
    if not found or low <= found <= high:
        return found
    if likely := hint(found):
        raise ValueError(likely)
    if found > LATEST_MS:
        raise ValueError(expected)
    meant = f"{said[:4]}-{said[4:]}-01" if _MONTH.fullmatch(said) else "2000-01-01"
    raise ValueError(
        f"found {said}, which is {date(found)} as epoch milliseconds; {expected}; milliseconds from 1980 to 2100: write "
        f"the date ({meant}) where you mean one"
    )


def ahead(ms: int) -> str:
    """What is said of a time so many milliseconds after the clock that judges it."""
    days, minutes = ms // 86_400_000, ms // 60_000
    far = f"{days:,} days" if days > 1 else f"{minutes // 60} h {minutes % 60} min"
    return f"; that is {far} ahead: is the producer's clock or its time zone wrong?"


def date(time: int) -> str:
    """Epoch ms as a date where it is one to the day, else as a time, UTC."""
    moment = datetime.fromtimestamp(time / 1000, UTC)
    return moment.strftime("%Y-%m-%d") if time % 86_400_000 == 0 else moment.strftime("%Y-%m-%dT%H:%M:%SZ")
