"""Asks the broker which offsets partitions have, within a time limit, and names who has not answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiokafka.errors import KafkaError, KafkaTimeoutError
from faust.types import TP

from stream.core.errors import BrokerError, FreshetError
from stream.kafka.clients import absent
from stream.kafka.source_thread import SourceThread
from stream.process.fatal import fatal

PAUSE: Final = 0.5  # seconds before the next request to the broker

log = logging.getLogger("freshet.consumer")


class BrokerOffsets:
    """Offsets of partitions, as their leaders report them now.

    Args:
        thread: The consumer's thread.
        changelog: Partition number -> that partition of the changelog.
        held_up: Returns what keeps a takeover from reading the changelog, in words; "" if nothing does.
        limit: Seconds for what Faust waits for.
    """

    def __init__(
        self, thread: SourceThread, changelog: Callable[[int], TP], held_up: Callable[[], str], limit: float
    ) -> None:
        self._thread = thread
        self._changelog = changelog
        self._held_up = held_up
        self._limit = limit

    async def logs(self, tps: Iterable[TP]) -> dict[TP, range]:
        """Return the offsets that each partition has now. Waits for leaders without a time limit."""
        wanted, logged = tuple(tps), ""
        while wanted:
            try:
                starts = await self._thread.earliest_offsets(*wanted)
                ends = await self._thread.highwaters(*wanted)
                return {tp: range(starts.get(tp) or 0, ends.get(tp) or 0) for tp in wanted}
            except KafkaError as error:
                if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                    raise
                message = f"{error!r}: retrying; waits for {self._missing(wanted)}"
                if message != logged:
                    log.warning(message)
                logged = message
            await asyncio.sleep(PAUSE)
        return {}

    async def starts(self, *tps: TP) -> Mapping[TP, int]:
        """Return where each log starts, or end the process: Faust would ignore an error."""
        async with self._limited_or_end(tps):
            found: Mapping[TP, int] = await self._thread.earliest_offsets(*tps)
            return found

    async def ends(self, *tps: TP) -> Mapping[TP, int]:
        """Return where each log ends, or end the process: Faust would ignore an error."""
        async with self._limited_or_end(tps):
            found: Mapping[TP, int] = await self._thread.highwaters(*tps)
            return found

    @asynccontextmanager
    async def _limited_or_end(self, tps: Collection[TP]) -> AsyncIterator[None]:
        try:
            async with self.limited(self._limit, tps):
                yield
        except FreshetError as error:
            fatal(error)

    @asynccontextmanager
    async def limited(self, seconds: float, tps: Collection[TP]) -> AsyncIterator[None]:
        """Limit how long the block waits for the broker.

        Raises:
            BrokerError: The broker has not answered in time. The error names which of these partitions have no leader.
            FreshetError: The broker has answered, but an open transaction blocks reading of the changelog.
        """
        held: list[str] = []
        # checked shortly before: at the end of the time the reader is closed
        look = asyncio.get_running_loop().call_later(0.95 * seconds, lambda: held.append(self._held_up()))
        try:
            async with asyncio.timeout(seconds):
                yield
        except (TimeoutError, KafkaTimeoutError):
            if any(held):
                raise FreshetError(f"assigned partitions could not begin for {seconds:g} s: {held[0]}") from None
            missing = self._missing({one for tp in tps for one in (tp, self._changelog(tp.partition))})
            raise BrokerError(
                f"no answer for {seconds:g} s, so assigned partitions cannot begin: waits for {missing}"
            ) from None
        finally:
            look.cancel()

    def _missing(self, tps: Iterable[TP]) -> str:
        client = self._thread.client()
        away = [] if client is None else [reason for tp in sorted(tps) if (reason := absent(client, [tp]))]
        return "; ".join(dict.fromkeys(away)) or "a broker to answer"
