"""What the group answers where it does not take us in: aiokafka keeps such an error until somebody fetches, and nobody does who
has no partitions, so that it would never join again.

A member of another protocol (any ordinary consumer with our group id) keeps us out as long as it is there. It may be a mistake of
a moment, so we ask again for some time, and say who it is; all else ends the process at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiokafka.errors import (
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    KafkaError,
)
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.group import JoinGroupRequest

from stream.core.errors import SettingsError, TopologyError
from stream.process.fatal import fatal

PAUSE: Final = 2.0  # seconds between two attempts
ATTEMPTS: Final = 30
NAMED: Final = 3  # strangers that are named


class Joining:
    """Watches a group coordinator of aiokafka. stopping: the worker is asked to stop, and joins nothing any more."""

    def __init__(self, session_timeout: float, stopping: Callable[[], bool]) -> None:
        self._session_timeout = session_timeout
        self._stopping = stopping
        self._refused = 0  # times, one after another
        self.held = ""
        """Who keeps us out of the group, in words; "" while nobody does."""

    def watch(self, coordinator: Any) -> None:
        """To be called before the group is joined."""
        send, push = coordinator._send_req, coordinator._push_error_to_user

        async def noted(request: Any) -> Any:
            response = await send(request)
            if isinstance(request, JoinGroupRequest) and not response.error_code:
                self._refused, self.held = 0, ""
            return response

        async def refused(error: Exception) -> None:
            if self._stopping():
                await push(error)
            elif isinstance(error, InconsistentGroupProtocolError):
                await self._wait(coordinator)
            else:
                fatal(self._meaning(error, coordinator.group_id))

        coordinator._send_req, coordinator._push_error_to_user = noted, refused

    async def _wait(self, coordinator: Any) -> None:
        self._refused += 1
        self.held = f"the group has members of another protocol: {await self._strangers(coordinator)}"
        if self._refused >= ATTEMPTS:
            fatal(
                TopologyError(
                    f"the group {coordinator.group_id} did not take this worker in for {ATTEMPTS * PAUSE:.0f} s: {self.held}. "
                    "Give those another group id, or this deployment another app_id"
                )
            )
        await asyncio.sleep(PAUSE)

    async def _strangers(self, coordinator: Any) -> str:
        try:
            answer = await coordinator._send_req(DescribeGroupsRequest([coordinator.group_id]))
        except KafkaError as error:
            return f"who, the broker does not say ({error!r})"
        members = [member for _, *_, members in (group[:6] for group in answer.groups) for member in members]
        said = [f"client {client} at {host.lstrip('/')} (member {member})" for member, client, host, *_ in members]
        more = [f"{len(said) - NAMED} more"] if len(said) > NAMED else []
        return ", ".join(said[:NAMED] + more) or "who, the broker does not say"

    def _meaning(self, error: Exception, group: str) -> Exception:
        if isinstance(error, InvalidSessionTimeoutError):
            return SettingsError(
                f"session_timeout: the broker refuses {self._session_timeout:g} s, expected from its "
                "group.min.session.timeout.ms to its group.max.session.timeout.ms"
            )
        if isinstance(error, InvalidGroupIdError):
            return SettingsError(f"app_id: the broker refuses {group!r} as the id of a group")
        return error
