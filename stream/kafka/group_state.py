"""The consumer's state in its group, which all of its parts read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class GroupState:
    """Changed by the consumer only, in the event loop.

    Attributes:
        epoch: Counts the assignments and what ends them. Whatever began in an earlier epoch does not count any more.
        claimed: The epoch whose partitions have been claimed; -1 before the first.
        joined: Whether the group has assigned us partitions, perhaps none.
        rebalances: How often it has done so.
        assigning: Whether partitions are being assigned right now.
        stopping: Whether the worker is about to stop.
    """

    epoch: int = 0
    claimed: int = -1
    joined: bool = False
    rebalances: int = 0
    assigning: bool = False
    stopping: bool = False
