"""A worker's place in its group is remembered from the first answer, given up at the next start, and never another's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest

from stream.core.errors import DiskError
from stream.kafka.membership import FILE, Membership, take


class Coordinator:
    """The coordinator's side of aiokafka that is used."""

    group_id = "app"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    async def ensure_coordinator_known(self) -> None:
        pass

    async def _send_req(self, request: Any) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


JOIN = JoinGroupRequest("app", 1000, 1000, "", None, "consumer", [])


def test_an_id_is_remembered_before_the_join_is_over(tmp_path: Path) -> None:
    coordinator = Coordinator(SimpleNamespace(member_id="m-1", error_code=79))
    membership = Membership(tmp_path)
    membership.watch(coordinator)
    asyncio.run(coordinator._send_req(JOIN))
    assert (tmp_path / FILE).read_text() == "m-1"
    membership.remember("m-22")
    membership.remember("m-3")
    assert (tmp_path / FILE).read_text() == "m-3"


def test_the_former_place_is_given_up(tmp_path: Path) -> None:
    first = Membership(tmp_path)
    first.remember("m-1")
    first.release()
    second = Membership(tmp_path)
    coordinator = Coordinator(SimpleNamespace(error_code=0))
    asyncio.run(second.leave_former(coordinator))
    (asked,) = coordinator.asked
    assert isinstance(asked, LeaveGroupRequest)
    assert (asked._group, asked._member_id) == ("app", "m-1")


def test_a_new_folder_has_no_place_to_give_up(tmp_path: Path) -> None:
    coordinator = Coordinator()
    asyncio.run(Membership(tmp_path / "new").leave_former(coordinator))
    assert coordinator.asked == []


def test_a_coordinator_that_fails_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("m-1")
    asyncio.run(Membership(tmp_path).leave_former(Coordinator(GroupCoordinatorNotAvailableError())))


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    first = Membership(tmp_path)
    with pytest.raises(DiskError, match="in use by another worker"):
        Membership(tmp_path)
    first.release()
    Membership(tmp_path).release()


def test_where_any_folder_will_do_the_next_free_one_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "worker"
    first, second, third = (take(folder, others=True) for _ in range(3))
    assert [one.folder.name for one in (first, second, third)] == ["worker", "worker-2", "worker-3"]
    second.release()
    with pytest.raises(DiskError, match="in use by another worker"):
        take(folder, others=False)
    assert take(folder, others=True).folder == second.folder


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="data_dir"):
        Membership(tmp_path / "file")
