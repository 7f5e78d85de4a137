"""Which reader a folder is for."""

from __future__ import annotations

from pathlib import Path

from models.data.dataset import DataSet
from models.data.messages import message_files, read_messages
from models.data.movielens import read_movielens
from models.data.reviews import read_reviews
from models.data.sequences import read_sequences, sequence_files
from stream.errors import DataError

EXPECTED = (
    "ratings.csv and movies.csv (MovieLens), reviews.jsonl (Amazon Reviews 2023), one .txt of `user item item ...` lines, "
    "or clicks|ratings|comments(.jsonl|.parquet) with items beside them (freshet's own messages)"
)


def read(folder: Path) -> DataSet:
    """A folder in one of the known forms -> its events and items. Raises DataError naming what was expected."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with {EXPECTED}")
    if (folder / "movies.csv").exists() and (folder / "ratings.csv").exists():
        return read_movielens(folder)
    if (folder / "reviews.jsonl").exists():
        return read_reviews(folder)
    if message_files(folder):
        return read_messages(folder)
    if len(sequence_files(folder)) == 1:
        return read_sequences(folder)
    raise DataError(f"{folder}: not a known form; expected {EXPECTED}")
