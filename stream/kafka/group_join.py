"""Errors of the group if it does not let this worker join.

aiokafka keeps such an error until the next fetch. A worker without partitions never fetches, so it would never join
again.

A member of another protocol (any ordinary consumer with our group id) keeps us out as long as it is in the group. It
may be there by mistake and only for a moment, so we retry for some time and report who it is. Every other error ends
the process immediately.
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
NAMED: Final = 3  # foreign members that are named


class Joining:
    """Watches a group coordinator of aiokafka.

    Args:
        session_timeout: The setting, in seconds.
        stopping: Returns whether the worker was asked to stop. It then joins no group.
    """

    def __init__(self, session_timeout: float, stopping: Callable[[], bool]) -> None:
        self._session_timeout = session_timeout
        self._stopping = stopping
        self._refused = 0  # times, one after another
        self.held = ""
        """Which members keep us out of the group, in words; "" if there are none."""

    def watch(self, coordinator: Any) -> None:
        """Watch the coordinator. Call this before the group is joined."""
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
                    f"the group {coordinator.group_id} did not let this worker join for {ATTEMPTS * PAUSE:.0f} s: {self.held}. "
                    "Give those another group id, or this deployment another app_id"
                )
            )
        await asyncio.sleep(PAUSE)

    async def _strangers(self, coordinator: Any) -> str:
        try:
            answer = await coordinator._send_req(DescribeGroupsRequest([coordinator.group_id]))
        except KafkaError as error:
            return f"the broker does not list them ({error!r})"
        members = [member for _, *_, members in (group[:6] for group in answer.groups) for member in members]
        named = [f"client {client} at {host.lstrip('/')} (member {member})" for member, client, host, *_ in members]
        more = [f"{len(named) - NAMED} more"] if len(named) > NAMED else []
        return ", ".join(named[:NAMED] + more) or "the broker does not list them"

    def _meaning(self, error: Exception, group: str) -> Exception:
        if isinstance(error, InvalidSessionTimeoutError):
            return SettingsError(
                f"session_timeout: the broker refuses {self._session_timeout:g} s, expected a value between its "
                "group.min.session.timeout.ms and its group.max.session.timeout.ms"
            )
        if isinstance(error, InvalidGroupIdError):
            return SettingsError(f"app_id: the broker refuses {group!r} as the id of a group")
        return error
