"""A worker as a static member of its group (KIP-345): python -m tests.bench.static_worker ID [leaves]

The group knows it by ID: a start within the session timeout gets the former place back, without a rebalance. Like every
static member it keeps its place when it is stopped; with `leaves` it gives it up if it is stopped in order.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

from deploy.cli.main import main
from stream.kafka.membership import Membership

LEAVES = "leaves"


async def _stay(self: Membership, coordinator: Any) -> None:
    """The former place is taken over, not given up."""


async def _leave(self: GroupCoordinator) -> None:
    if self.generation > 0:
        try:
            await self._send_req(LeaveGroupRequest(self.group_id, self.member_id))
        except KafkaError as error:
            print(f"not left: {error!r}", file=sys.stderr)
    self.reset_generation()


if __name__ == "__main__":
    os.environ["CONSUMER_GROUP_INSTANCE_ID"] = sys.argv[1]  # a setting of Faust's
    Membership.leave_former = _stay  # type: ignore[method-assign]
    if LEAVES in sys.argv[2:]:
        GroupCoordinator._maybe_leave_group = _leave
    sys.argv = ["freshet", "worker"]
    main()
