"""200 damaged files, made from the samples of all forms: each is refused with the file, or gives exactly the right events.

What cannot be known is left out: users and items of one look that change places where no header names them, a line end lost
between two lines of `user item item ...`, a last number of a line without an end that was cut (that is told in a note).
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from models.data import read
from models.data.dataset import Event
from models.data.forms.messages import NEEDED
from stream.core.errors import DataError
from tests.unit.models.data.data_samples import SAMPLES, Sample, shown

SEED: Final = 20_261_127
COUNT: Final = 200
PLAIN: Final = ("s3-rec", "sasrec")
"""Forms without anything that tells a user from an item."""
Draw = random.Random
Mutation = Callable[[Draw, str, str, bytes], bytes | None]


def separator(name: str, content: bytes) -> str:
    """Between the columns of a file; "" where it has none."""
    first = content.split(b"\n")[0].decode("latin-1")
    if name.endswith((".json", ".jsonl")):
        return ""
    return next((one for one in ("\t", "::", "|", ",", " ") if one in first), "")


def cut(draw: Draw, form: str, name: str, content: bytes) -> bytes | None:
    """The end is missing, from anywhere on."""
    return content[: draw.randrange(1, len(content) - 1)]


def other_separator(draw: Draw, form: str, name: str, content: bytes) -> bytes | None:
    one = separator(name, content)
    if form in PLAIN:
        return content.replace(b" ", draw.choice([b",", b";", b"|", b", "]))
    wanted = draw.choice([other for other in (";", "\t", "|", ",") if other != one])
    return content.replace(one.encode(), wanted.encode()) if one else content.replace(b": ", b"; ")


def other_encoding(draw: Draw, form: str, name: str, content: bytes) -> bytes | None:
    text = content.decode("utf-8" if name.endswith(".json") or form == "movielens 10m" else "latin-1")
    return text.encode(draw.choice(["utf-16", "utf-16-be", "utf-16-le", "utf-32", "cp037"]))


def swapped(draw: Draw, form: str, name: str, content: bytes) -> bytes | None:
    """Two columns change places, in the header, too, where there is one."""
    one = separator(name, content)
    if not one or form in PLAIN or '"' in content.decode("latin-1"):
        return None
    rows = [line.split(one) for line in content.decode("latin-1").splitlines()]
    here, there = draw.sample(range(min(len(row) for row in rows)), 2)
    if not headed(rows[0]) and {here, there} == {0, 1}:
        return None
    for row in rows:
        row[here], row[there] = row[there], row[here]
    return "".join(one.join(row) + "\n" for row in rows).encode("latin-1")


def headed(row: list[str]) -> bool:
    return not any(re.search("[0-9]", field) for field in row)


def no_header(draw: Draw, form: str, name: str, content: bytes) -> bytes | None:
    first, _, rest = content.partition(b"\n")
    return rest if name.endswith(".csv") and headed(first.decode().split(",")) else None


def no_column(draw: Draw, form: str, name: str, content: bytes) -> bytes | None:
    one = separator(name, content)
    if form == "s3-rec" or '"' in content.decode("latin-1") or not one:
        return None
    rows = [line.split(one) for line in content.decode("latin-1").splitlines()]
    gone = draw.choice(needed(form, name, rows[0]))
    for row in rows:
        del row[gone]
    return "".join(one.join(row) + "\n" for row in rows).encode("latin-1")


def needed(form: str, name: str, row: list[str]) -> list[int]:
    """The places of columns that a form cannot do without."""
    if form != "messages":
        return list(range(len(row)))
    return [index for index, field in enumerate(row) if field in NEEDED[name.split(".")[0]]]


def no_field(draw: Draw, form: str, name: str, content: bytes) -> bytes | None:
    """A field that must be there is gone from every line of JSON."""
    if not name.endswith((".json", ".jsonl")) or name.startswith(("meta_", "Toys")) or content.startswith(b"{'"):
        return None
    rows = [json.loads(line) for line in content.splitlines()]
    must = {
        "user",
        "item",
        "time",
        "reviewerID",
        "overall",
        "unixReviewTime",
        "user_id",
        "item_id",
        "rating",
        "timestamp",
    }
    gone = draw.choice(sorted(must & set(rows[0])))
    return "".join(
        json.dumps({key: value for key, value in row.items() if key != gone}) + "\n" for row in rows
    ).encode()


def quote(draw: Draw, form: str, name: str, content: bytes) -> bytes | None:
    """A double quote opens a field of an event and none closes it."""
    one = separator(name, content)
    if not one:
        index = draw.choice([found.start() for found in re.finditer(rb"[:,]", content)])
        return None if content.startswith(b"{'") else content[:index] + b'"' + content[index:]
    if name.startswith(("movies", "tags.dat", "u.item", "u.user", "users")):
        return None  # there a quote is a character as any other, or the file is not read
    starts = [0, *(found.end() for found in re.finditer(re.escape(one).encode() + rb"|\n", content[:-1]))]
    index = draw.choice(starts)
    return content[:index] + b'"' + content[index:]


def joined(draw: Draw, form: str, name: str, content: bytes) -> bytes | None:
    """The end of a line is missing between two."""
    ends = [found.start() for found in re.finditer(rb"\r?\n", content)][:-1]
    if not ends or form == "s3-rec":
        return None
    index = draw.choice(ends)
    return content[:index] + content[index:].lstrip(b"\r\n")


def cut_gzip(draw: Draw, form: str, name: str, content: bytes) -> bytes | None:
    packed = gzip.compress(content, mtime=0)
    return packed[: draw.randrange(3, len(packed) - 1)]


MUTATIONS: Final[tuple[Mutation, ...]] = (
    cut, other_separator, other_encoding, swapped, no_header, no_column, no_field, quote, joined, cut_gzip,
)  # fmt: skip
UNREAD: Final = ("links.csv", "u.user", "users.dat", "README")


def mutants() -> list[tuple[str, Sample, str, bytes]]:
    draw = random.Random(SEED)
    made: list[tuple[str, Sample, str, bytes]] = []
    while len(made) < COUNT:
        mutate = MUTATIONS[len(made) % len(MUTATIONS)]
        sample = draw.choice(SAMPLES)
        file = draw.choice([name for name in sample.files if name not in UNREAD])
        content = mutate(draw, sample.name, file, sample.files[file])
        if content is not None and content != sample.files[file]:
            made.append((f"{len(made)} {mutate.__name__} {sample.name} {file}", sample, file, content))
    return made


MUTANTS: Final = mutants()


@pytest.mark.parametrize("batch", range(10))
def test_a_damaged_file_is_refused_or_read_right(tmp_path: Path, batch: int) -> None:
    wrong = []
    for number, (name, sample, file, content) in enumerate(MUTANTS[batch::10]):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = sample._replace(files={**sample.files, file: content}).write(folder)
        try:
            data = read(path)
        except DataError as error:
            if not re.search(
                rf"{re.escape(file)}(, (after )?(line|row) \d+| cannot|: )|fits several forms", str(error)
            ):
                wrong.append(f"{name}: an error without the place: {error}"[:400])
            continue
        found = shown([Event(*row) for row in data.events.iter_rows()])
        right = shown(sample.events)
        if found == right:
            continue
        if " cut " in name and is_cut(found, right, content, data.notes, file):
            continue
        wrong.append(f"{name}: {content[:200]!r} was read as {found[:4]}")
    assert not wrong, "\n".join(wrong)


def is_cut(
    found: list[tuple[object, ...]], right: list[tuple[object, ...]], content: bytes, notes: tuple[str, ...], file: str
) -> bool:
    """Only events that are in the whole file, save perhaps the last one; and then a note says that it may be wrong."""
    strange = [event for event in found if event not in right]
    noted = any(file in note and "does not end with a line break" in note for note in notes)
    return len(found) <= len(right) and len(strange) <= 1 and (noted or not strange)


def test_the_mutants_are_the_same_on_every_run_and_of_every_kind() -> None:
    again = mutants()
    assert [(name, content) for name, _, _, content in again] == [(name, content) for name, _, _, content in MUTANTS]
    assert len(MUTANTS) == COUNT
    assert {name.split()[1] for name, *_ in MUTANTS} == {mutate.__name__ for mutate in MUTATIONS}
    assert {sample.name for _, sample, _, _ in MUTANTS} == {sample.name for sample in SAMPLES}
