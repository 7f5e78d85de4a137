"""Folders whose .txt files give order only: one user a line, `user item item ...`, oldest first (the S3-Rec form).

K. Zhou et al., S3-Rec, CIKM 2020. There are no times: a user's n-th event is dated n minutes after 2014-01-01, and only
the order within a user means anything. Each event becomes a click.
"""

from __future__ import annotations

from pathlib import Path

from models.data.dataset import DataSet, Event, dataset
from models.data.rows import identity, lines, open_text
from stream.errors import DataError
from stream.events import CLICK

SCALE = (0.5, 5.0)  # nothing is rated
START_MS = 1_388_534_400_000
STEP_MS = 60_000


def read_sequences(folder: Path) -> DataSet:
    """The folder's only .txt file that is no README."""
    (path,) = sequence_files(folder)
    events: list[Event] = []
    with open_text(path) as file:
        for number, line in enumerate(lines(path, file), start=1):
            user, *items = line.split() or [""]
            if not user:
                continue
            if not items:
                raise DataError(f"{path}, line {number}: expected a user and at least one item")
            try:
                ids = [identity(name) for name in (user, *items)]
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
            events += (Event(ids[0], item, CLICK, START_MS + at * STEP_MS) for at, item in enumerate(ids[1:]))
    return dataset(folder.name, events, [], SCALE)


def sequence_files(folder: Path) -> list[Path]:
    """Candidates of this form."""
    return [path for path in sorted(folder.glob("*.txt")) if not path.stem.lower().startswith("readme")]
