"""One rating scale from the data to the proof: `train --rating-scale`, the bundle, and `freshet verify` over a change."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.verify.check import check
from deploy.verify.scope import Scope
from models.data import read
from models.data.dataset import DataSet
from stream.core.errors import DataError, SettingsError
from stream.core.messages import RATING
from stream.settings import load
from tests.unit.models.data.data_samples import SAMPLES as DATA
from tests.unit.models.data.published_samples import SAMPLES as PUBLISHED
from tests.unit.synthetic import NOW, World, partition_of

HEAD = "userId,movieId,rating,timestamp\n"
WIDE = (1.0, 10.0)


def log_of(folder: Path, *values: float) -> Path:
    """A log of freshet's own messages with these ratings."""
    lines = [json.dumps({"user": "u", "item": f"i{n}", "time": NOW, "value": value}) for n, value in enumerate(values)]
    (folder / "ratings.jsonl").write_text("\n".join(lines))
    return folder


class Trained(Exception):
    def __init__(self, data: DataSet) -> None:
        super().__init__(data.name)
        self.data = data


def train(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """What `freshet train` gives to the training, or the error that it ends with."""

    def fit(data: DataSet, *_: Any, **__: Any) -> None:
        raise Trained(data)

    monkeypatch.setattr("models.training.train.train", fit)
    monkeypatch.setattr("models.network.text.TextEncoder", lambda: None)
    ended = CliRunner().invoke(app, ["train", *words, "--out", "run"])
    return ended.exception.data if isinstance(ended.exception, Trained) else ended


def test_any_form_is_read_on_the_scale_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ratings.csv"
    file.write_text(HEAD + "1,1,10,1000000000\n1,2,1,1000000001\n")
    refused = train(monkeypatch, str(file))
    assert isinstance(refused.exception, DataError)
    assert "line 2: rating: rating '10': expected 0.5 to 5" in str(refused.exception)
    data = train(monkeypatch, str(file), "--rating-scale", "1", "10")
    assert (data.rating_scale, data.events["value"].to_list()) == (WIDE, [10.0, 1.0])
    file.write_text(HEAD + "1,1,10,1000000000\n1,2,0.5,1000000001\n")
    refused = train(monkeypatch, str(file), "--rating-scale", "1", "10")
    assert "ratings.csv, line 3: rating: rating '0.5': expected 1 to 10" in str(refused.exception)


def test_a_log_of_messages_is_held_to_the_scale_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = log_of(tmp_path, 2, 7)
    assert train(monkeypatch, str(folder), "--rating-scale", "1", "10").rating_scale == WIDE
    refused = train(monkeypatch, str(folder), "--rating-scale", "0.5", "5")
    assert isinstance(refused.exception, DataError)
    assert "ratings.jsonl, line 2: rating 7.0: expected 0.5 to 5" in str(refused.exception)


def test_a_scale_that_was_widened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = train(monkeypatch, str(log_of(tmp_path, 2, 7)))
    assert data.rating_scale == (0.5, 7.0)
    (note,) = (one for one in data.notes if "widened" in one)
    assert note.startswith("the rating scale is 0.5 to 7: widened from 0.5 to 5 to hold the ratings found; ")
    assert "--rating-scale" in note
    assert "rating_scale = [0.5, 7.0]" in note
    assert not [one for one in train(monkeypatch, str(log_of(tmp_path, 2, 4))).notes if "widened" in one]


@pytest.mark.parametrize("words", [("5", "1"), ("5", "5"), ("nan", "5"), ("1", "inf"), ("-1e300", "5")])
def test_a_scale_that_is_none_is_refused(words: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    ended = train(monkeypatch, "generated", "--rating-scale", *words)
    assert ended.exit_code == 2
    assert "expected the smallest rating below the largest" in " ".join(ended.stderr.replace("│", " ").split())


def test_the_scale_that_is_given_holds_for_one_reading(tmp_path: Path) -> None:
    folder = log_of(tmp_path, 7)
    assert read(folder, WIDE).rating_scale == WIDE
    assert read(folder).rating_scale == (0.5, 7.0)


def published(name: str, folder: Path) -> Path:
    PUBLISHED[name](folder)
    return folder


WRITTEN: dict[str, Callable[[Path], Path]] = {
    **{one.name: one.write for one in DATA},
    **{name: partial(published, name) for name in PUBLISHED},
}
"""A sample of every form -> what writes it into a folder."""


@pytest.mark.parametrize("sample", WRITTEN)
def test_every_form_is_read_on_the_scale_that_is_given(tmp_path: Path, sample: str) -> None:
    path = WRITTEN[sample](tmp_path)
    data = read(path)
    low, high = data.rating_scale
    wider = (low - 1, high + 1)
    assert read(path, wider).rating_scale == wider
    assert not any("widened" in note for note in read(path, wider).notes)
    rated = data.events.filter(data.events["value"].is_not_nan())
    if len(rated):
        with pytest.raises(DataError, match="expected"):
            read(path, (low - 2, low - 1))


def test_a_goodreads_book_without_stars_has_none_on_any_scale(tmp_path: Path) -> None:
    """0 says that there are no stars, also where the scale does not reach to 0."""
    PUBLISHED["goodreads"](tmp_path)
    assert read(tmp_path, WIDE).events["value"].is_nan().any()


def test_replay_reads_by_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr("deploy.clients.log_reader.KafkaLog", reached)  # it looks for what is there before it sends
    file = tmp_path / "ratings.csv"
    file.write_text(HEAD + "1,1,10,1000000000\n")
    assert isinstance(CliRunner().invoke(app, ["replay", str(file)]).exception, DataError)
    assert isinstance(
        CliRunner().invoke(app, ["--set", "rating_scale=[1, 10]", "replay", str(file)]).exception, Reached
    )


# verify

POSITION = f"ratings/{partition_of('ann')}"
APPLIED = {"invalid-applied", "slate-events"}
ASIDE = {"valid-dead-letter", "lost"}


def narrow_then_wide() -> World:
    """A worker of 0.5 to 5 set an 8 aside, one of 1 to 10 took the next one."""
    world = World()
    _, partition, offset = world.send(RATING, "ann", value=8.0)
    world.letter("ratings", world.log.topics["ratings"][partition][offset], "rating_out_of_scale", "validate")
    world._read["ratings", partition] = offset + 1
    world._validator = type(world._validator)(2, WIDE)
    world.send(RATING, "ann", value=8.0)
    world.work()
    return world


@pytest.mark.parametrize(
    ("scope", "kinds"),
    [
        (Scope(), {"invalid-applied", "unreported", "slate-events"}),
        (Scope(rating_scale=WIDE), ASIDE),
        (Scope(rating_scale=WIDE, rating_scale_before=(f"{POSITION}/1=0.5,5",)), set()),
        (Scope(rating_scale=WIDE, rating_scale_before=(f"{POSITION}/1=0.5 5",)), set()),
        (Scope(rating_scale_before=(f"{POSITION}/1=0.5,5", f"{POSITION}/2=1,10")), set()),
    ],
)
def test_verify_follows_a_change_of_the_scale(scope: Scope, kinds: set[str]) -> None:
    world = narrow_then_wide()
    assert set(check(world.log, world.settings, scope=scope).kinds) == kinds


@pytest.mark.parametrize("given", ["5,1", "5", "a,b", "1,2,3", "nan,5", ""])
def test_a_former_scale_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(DataError, match=r"--rating-scale-before .*: expected LOW,HIGH"):
        check(World().log, World().settings, scope=Scope(rating_scale_before=(f"{POSITION}/1={given}",)))


@pytest.mark.parametrize(
    ("given", "asked", "found"),
    [
        ({}, None, WIDE),  # nobody has said one: the bundle knows
        ({"rating_scale": WIDE}, None, WIDE),
        ({}, WIDE, WIDE),
        ({"rating_scale": (0.5, 5.0)}, WIDE, WIDE),  # the command's own word is the stronger
        ({"rating_scale": (0.5, 5.0)}, None, None),
        ({}, (0.5, 5.0), None),
    ],
)
def test_verify_takes_the_scale_of_the_bundle_and_refuses_another(given: Any, asked: Any, found: Any) -> None:
    settings = load(app_id="t", **given)
    ends = {("ratings", 0): None}
    scope = Scope(rating_scale=asked)
    if found is None:
        with pytest.raises(
            SettingsError, match=r"rating_scale: found \[0\.5, 5\.0\], expected \[1\.0, 10\.0\], .* bundle"
        ):
            scope.accepts(settings, ends, WIDE)
    else:
        assert scope.accepts(settings, ends, WIDE).rating_scale.now == found
    assert scope.accepts(settings, ends).rating_scale.now == (asked or settings.rating_scale)


def test_verify_hands_the_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Scope] = []

    def run(settings: Any, scope: Scope) -> Any:
        seen.append(scope)
        raise DataError("seen")

    monkeypatch.setattr("deploy.verify.run", run)
    CliRunner().invoke(app, ["verify", "--rating-scale", "1", "10", "--rating-scale-before", "ratings/0/7=0.5,5"])
    assert (seen[0].rating_scale, seen[0].rating_scale_before) == (WIDE, ("ratings/0/7=0.5,5",))
