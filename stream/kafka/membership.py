"""This worker's place in its group, kept in its data folder, so that a restart need not wait for the dead member's session.

A worker that was killed has sent no LeaveGroup: the group keeps its place until the session times out, and meanwhile lets
nobody join. Started again with the same folder, it first takes that place out of the group by itself. A lock on the file says
that one process at a time uses the folder, so a place is never taken from a worker that lives.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from pathlib import Path
from typing import Any, Final

from aiokafka.errors import KafkaError
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest

from stream.core.errors import DiskError

FILE: Final = "member"
PATIENCE: Final = 5.0  # seconds for the coordinator to answer; else the session's timeout does it
MAX_ID: Final = 1024  # bytes
WORKERS: Final = 64  # folders that are tried

log = logging.getLogger("freshet.membership")


class FolderInUseError(DiskError):
    """Another process uses the data folder."""


def take(folder: Path, others: bool) -> Membership:
    """The place of `folder`; others: where another process uses it, the first of folder-2, folder-3, ... that is free."""
    number = 1
    while True:
        try:
            return Membership(folder if number == 1 else folder.with_name(f"{folder.name}-{number}"))
        except FolderInUseError:
            if not others or number == WORKERS:
                raise
        number += 1


class Membership:
    """The member id of a data folder. Raises DiskError where the folder cannot be used, or another process uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.seek(0)
            self.former = self._file.read(MAX_ID).decode(errors="replace")
        except BlockingIOError:
            said = f"data_dir: {folder} is in use by another worker; each needs a folder of its own"
            raise FolderInUseError(f"{said}: set --data-dir or FRESHET_DATA_DIR") from None
        except OSError as error:
            raise DiskError(f"data_dir: {path} cannot be used: {error}") from None
        self._known = self.former

    def remember(self, member: str) -> None:
        """The group has given us this id. Where it cannot be written the next start waits, no more."""
        if member == self._known:
            return
        try:
            self._file.truncate(0)  # opened for appending: what is written comes first
            self._file.write(member.encode())
            self._file.flush()
        except OSError as error:
            log.warning("the place in the group cannot be remembered: %s", error)
        self._known = member

    def release(self) -> None:
        """Let go of the folder."""
        self._file.close()

    def watch(self, coordinator: Any) -> None:
        """Remember every id that the group gives us, from the first answer on: a worker may be killed while it joins."""
        send = coordinator._send_req

        async def noted(request: Any) -> Any:
            response = await send(request)
            if isinstance(request, JoinGroupRequest) and response.member_id:
                self.remember(response.member_id)
            return response

        coordinator._send_req = noted

    async def leave_former(self, coordinator: Any) -> None:
        """Take the former process's place out of the group; what fails here, the session's timeout does later."""
        if not self.former:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await coordinator.ensure_coordinator_known()
                answer = await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, self.former))
        except (KafkaError, TimeoutError) as error:
            log.info("the former place in the group could not be given up: %s", error)
            return
        if not answer.error_code:  # else the group knows it no longer
            log.info("the former place in the group is given up")
