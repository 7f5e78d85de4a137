"""What the consumer of the source topics asks of the owner of the states, and what it reports to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from stream.core.fencing_log import LeftOut


class PartitionListener(Protocol):
    """The owner of the states. The worker builds one and passes it to the app before there is a consumer.

    A partition number means the same partition of the source topics, of the table and of its changelog.
    """

    def open_partition(self, partition: int) -> int:
        """Open a partition of the table before it is recovered.

        Returns:
            The changelog offset up to which it is already read back; -1 if nothing is.
        Raises:
            DiskError: The folder cannot be used.
            LossError: Its changelog was recreated.
        """
        ...

    def drop_partition(self, partition: int) -> None:
        """Delete the stored data of a partition of the table."""
        ...

    async def claim(self, partitions: Iterable[int]) -> None:
        """Claim recovered partitions of the table, before their first micro-batch."""
        ...

    def is_claimed(self, partition: int) -> bool:
        """Return whether a worker has claimed a partition of the changelog, as far as it is read back."""
        ...

    def last_written(self, partition: int) -> int:
        """Return the offset of our last record in a partition of the changelog, -1 if we have written none."""
        ...

    async def drained(self, seconds: float) -> bool:
        """Wait until the pipeline holds nothing back. Return False if that takes longer than `seconds`."""
        ...

    def calls_ended(self) -> int:
        """Return how many model calls have ended plus how many extra records were read. A micro-batch may need many."""
        ...

    def held_up(self) -> str:
        """Return what keeps a takeover or a micro-batch from reading the changelog, in words; "" if nothing does."""
        ...

    def on_revoked(self) -> None:
        """Forget what was read but not finished: the partitions are given up."""
        ...

    def on_committed(self) -> None:
        """Note that offsets were committed."""
        ...

    def on_left_out(self, records: LeftOut) -> None:
        """Count changelog records that were read back but are not part of any state."""
        ...
