"""Settings for tests: topics of their own, and the fault scenarios' sessions, so short that a worker's end is noticed soon."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

from deploy.clients import admin
from stream.settings import Settings, load

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


def with_topics(brokers: str, **values: Any) -> Settings:
    """Settings whose topics are there: they are made. brokers: host:port[,host:port...]."""
    settings = load(brokers=brokers, **values)
    admin.create(settings)
    return settings


def with_own_topics(brokers: str, **values: Any) -> Settings:
    """As `with_topics`, with a prefix and an app_id that no other test has."""
    name = uuid.uuid4().hex[:8]
    return with_topics(brokers, prefix=f"{name}-", app_id=f"{name}-app", **values)
