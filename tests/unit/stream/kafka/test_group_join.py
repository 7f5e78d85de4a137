"""A group that does not take a worker in: who keeps it out is named, it asks again for some time, and all else ends it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.group import JoinGroupRequest

from stream.core.errors import BrokerError, SettingsError, TopologyError
from stream.kafka import group_join
from stream.kafka.group_join import ATTEMPTS, Joining
from stream.process.fatal import meaning

JOIN = JoinGroupRequest("app", 1000, 1000, "", None, "consumer", [])
STRANGER = ("rdkafka-1", "rdkafka", "/10.0.0.7", b"", b"")


class Ended(BaseException):
    """What `fatal` raises here in place of ending the process."""


class Coordinator:
    """The coordinator's side of aiokafka that is used. members: of the group, None where the broker does not tell them."""

    group_id = "app"

    def __init__(self, *members: tuple[Any, ...], named: bool = True) -> None:
        self.members = members
        self.named = named
        self.code = 0  # of a join
        self.pushed: list[Exception] = []

    async def _send_req(self, request: Any) -> Any:
        if isinstance(request, JoinGroupRequest):
            return SimpleNamespace(error_code=self.code, member_id="m")
        assert isinstance(request, DescribeGroupsRequest)
        if not self.named:
            raise errors.GroupAuthorizationFailedError("app")
        return SimpleNamespace(groups=[(0, "app", "Stable", "consumer", "range", list(self.members), 0)])

    async def _push_error_to_user(self, error: Exception) -> None:
        self.pushed.append(error)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    found: list[BaseException] = []

    def end(error: BaseException) -> None:
        found.append(error)
        raise Ended

    monkeypatch.setattr(group_join, "fatal", end)
    monkeypatch.setattr(group_join, "PAUSE", 0.0)
    return found


def watched(coordinator: Coordinator, stopping: bool = False) -> Joining:
    made = Joining(6.0, lambda: stopping)
    made.watch(coordinator)
    return made


def refuse(coordinator: Coordinator, error: Exception) -> None:
    asyncio.run(coordinator._push_error_to_user(error))


def test_a_stranger_is_named_while_the_worker_asks_again(ended: list[BaseException]) -> None:
    coordinator = Coordinator(STRANGER)
    made = watched(coordinator)
    for _ in range(ATTEMPTS - 1):
        refuse(coordinator, errors.InconsistentGroupProtocolError())
    assert made.held == "the group has members of another protocol: client rdkafka at 10.0.0.7 (member rdkafka-1)"
    assert (ended, coordinator.pushed) == ([], []), "or aiokafka would wait for somebody to fetch"
    coordinator.code = 23
    asyncio.run(coordinator._send_req(JOIN))
    assert made.held
    coordinator.code = 0
    asyncio.run(coordinator._send_req(JOIN))
    assert made.held == "", "it is gone"
    refuse(coordinator, errors.InconsistentGroupProtocolError())
    assert ended == [], "the attempts begin again"


def test_a_stranger_that_stays_ends_the_worker_by_its_name(ended: list[BaseException]) -> None:
    coordinator = Coordinator(*[STRANGER] * 5)
    watched(coordinator)
    for _ in range(ATTEMPTS - 1):
        refuse(coordinator, errors.InconsistentGroupProtocolError())
    assert ended == []
    with pytest.raises(Ended):
        refuse(coordinator, errors.InconsistentGroupProtocolError())
    (error,) = ended
    assert isinstance(error, TopologyError)
    assert error.exit_code == 78
    assert "the group app did not let this worker join" in str(error)
    assert str(error).count("client rdkafka at 10.0.0.7") == 3
    assert "2 more. Give those another group id, or this deployment another app_id" in str(error)


@pytest.mark.parametrize("coordinator", [Coordinator(), Coordinator(STRANGER, named=False)])
def test_a_broker_that_names_nobody_is_said_to(coordinator: Coordinator, ended: list[BaseException]) -> None:
    made = watched(coordinator)
    refuse(coordinator, errors.InconsistentGroupProtocolError())
    assert "the broker does not list them" in made.held
    assert ended == []


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (errors.InvalidSessionTimeoutError(), SettingsError, "session_timeout: the broker refuses 6 s"),
        (errors.InvalidGroupIdError(), SettingsError, "app_id: the broker refuses 'app'"),
        (errors.GroupAuthorizationFailedError("app"), BrokerError, "the broker denies access: group app"),
        (errors.KafkaError("GroupMaxSizeReached()"), errors.KafkaError, "GroupMaxSizeReached"),
    ],
)
def test_any_other_refusal_ends_the_worker_at_once(
    error: Exception, kind: type[Exception], message: str, ended: list[BaseException]
) -> None:
    coordinator = Coordinator()
    watched(coordinator)
    with pytest.raises(Ended):
        refuse(coordinator, error)
    found = meaning(ended[0])
    assert isinstance(found, kind)
    assert message in str(found)


def test_whoever_stops_leaves_it_to_the_client(ended: list[BaseException]) -> None:
    coordinator = Coordinator()
    watched(coordinator, stopping=True)
    refuse(coordinator, errors.InconsistentGroupProtocolError())
    assert [type(error) for error in coordinator.pushed] == [errors.InconsistentGroupProtocolError]
    assert ended == []


def test_the_client_asks_again_where_the_error_is_taken_from_it(ended: list[BaseException]) -> None:
    """aiokafka's own routine: a join that is refused twice, then taken in."""
    made, joins = Joining(6.0, lambda: False), 0

    async def run() -> None:
        nonlocal joins
        closing = asyncio.get_running_loop().create_future()

        async def join(subscription: Any, assignment: Any) -> None:
            nonlocal joins
            joins += 1
            if joins < 3:
                raise errors.InconsistentGroupProtocolError
            closing.set_result(None)

        async def known() -> None: ...

        subscription = SimpleNamespace(active=True, assignment=None)
        coordinator: Any = GroupCoordinator.__new__(GroupCoordinator)
        vars(coordinator).update(
            _subscription=SimpleNamespace(subscription=subscription, partitions_auto_assigned=lambda: True), group_id="app",
            _closing=closing, ensure_coordinator_known=known, need_rejoin=lambda subscription: True, ensure_active_group=join,
            coordinator_id=None,
        )  # fmt: skip
        made.watch(coordinator)
        async with asyncio.timeout(10):
            await coordinator._coordination_routine()

    asyncio.run(run())
    assert joins == 3
    assert "the broker does not list them" in made.held
    assert ended == []
