"""Times in another unit, or older than `min_time`: refused at every seam, with the unit named; never applied as 1970."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from aiokafka.partitioner import murmur2 as kafka_hash
from faust.types import TP
from typer.testing import CliRunner

from deploy.cli.commands.send import _checked
from deploy.cli.commands.verify import time_of
from deploy.cli.data_options import oldest
from deploy.cli.main import app
from deploy.dead_letters import reader
from deploy.dead_letters.corrections import Acceptance
from deploy.verify.check import check
from deploy.verify.scope import Scope
from deploy.verify.validator import Accepted, Validator
from models.data.checked import require_accepted
from models.data.dataset import Event, dataset
from stream.core.decoder import EventDecoder
from stream.core.errors import REASONS, DataError, RecordError, SettingsError
from stream.core.messages import CLICK
from stream.core.times import hint, moment, parse, unit
from stream.core.validation import Rules
from stream.observability.metrics import BatchFigures, Metrics
from stream.pipeline.dead_letter import DeadLetters
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.refusal_log import EVERY, RefusalLog
from stream.settings import Settings, load
from tests.unit.synthetic import NOW, Row, World, partition_of

SCALE = (0.5, 5.0)
OLDEST = 946_684_800_000  # 2000-01-01
SECONDS = NOW // 1000
DECODER = EventDecoder(kafka_hash, 1, SCALE, oldest=OLDEST)


def click(time: float, user: str = "u") -> bytes:
    return json.dumps({"user": user, "item": "i", "time": time}).encode()


def refusal(time: float) -> RecordError:
    with pytest.raises(RecordError) as raised:
        DECODER.decode(CLICK, 0, 0, NOW, b"u", click(time))
    assert raised.value.reason in REASONS
    return raised.value


@pytest.mark.parametrize(
    ("time", "reason", "likely", "message"),
    [
        (SECONDS, "far_past", "seconds", "1700000000 looks like seconds; times are milliseconds: multiply by 1000"),
        (NOW * 1000, "out_of_range", "microseconds", "looks like microseconds; times are milliseconds: divide by 1000"),
        (
            NOW * 10**6,
            "out_of_range",
            "nanoseconds",
            "looks like nanoseconds; times are milliseconds: divide by 1000000",
        ),
        (0, "far_past", "", "expected 2000-01-01 or later, by the setting min_time, got 0"),
        (OLDEST - 1, "far_past", "", "expected 2000-01-01 or later, by the setting min_time, got 946684799999"),
        (NOW + 10**10, "far_future", "", "expected at most one hour after the append time"),
    ],
)
def test_the_decoder_names_the_unit(time: int, reason: str, likely: str, message: str) -> None:
    error = refusal(time)
    assert (error.stage, error.reason, error.field, error.unit) == ("validate", reason, "time", likely)
    assert message in str(error)


def test_the_decoder_takes_what_is_not_older() -> None:
    assert DECODER.decode(CLICK, 0, 0, NOW, b"u", click(OLDEST)).time == OLDEST
    assert EventDecoder(kafka_hash, 1, SCALE).decode(CLICK, 0, 0, NOW, b"u", click(0)).time == 0


def test_a_unit_is_named_only_where_something_speaks_for_it() -> None:
    assert [unit(time) for time in (0, 1, 10**8, SECONDS, 10**11, NOW, 10**14, NOW * 1000, NOW * 10**6, 10**30)] == [
        "", "", "", "seconds", "", "", "", "microseconds", "nanoseconds", "",
    ]  # fmt: skip
    assert hint(NOW, "seconds") == f"{NOW} looks like milliseconds; times are seconds: divide by 1000"


# the setting


@pytest.mark.parametrize(
    ("given", "oldest", "kept"),
    [
        (None, OLDEST, "2000-01-01"), ("off", 0, "off"), ("0", 0, "0"),
        ("1990-05-01", 641_520_000_000, "1990-05-01"), ("20000101", OLDEST, "20000101"),
        ("1990-05-01T02:00+02:00", 641_520_000_000, "1990-05-01T02:00+02:00"), ("946684800000", OLDEST, "946684800000"),
    ],
)  # fmt: skip
def test_the_setting(given: object, oldest: int, kept: str) -> None:
    settings = load() if given is None else load(min_time=given)
    assert (settings.oldest, settings.min_time) == (oldest, kept)


def test_the_setting_in_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "freshet.toml").write_text("min_time = 1990-05-01\n")
    monkeypatch.setenv("FRESHET_CONFIG", str(tmp_path / "freshet.toml"))
    assert load().oldest == 641_520_000_000


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("soon", "min_time: expected an ISO date (2000-01-01), epoch milliseconds, or off"),
        ("", "min_time: expected an ISO date"),
        (-1, "min_time: expected an ISO date"),
        (True, "min_time: expected an ISO date"),
        ("99999999999999999999", "min_time: expected an ISO date"),
        ("946684800", "min_time: 946684800 looks like seconds; times are milliseconds: multiply by 1000"),
    ],
)
def test_a_setting_that_is_none(given: object, why: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(min_time=given)
    assert str(raised.value).startswith(why)


# the worker


def test_the_worker_makes_a_dead_letter_counts_it_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    settings = load()
    pipeline: Any = object.__new__(Pipeline)
    pipeline._topics, pipeline._settings, pipeline._misplaced = settings.sources, settings, None
    pipeline._decoder, pipeline._dead_letters, pipeline._refusals = (
        DECODER,
        DeadLetters("00"),
        RefusalLog(lambda: 0.0),
    )
    figures = BatchFigures()
    rows = [Row(0, at, NOW, b"u", click(time)) for at, time in enumerate((SECONDS, SECONDS, NOW * 1000, 0, NOW))]
    with caplog.at_level(logging.WARNING):
        events, dead_letters = pipeline._decode(SimpleNamespace(parts={TP("clicks", 0): rows}), figures)
    assert [event.time for event in events] == [NOW]
    reasons = [dict(letter.headers)["__rec.errors.reason"] for letter in dead_letters["dead-letters", 0]]
    assert reasons == [b"far_past", b"far_past", b"out_of_range", b"far_past"]
    metrics = Metrics(settings.sources)
    metrics.observe_batch(figures)
    value = metrics.registry.get_sample_value
    assert value("freshet_wrong_unit_records_total", {"unit": "seconds"}) == 2
    assert value("freshet_wrong_unit_records_total", {"unit": "microseconds"}) == 1
    assert value("freshet_wrong_unit_records_total", {"unit": "nanoseconds"}) == 0
    assert value("freshet_dead_letters_total", {"topic": "clicks", "stage": "validate", "reason": "far_past"}) == 3
    past, range_ = [one for one in caplog.records if one.name == "freshet.deadletters"]
    assert "1700000000 looks like seconds; times are milliseconds: multiply by 1000" in past.getMessage()
    assert past.getMessage().startswith("clicks/0/0 becomes a dead letter (far_past): time: ")
    assert range_.getMessage().startswith("clicks/0/2 becomes a dead letter (out_of_range): time: ")
    for warning in (past, range_):
        assert warning.getMessage().endswith("`freshet deadletters list` shows all")
        assert (warning.stage, warning.field) == ("validate", "time")  # type: ignore[attr-defined]


def test_each_reason_has_a_warning_a_minute_that_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    refusals = RefusalLog(lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for second, time in ((0.0, SECONDS), (1.0, SECONDS), (2.0, NOW * 1000), (EVERY, SECONDS), (EVERY + 1, SECONDS)):
            now[0] = second
            refusals.see("clicks", 0, int(second), refusal(time))
        now[0] = 3 * EVERY
        refusals.see("clicks", 1, 7, RecordError("validate", "wrong_type", "item", "expected a text"))
        refusals.see("clicks", 1, 8, refusal(5))
    lines: list[Any] = caplog.records
    assert [(one.reason, one.records, one.unit) for one in lines] == [
        ("far_past", 1, "seconds"),
        ("out_of_range", 1, "microseconds"),
        ("far_past", 2, "seconds"),
        ("wrong_type", 1, ""),
        ("far_past", 2, ""),
    ]
    assert "min_time" in lines[-1].getMessage()
    assert lines[3].getMessage() == (
        "clicks/1/7 becomes a dead letter (wrong_type): item: expected a text; `freshet deadletters list` shows all"
    )


# what sends and reads


def test_send_says_the_same() -> None:
    with pytest.raises(RecordError, match="1700000000 looks like seconds; times are milliseconds: multiply by 1000"):
        list(_checked("click", Settings(), iter([("", click(SECONDS))])))
    assert list(_checked("click", load(min_time="off"), iter([("", click(SECONDS))])))


def test_corrections_say_the_same() -> None:
    (problem,) = Acceptance(load()).problems("clicks", b"u", click(SECONDS))
    assert (problem.field, "looks like seconds" in problem.message) == ("time", True)
    assert Acceptance(load(min_time="off")).problems("clicks", b"u", click(SECONDS)) == []


def test_data_that_is_older_says_what_to_do() -> None:
    data = dataset("old", [Event("u", "i", CLICK, OLDEST - 86_400_000), Event("u", "j", CLICK, NOW)], [], SCALE)
    expected = (
        r"^old: time: found 946598400000, expected 2000-01-01 or later, by the setting min_time \(event 1 of 2: .*\); if these "
        r"times are right, train and replay with --min-time 1999-12-31, and set min_time for the worker"
    )
    with pytest.raises(DataError, match=expected):
        require_accepted(data.name, data.events, Rules(SCALE, OLDEST))
    require_accepted(data.name, data.events, Rules(SCALE, OLDEST - 86_400_000))
    data = dataset("wrong", [Event("u", "i", CLICK, SECONDS)], [], SCALE)
    with pytest.raises(DataError, match="1700000000 looks like seconds; times are milliseconds: multiply by 1000"):
        require_accepted(data.name, data.events, Rules(SCALE, OLDEST))


@pytest.mark.parametrize("command", [("train", "--out", "run"), ("replay",)])
def test_train_and_replay_refuse_data_that_is_older(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        pass

    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr("deploy.clients.log_reader.KafkaLog", reached)
    monkeypatch.setattr("models.training.train.train", reached)
    monkeypatch.setattr("models.network.text.TextEncoder", lambda: None)
    (tmp_path / "clicks.jsonl").write_bytes(click(SECONDS))
    name, *more = command
    error = CliRunner().invoke(app, [name, str(tmp_path), *more]).exception
    assert isinstance(error, DataError)
    assert "looks like seconds" in str(error)
    for given in (
        [name, str(tmp_path), *more, "--min-time", "1970-01-01"],
        ["--set", "min_time=off", name, str(tmp_path), *more],
    ):
        assert isinstance(CliRunner().invoke(app, given).exception, Reached)
    assert CliRunner().invoke(app, [name, str(tmp_path), *more, "--min-time", "soon"]).exit_code == 2


def test_evaluate_and_read_ratings_say_so_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr("models.evaluation.evaluate.evaluate", reached)
    monkeypatch.setattr("models.text_rating.protocol.reading_protocol", reached)
    monkeypatch.setattr("models.network.text.TextEncoder", lambda: SimpleNamespace(encode=None))
    (tmp_path / "clicks.jsonl").write_bytes(click(OLDEST - 1))
    for command in (["evaluate", str(tmp_path)], ["read-ratings", str(tmp_path), "--out", "reader"]):
        ended = CliRunner().invoke(app, command)
        assert isinstance(ended.exception, Reached)
        assert "note: " in ended.stderr
        assert "train and replay with --min-time 1999-12-31" in ended.stderr
        assert "note: " not in CliRunner().invoke(app, ["--set", "min_time=off", *command]).stderr


# `freshet verify`


def test_the_judge_goes_by_the_same_setting() -> None:
    validator = Validator(1, SCALE, oldest=OLDEST)
    assert (
        validator.validate(CLICK, 0, NOW, b"u", click(SECONDS)) == "time 1700000000 is before 946684800000 (min_time)"
    )
    assert isinstance(validator.validate(CLICK, 0, NOW, b"u", click(OLDEST)), Accepted)
    assert isinstance(Validator(1, SCALE).validate(CLICK, 0, NOW, b"u", click(0)), Accepted)


def old_and_new() -> World:
    """A worker without min_time took one event of 1970, one with it set the next one aside."""
    world = World()
    world.send(CLICK, "ann", time=SECONDS)
    world.work()
    _, partition, offset = world.send(CLICK, "ann", time=SECONDS)
    row = world.log.topics["clicks"][partition][offset]
    world.letter("clicks", row, "looks like seconds", "validate")
    world._read["clicks", partition] = offset + 1
    world.commit()
    return world


PLACE = f"clicks/{partition_of('ann')}"
APPLIED = {"invalid-applied", "slate-events", "unreported"}
ASIDE = {"valid-dead-letter", "lost"}


@pytest.mark.parametrize(
    ("before", "kinds"),
    [
        ((), APPLIED),
        ((f"{PLACE}/1=off",), set()),
        ((f"{PLACE}/2=off",), ASIDE),
        ((f"clicks/{1 - partition_of('ann')}/1=off",), APPLIED),
        ((f"{NOW + 1}=off",), ASIDE),
        ((f"{NOW}=off",), APPLIED),
        ((f"{NOW + 1}=off", f"{PLACE}/1=off"), set()),  # a place of its own counts before a time
        ((f"{PLACE}/2=2000-01-01", f"{PLACE}/1=off"), set()),
    ],
)
def test_verify_follows_a_change_of_the_setting(before: tuple[str, ...], kinds: set[str]) -> None:
    world = old_and_new()
    report = check(world.log, world.settings, scope=Scope(min_time_before=before))
    assert set(report.kinds) == kinds


def test_verify_is_told_of_another_setting_than_its_own() -> None:
    world = World()
    world.send(CLICK, "ann", time=SECONDS)
    world.work()
    assert set(check(world.log, world.settings).kinds) == APPLIED
    assert check(world.log, world.settings, scope=Scope(min_time="off")).kinds == {}
    assert check(world.log, load(app_id="t", min_time="off")).kinds == {}


@pytest.mark.parametrize(
    ("before", "given"),
    [
        ("clicks/0/1", "--min-time-before clicks/0/1: expected POSITION=VALUE"),
        ("clocks/0/1=off", "--min-time-before clocks/0/1=off: not a partition of a source topic"),
        ("clicks/9/1=off", "not a partition of a source topic"),
        ("clicks/0/x=off", "expected topic/partition/offset, or a time"),
        ("soon=off", "expected topic/partition/offset, or a time"),
        ("clicks/0/1=soon", r"expected an ISO date \(2000-01-01\), epoch milliseconds, or off"),
    ],
)
def test_a_change_that_is_none_is_refused(before: str, given: str) -> None:
    with pytest.raises(DataError, match=given):
        check(World().log, World().settings, scope=Scope(min_time_before=(before,)))


def test_verify_hands_the_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Scope] = []

    def run(settings: Settings, scope: Scope) -> Any:
        seen.append(scope)
        raise DataError("seen")

    monkeypatch.setattr("deploy.verify.run", run)
    CliRunner().invoke(app, ["verify", "--min-time", "off", "--min-time-before", "clicks/0/7=off"])
    assert (seen[0].min_time, seen[0].min_time_before) == ("off", ("clicks/0/7=off",))


# numbers that are no epoch milliseconds


@pytest.mark.parametrize("given", [1996, "1996"])
def test_a_year_is_its_first_day(given: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = 820_454_400_000  # 1996-01-01
    assert load(min_time=given).oldest == first
    (tmp_path / "freshet.toml").write_text(f"min_time = {given!r}\n")
    monkeypatch.setenv("FRESHET_CONFIG", str(tmp_path / "freshet.toml"))
    assert load().oldest == first
    monkeypatch.setenv("FRESHET_MIN_TIME", str(given))
    assert load().oldest == first
    assert oldest(str(given), load()) == first
    assert moment(str(given)) == first


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("1", "found 1, which is 1970-01-01T00:00:00Z as epoch milliseconds; expected"),
        ("199605", "write the date (1996-05-01) if you mean one"),
        ("315532799999", "found 315532799999, which is 1979-12-31T23:59:59Z as epoch milliseconds"),
        ("20000101120000", "found 20000101120000, which is 2603-10-12T"),
        ("0999", "expected"),
        ("1969", "from 1970 to 9999"),
        ("0001-01-01", "from 1970 to 9999"),
        ("9" * 5000, "expected"),
        ("0001-01-01T00:00+23:59", "from 1970 to 9999"),
        ("9999-12-31T23:59-23:59", "from 1970 to 9999"),
        ("946684800", "946684800 looks like seconds; times are milliseconds: multiply by 1000"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_meant_is_refused_with_the_likely_reading(given: str, why: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(min_time=given)
    assert why in str(raised.value)
    for read in (moment, time_of, reader.moment):
        with pytest.raises((ValueError, typer.BadParameter)) as refused:
            read(given)
        assert why in str(refused.value)
    with pytest.raises(DataError) as error:
        check(World().log, World().settings, scope=Scope(min_time_before=(f"{given}=off",)))
    assert why in str(error.value)


def test_a_number_of_today_and_0_are_taken() -> None:
    for given, found in (
        ("0", 0),
        ("315532800000", 315_532_800_000),
        (str(NOW), NOW),
        ("4102444800000", 4_102_444_800_000),
    ):
        assert (parse(given), time_of(given), reader.moment(given)) == (found, found, found)
    assert parse("1970-05-01") == 10_368_000_000  # a date says what it means


@pytest.mark.parametrize("command", [["verify", "--since"], ["verify", "--until"], ["deadletters", "list", "--since"]])
@pytest.mark.parametrize("given", ["0001-01-01", "9" * 23, "199605", "1700000000"])
def test_a_range_by_such_a_number_is_wrong_usage(command: list[str], given: str) -> None:
    ended = CliRunner().invoke(app, [*command, given])
    assert ended.exit_code == 2, ended.exception
    assert "expected" in ended.stderr or "looks like seconds" in ended.stderr
