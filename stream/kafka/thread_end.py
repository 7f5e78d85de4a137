"""The end of a service's thread, waited for without holding up the loop that waits."""

from __future__ import annotations

import asyncio
from typing import Final

from mode.threads import ServiceThread, WorkerThread

from stream.process.supervision import cancelled

POLL: Final = 0.02
"""Seconds between two looks at the thread."""


class _NotJoined(WorkerThread):
    """A thread that is not joined on a stop: the service waits for its end."""

    def stop(self) -> None:
        return


class LiveUntilEnd(ServiceThread):
    """A service thread for whose end `stop` waits while its parent's loop goes on.

    mode joins the thread in the parent's loop. A task of the thread that asks the parent something while it ends, as a
    callback of the consumer group does, is then never answered, and neither of the two ends.
    """

    abstract = True
    Worker = _NotJoined

    async def _gather_remaining_tasks(self) -> None:
        """Cancel the tasks that libraries left in the thread's loop until they have ended."""
        await cancelled(asyncio.all_tasks() - {asyncio.current_task()})

    async def stop(self) -> None:
        """Stop the service and return when its thread has ended."""
        await super().stop()
        while self._thread is not None and self._thread.is_alive():
            await asyncio.sleep(POLL)
