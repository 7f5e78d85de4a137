"""Every file of a folder is read, or known to lie beside what is read, or plainly no data; else the folder is refused."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import zstandard

from models.data import read
from models.data.forms.registry import FORMS
from models.data.source import source
from stream.core.errors import DataError
from tests.conftest import ROOT
from tests.unit.models.data import published_samples
from tests.unit.models.data.data_samples import SAMPLES, lines

CLICKS = lines("user,item,time", "ann,a,1700000000000")
BY_NAME = {sample.name: sample for sample in SAMPLES}
FOLDERS = [*(sample.name for sample in SAMPLES), *published_samples.SAMPLES]
REAL = Path(os.environ.get("FRESHET_DATA") or ROOT.parent / "shared" / "data")
DOUBTFUL = (
    "clicks-2.csv", "clicks2.jsonl", "ratings.tsv", "items.tsv", "item.csv", "purchases.csv", "ratings.csv.bz2", "ratings.xlsx",
    "ratings_2.csv", "notes.txt", "more", "readme.csv", "license_plates.tsv", "events.ndjson", "other.item",
)  # fmt: skip
PLAIN = (
    "README", "README.md", "Readme.txt", "LICENSE", "LICENCE.txt", "notes.md", "paper.pdf", "plot.png", ".DS_Store", "a.md5",
    "checksums.txt", "load.py", "_SUCCESS", "README.html",
)  # fmt: skip


def folder(path: Path, name: str) -> Path:
    if name in BY_NAME:
        BY_NAME[name].write(path)
    else:
        published_samples.SAMPLES[name](path)
    return path


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_that_a_form_does_not_read_is_named(tmp_path: Path, name: str) -> None:
    folder(tmp_path, name)
    assert read(tmp_path).form in {form.name for form in FORMS}
    for other in DOUBTFUL:
        if (tmp_path / other).exists():
            continue
        (tmp_path / other).write_bytes(b"x\n")
        with pytest.raises(DataError) as found:
            read(tmp_path)
        assert other in str(found.value)
        (tmp_path / other).unlink()


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_plainly_no_data_is_passed_over(tmp_path: Path, name: str) -> None:
    before = read(folder(tmp_path, name))
    for other in PLAIN:
        (tmp_path / other).write_bytes(b"x y\n")
    (tmp_path / "__MACOSX").mkdir()
    after = read(tmp_path)
    assert (after.form, len(after.events)) == (before.form, len(before.events))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("movielens csv", ("links.csv", "genome-scores.csv", "genome-tags.csv")),
        ("movielens 100k", ("u.genre", "u.info", "u.occupation", "u1.base", "u5.test", "ua.base", "ub.test", "mku.sh")),
        ("movielens 1m", ("users.dat",)),
        ("goodreads", ("goodreads_reviews_spoiler.json", "goodreads_book_authors.json", "user_id_map.csv")),
        ("mind", ("entity_embedding.vec", "relation_embedding.vec")),
        ("yoochoose", ("yoochoose-test.dat", "dataset-README.txt")),
        ("diginetica", ("products.csv", "train-clicks.csv", "train-queries.csv")),
        ("lastfm", ("userid-profile.tsv",)),
        ("kuairec", ("user_features.csv", "item_daily_features.csv", "social_network.csv")),
        ("recbole", ("ml-100k.user", "ml-100k.kg", "ml-100k.link")),
        ("yelp", ("yelp_academic_dataset_user.json", "yelp_academic_dataset_checkin.json")),
        ("steam users", ("bundle_data.json",)),
    ],
)
def test_what_the_publisher_puts_beside_is_passed_over(tmp_path: Path, name: str, files: tuple[str, ...]) -> None:
    before = read(folder(tmp_path, name))
    for at, file in enumerate(files):
        end = ("", ".gz", ".zst")[at % 3]
        pack = (bytes, gzip.compress, zstandard.compress)[at % 3]
        (tmp_path / f"{file}{end}").write_bytes(pack(b"x y\n"))
    assert len(read(tmp_path).events) == len(before.events)


def test_of_two_names_of_one_published_file_both_are_told(tmp_path: Path) -> None:
    folder(tmp_path, "yelp")
    (tmp_path / "tip.json").write_bytes(b"{}\n")
    with pytest.raises(DataError, match=r"Yelp.*does not read tip\.json"):
        read(tmp_path)


def test_the_error_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_bytes(CLICKS)
    for number in range(6):
        (tmp_path / f"clicks-{number}.csv").write_bytes(CLICKS)
    with pytest.raises(DataError, match=r"clicks-0\.csv, .*clicks-3\.csv and 2 more.*name the one file") as found:
        read(tmp_path)
    assert "clicks, ratings, comments (.jsonl, .json, .csv or .parquet)" in str(found.value)
    assert len(read(tmp_path / "clicks.csv").events) == 1


@pytest.mark.parametrize(("end", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_a_file_and_its_packed_twin_hold_the_same(tmp_path: Path, end: str, pack: object) -> None:
    assert callable(pack)
    (tmp_path / "clicks.csv").write_bytes(CLICKS)
    (tmp_path / f"clicks.csv{end}").write_bytes(pack(CLICKS))
    assert len(read(tmp_path).events) == 1
    (tmp_path / f"clicks.csv{end}").write_bytes(pack(CLICKS + b"bob,b,1700000000001\n"))
    with pytest.raises(DataError, match=rf"clicks\.csv and clicks\.csv{end} count as the same file"):
        read(tmp_path)
    (tmp_path / f"clicks.csv{end}").write_bytes(pack(CLICKS * 1000)[:-4])
    with pytest.raises(DataError, match=rf"clicks\.csv{end}"):
        read(tmp_path)


def test_names_that_differ_in_case_alone_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_bytes(CLICKS)
    (tmp_path / "Clicks.csv").write_bytes(CLICKS + b"bob,b,1700000000001\n")
    if len(source(tmp_path).twins) != 1:
        pytest.skip("this file system does not tell cases apart")
    with pytest.raises(DataError, match=r"count as the same file"):
        read(tmp_path)


def test_a_link_to_nothing_and_a_pipe_are_told(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_bytes(CLICKS)
    (tmp_path / "ratings.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"does not read ratings\.csv"):
        read(tmp_path)
    (tmp_path / "ratings.csv").unlink()
    os.mkfifo(tmp_path / "comments.csv")
    with pytest.raises(DataError, match=r"does not read comments\.csv"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "form", "events"),
    [
        ("ml-latest-small", "MovieLens CSV", 104_519),
        ("amazon-2023-sample", "reviews.jsonl", 2_764),
        ("amazon-beauty-2014", "S3-Rec or SASRec text", 198_502),
    ],
)
def test_real_folders_are_read(name: str, form: str, events: int) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is not here; FRESHET_DATA names a folder of data sets")
    data = read(REAL / name)
    assert (data.form, len(data.events)) == (form, events)
