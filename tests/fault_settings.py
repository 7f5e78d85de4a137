"""Settings of the fault scenarios: sessions so short that what follows a worker's end is seen soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stream.settings import Settings

World = Callable[..., Settings]
"""Makes topics for the given values, as the fixture `world` does -> their settings."""

SETTINGS: Final[dict[str, Any]] = {
    "partitions": 4,
    "session_timeout": 6.0,
    "heartbeat_interval": 1.0,
    "inference_timeout": 3.0,
}
"""Of the long runs."""
QUICK: Final[dict[str, Any]] = SETTINGS | {"partitions": 2}
"""Of the short forms."""
SHORT_SESSION: Final[dict[str, Any]] = {"session_timeout": 3.0, "heartbeat_interval": 0.5, "inference_timeout": 1.5}
"""Only where workers may end with 75: a busy machine stands still for longer than this lease."""
LONG_SESSION: Final[dict[str, Any]] = SETTINGS | {"session_timeout": 20.0}
"""Where no lease is to run out, however crowded the machine."""
