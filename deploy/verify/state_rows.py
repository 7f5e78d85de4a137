"""Every state of one partition that was ever durable, by (user, seq). Flat arrays hold them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from deploy.verify.source_partition import NONE
from deploy.verify.users import User
from stream.core.state import Interest


class StateRows:
    """A row is one changelog record that counts.

    It has chain, applied, offset, and `before`, which is seq minus the number of its folded events.
    """

    def __init__(self) -> None:
        self._chains = bytearray()
        self._applied = array("q")  # hashes
        self._seqs = array("q")
        self._offsets = array("q")
        self._before = array("q")
        self._earlier = array("i")  # rows of the same user before and after this one
        self._later = array("i")

    def add(self, user: User, state: Interest, offset: int) -> None:
        """Add the record at `offset`. It is now its user's last state."""
        row = len(self._seqs)
        if user.row == NONE:
            user.oldest = row
        else:
            self._later[user.row] = row
        self._chains += state.chain
        self._applied.append(hash(tuple(state.applied)))
        self._seqs.append(state.seq)
        self._offsets.append(offset)
        self._before.append(state.seq - len(state.folded))
        self._earlier.append(user.row)
        self._later.append(NONE)
        user.seq = state.seq
        user.chain = state.chain
        user.applied = array("q", state.applied)
        user.last_time = state.last_time
        user.row = row

    def find(self, user: User, seq: int) -> list[int]:
        """Return the rows of (user, seq), the newest first; those from before the user was forgotten come last.

        Slates come in the order of states, so the search goes on from the row that was found last.
        """
        found = self._of_this_life(user, seq)
        for _, at in reversed(user.lives):
            while at != NONE:
                if self._seqs[at] == seq:
                    found.append(at)
                at = self._earlier[at]
        return found

    def life(self, user: User, row: int) -> int:
        """Return how many times the user had been forgotten when a row was written."""
        return sum(row > last for _, last in user.lives)

    def _of_this_life(self, user: User, seq: int) -> list[int]:
        at = user.oldest if user.cursor == NONE else user.cursor
        if at == NONE:
            return []
        while self._seqs[at] > seq and self._earlier[at] != NONE:
            at = self._earlier[at]
        while self._later[at] != NONE and self._seqs[self._later[at]] <= seq:
            at = self._later[at]
        user.cursor = at
        found = []
        while at != NONE and self._seqs[at] == seq:
            found.append(at)
            at = self._earlier[at]
        return found

    def chain(self, row: int) -> bytes:
        return bytes(self._chains[16 * row : 16 * row + 16])

    def has_applied(self, row: int, applied: Sequence[int]) -> bool:
        return self._applied[row] == hash(tuple(applied))

    def offset(self, row: int) -> int:
        """Return the offset of a row in the changelog."""
        return self._offsets[row]

    def before(self, row: int) -> int:
        """Return the seq before the folded events of a row."""
        return self._before[row]
