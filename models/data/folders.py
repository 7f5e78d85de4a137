"""Which reader a folder or file is for."""

from __future__ import annotations

from pathlib import Path

from models.data.dataset import DataSet
from models.data.messages import message_files, read_messages
from models.data.movielens import read_movielens, read_ratings
from models.data.reviews import read_reviews
from models.data.sequences import read_sequences, sequence_files
from stream.errors import DataError

EXPECTED = (
    "ratings.csv and movies.csv (MovieLens), reviews.jsonl (Amazon Reviews 2023), one .txt of `user item item ...` or "
    "`user item` lines, or clicks|ratings|comments(.jsonl|.parquet) with items beside them (freshet's own messages)"
)
EXPECTED_FILE = (
    "a .csv of ratings (userId,movieId,rating,timestamp), a .jsonl of reviews, or text of `user item item ...` or "
    "`user item` lines"
)


def read(path: Path) -> DataSet:
    """A folder or a file in one of the known forms -> its events and items. Raises DataError naming what was expected."""
    path = path.resolve()
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        raise DataError(f"{path} is not a folder and not a file; expected a folder with {EXPECTED}; or {EXPECTED_FILE}")
    if (path / "movies.csv").exists() and (path / "ratings.csv").exists():
        return read_movielens(path)
    if (path / "reviews.jsonl").exists():
        return read_reviews(path / "reviews.jsonl", path.name)
    if message_files(path):
        return read_messages(path)
    if len(files := sequence_files(path)) == 1:
        return read_sequences(files[0], path.name)
    raise DataError(f"{path}: not a known form; expected {EXPECTED}")


def _file(path: Path) -> DataSet:
    """By its suffix; anything but .csv, .jsonl and .parquet is taken for text."""
    if path.suffix == ".csv":
        return read_ratings(path)
    if path.suffix == ".jsonl":
        return read_reviews(path)
    if path.suffix == ".parquet":
        raise DataError(f"{path}: expected the folder that it lies in, or {EXPECTED_FILE}")
    return read_sequences(path)
