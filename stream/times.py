"""Times as people and files say them: in which unit, from which date on. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

MIN_TIME: Final = "2000-01-01"
"""The setting `min_time` where nobody sets it: seconds that are taken for milliseconds lie in January 1970."""
EXPECTED: Final = "expected an ISO date (2000-01-01), epoch milliseconds, or off"
LATEST_MS: Final = 253_402_300_799_999  # the year 9999

UNITS: Final = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
"""Units of time that files and producers use, in nanoseconds."""
PLAUSIBLE: Final = (315_532_800 * 10**9, 4_102_444_800 * 10**9)
"""1980 and 2100, in nanoseconds: a time between them is likely in the unit that puts it there."""


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
    """Epoch ms of a setting `min_time`: an ISO date or time (UTC where it names no zone), epoch ms, or `off` for 0.

    Raises ValueError.
    """
    if said == "off":
        return 0
    try:
        if said.isascii() and said.isdecimal() and len(said) != 8:  # 20000101 is a date
            found = int(said)
            if likely := hint(found):
                raise ValueError(likely)
        else:
            moment = datetime.fromisoformat(said)
            found = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except ValueError as error:
        raise ValueError(str(error) if "looks like" in str(error) else EXPECTED) from None
    if not 0 <= found <= LATEST_MS:
        raise ValueError(EXPECTED)
    return found


def ahead(ms: int) -> str:
    """What is said of a time so many milliseconds after the clock that judges it."""
    days, minutes = ms // 86_400_000, ms // 60_000
    far = f"{days:,} days" if days > 1 else f"{minutes // 60} h {minutes % 60} min"
    return f"; that is {far} ahead: is the producer's clock or its time zone wrong?"


def date(time: int) -> str:
    """Epoch ms as a date where it is one to the day, else as a time, UTC."""
    moment = datetime.fromtimestamp(time / 1000, UTC)
    return moment.strftime("%Y-%m-%d") if time % 86_400_000 == 0 else moment.strftime("%Y-%m-%dT%H:%M:%SZ")
