"""This worker's place in its group, stored in the data folder: a restart need not wait for the dead member's session.

A worker that was killed has sent no LeaveGroup: the group keeps its place until the session times out, and meanwhile no
member can join. After a restart with the same folder, the worker first removes that place from the group itself. A lock
on the file ensures that only one process at a time uses the folder, so the place of a live worker is never removed.
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
PATIENCE: Final = 5.0  # seconds for the coordinator to answer; otherwise the session timeout removes the place
MAX_ID: Final = 1024  # bytes
WORKERS: Final = 64  # folders that are tried

log = logging.getLogger("freshet.membership")


class FolderInUseError(DiskError):
    """Another process uses the data folder."""


def take(folder: Path, others: bool) -> Membership:
    """Take the place of `folder`.

    If another process uses the folder and `others` is set, take the first free one of folder-2, folder-3, ...
    """
    number = 1
    while True:
        try:
            return Membership(folder if number == 1 else folder.with_name(f"{folder.name}-{number}"))
        except FolderInUseError:
            if not others or number == WORKERS:
                raise
        number += 1


class Membership:
    """Holds the member id of a data folder. Raises DiskError if the folder cannot be used, or another process uses it."""

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
            message = f"data_dir: {folder} is in use by another worker; each worker needs its own folder"
            raise FolderInUseError(f"{message}: set --data-dir or FRESHET_DATA_DIR") from None
        except OSError as error:
            raise DiskError(f"data_dir: {path} cannot be used: {error}") from None
        self._known = self.former

    def remember(self, member: str) -> None:
        """Store the id that the group has given us. If it cannot be written, only the next start has to wait."""
        if member == self._known:
            return
        try:
            self._file.truncate(0)  # the file is open for appending, so the next write starts at 0
            self._file.write(member.encode())
            self._file.flush()
        except OSError as error:
            log.warning("the membership of the group cannot be remembered: %s", error)
        self._known = member

    def release(self) -> None:
        """Release the folder."""
        self._file.close()

    def watch(self, coordinator: Any) -> None:
        """Store every id that the group gives us, from the first answer on, because a worker may be killed while it joins."""
        send = coordinator._send_req

        async def noted(request: Any) -> Any:
            response = await send(request)
            if isinstance(request, JoinGroupRequest) and response.member_id:
                self.remember(response.member_id)
            return response

        coordinator._send_req = noted

    async def leave_former(self, coordinator: Any) -> None:
        """Remove the previous process's place from the group. If this fails, the session timeout removes it later."""
        if not self.former:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await coordinator.ensure_coordinator_known()
                answer = await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, self.former))
        except (KafkaError, TimeoutError) as error:
            log.info("the previous membership of the group could not be given up: %s", error)
            return
        if not answer.error_code:  # else the group no longer knows it
            log.info("the previous membership of the group was given up")
