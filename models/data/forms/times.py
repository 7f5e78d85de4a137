"""Convert times as published files write them to epoch ms.

A time without a zone is read as UTC. Nothing depends on the locale.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from models.data.rows import moment

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d):(\d\d))?", re.ASCII)
_UNIX: Final = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d) (\d{4})", re.ASCII
)


def plain(value: Any) -> int:
    """Read 2018-07-07 or 2018-07-07 22:09:11 as UTC, in epoch ms. Raises ValueError."""
    if not (found := _PLAIN.fullmatch(str(value))):
        raise ValueError("expected a time such as 2018-07-07 22:09:11 or 2018-07-07")
    return _ms(datetime(*(int(part or 0) for part in found.groups()), tzinfo=UTC))  # type: ignore[misc,arg-type]


def unix(value: Any) -> int:
    """Read Mon Aug 01 13:41:57 -0700 2011, as the command `date` writes it, in epoch ms. Raises ValueError."""
    found = _UNIX.fullmatch(str(value))
    if not found or (month := month_number(found[1])) is None:
        raise ValueError("expected a time such as Mon Aug 01 13:41:57 -0700 2011")
    hours, minutes = int(found[7]), int(found[8])
    east = timedelta(hours=hours, minutes=minutes) * (1 if found[6] == "+" else -1)
    at = datetime(int(found[9]), month, int(found[2]), int(found[3]), int(found[4]), int(found[5]), tzinfo=UTC)
    return _ms(at) - east // timedelta(milliseconds=1)


def day(year: int, month: int, number: int) -> int:
    """Return the start of a day (UTC) in epoch ms. Raises ValueError if there is no such day."""
    return _ms(datetime(year, month, number, tzinfo=UTC))


def month_number(name: str) -> int | None:
    """Return 1 to 12 for an English month name, short or long, and None for anything else."""
    short = name[:3].lower()
    return MONTHS.index(short) + 1 if short in MONTHS else None


def _ms(at: datetime) -> int:
    return moment((at - _START) // timedelta(milliseconds=1))
