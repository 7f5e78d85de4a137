"""What a process needs before its event loop runs: a limit on how long it may take, and the loop itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from stream.core.errors import FreshetError
from stream.process.fatal import fatal


@contextmanager
def in_time(seconds: float, error: FreshetError) -> Iterator[None]:
    """End the process with `error` if the block takes longer: a running graph cannot be interrupted."""
    late = threading.Timer(seconds, fatal, [error])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop, or None if there is no uvloop on this platform."""
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return None
    factory: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return factory
