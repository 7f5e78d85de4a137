"""Dead letters: choosing, correcting, and what goes back to a source topic, once. The topics are lists in memory here."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as kafka_hash

from deploy.clients.murmur2 import murmur2
from deploy.clients.printable import printable
from deploy.clients.producer import Sent
from deploy.dead_letters import corrections
from deploy.dead_letters.corrections import Acceptance, Correction, Edits
from deploy.dead_letters.reader import Choice, DeadLetter, DeadLetterReader, moment
from deploy.dead_letters.redrive import CLOCKS_MS, Pace, Redrive, Status
from stream.core.decoder import EventDecoder
from stream.core.errors import REASONS, DataError, RecordError
from stream.core.origin import ORIGINAL_RECORD_HEADER
from stream.pipeline.dead_letter import DeadLetters
from stream.settings import load
from tests.unit.synthetic import Lists

SETTINGS = load(prefix="p-", partitions=2, min_time="off")
CLICKS, RATINGS, COMMENTS = SETTINGS.sources
NOW = int(time.time() * 1000)
DAY_MS = 86_400_000
ACCEPTANCE = Acceptance(SETTINGS)
Headers = tuple[tuple[str, bytes], ...]


def rating(user: str = "alice", **fields: Any) -> bytes:
    return json.dumps({"user": user, "item": "i1", "time": 5, "value": 4} | fields).encode()


class World:
    """Source topics whose unacceptable records become dead letters at once, by the worker's own decoder."""

    def __init__(self) -> None:
        self.log = Lists([*SETTINGS.sources, SETTINGS.dead_letters_topic], 2)
        self.decoder = EventDecoder(kafka_hash, 2, SETTINGS.rating_scale, SETTINGS.sources)
        self.letters = DeadLetters("00")
        self.ids: list[tuple[bytes, str]] = []  # (user, id) of the events that were accepted

    def put(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), now: int = NOW) -> Sent:
        partition = murmur2(key or b"") % 2
        offset = self.log.append(topic, partition, key, value, headers, now)
        row = self.log.topics[topic][partition][-1]
        try:
            behaviour = SETTINGS.sources.index(topic)
            event = self.decoder.decode(behaviour, partition, offset, now, key, value, headers)
            self.ids.append((event.user, event.id))
        except RecordError as error:
            self.refuse(topic, row, error)
        return Sent(topic, partition, offset)

    def refuse(self, topic: str, row: Any, error: RecordError) -> None:
        letter = self.letters.letter(topic, row.partition, row, error)
        self.log.append(
            SETTINGS.dead_letters_topic, row.partition, letter.key, letter.value, tuple(letter.headers), row.timestamp
        )

    # what the tool sends with

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Any) -> Any:
        return self.put(topic, key, value, tuple(headers))

    def position(self, future: Any) -> Sent:
        assert isinstance(future, Sent)
        return future

    def box(self) -> DeadLetterReader:
        return DeadLetterReader(SETTINGS, self.log)

    def replay(
        self,
        fixed: dict[tuple[str, str, str], Correction] | None = None,
        again: bool = False,
        dry: bool = False,
    ) -> list[tuple[str, Status]]:
        task = Redrive(SETTINGS, self.box(), Choice(), fixed, again)
        return [("/".join(one.dead_letter.source), one.status) for one in task.run(task.plan(), None if dry else self)]


def source(place: Sent) -> tuple[str, str, str]:
    return place.topic, str(place.partition), str(place.offset)


def fixed(place: Sent, **parts: bytes) -> dict[tuple[str, str, str], Correction]:
    return {source(place): Correction(**parts)}


def fate(place: Sent, status: Status) -> tuple[str, Status]:
    return "/".join(source(place)), status


@pytest.fixture
def world() -> World:
    return World()


# sending back


def test_a_corrected_letter_is_sent_once_however_often_it_is_asked_for(world: World) -> None:
    bad = world.put(RATINGS, b"alice", rating(value="four"), (("trace", b"t"), ("x", b"\xff")))
    right = fixed(bad, value=rating())
    assert world.replay(right, dry=True) == [fate(bad, Status.READY)]
    assert world.ids == []
    assert world.replay(right) == [fate(bad, Status.SENT)]
    assert world.replay(right) == [fate(bad, Status.BACK)]
    origin = "/".join(source(bad))
    assert world.ids == [(b"alice", origin)]
    row = world.log.all(RATINGS)[-1]
    assert row.headers == ((ORIGINAL_RECORD_HEADER, origin.encode()), ("trace", b"t"), ("x", b"\xff"))
    assert world.replay(right, again=True) == [fate(bad, Status.SENT)]
    assert world.ids == [(b"alice", origin)] * 2  # and to the worker a duplicate


def test_a_letter_that_is_written_again_days_later_finds_what_was_sent_back_before(world: World) -> None:
    """As after the change of app_id: the sources are read from their beginning, the first letters have expired, and the broker
    stamps the new ones with its own time."""
    bad = world.put(RATINGS, b"alice", rating(value="four"))
    right = fixed(bad, value=rating())
    assert world.replay(right) == [fate(bad, Status.SENT)]
    rows = world.log.topics[SETTINGS.dead_letters_topic][bad.partition]
    rows[:] = [row._replace(offset=9, timestamp=NOW + 9 * DAY_MS) for row in rows]
    world.log.first[SETTINGS.dead_letters_topic, bad.partition] = 9
    assert [letter.appended_ms for letter in world.box().read()] == [NOW]
    assert world.replay(right) == [fate(bad, Status.BACK)]


def test_a_letter_of_an_older_version_has_the_records_time_as_its_own(world: World) -> None:
    world.put(RATINGS, b"alice", rating(value="four"))
    (row,) = world.log.all(SETTINGS.dead_letters_topic)
    old = tuple(pair for pair in row.headers if pair[0] != "__rec.errors.appended.at")
    assert len(old) == len(row.headers) - 1
    for headers, timestamp, appended in (
        (old, NOW - 5, NOW - 5),
        ((*old, ("__rec.errors.appended.at", b"-1")), NOW - 5, NOW - 5),
        ((*old, ("__rec.errors.appended.at", b"%d" % (NOW + 10**9))), NOW, NOW),  # never after the letter itself
    ):
        letter = DeadLetter.of("d", row._replace(headers=headers, timestamp=timestamp))
        assert letter.appended_ms == appended


def test_what_would_fail_again_stays_and_the_others_go(world: World) -> None:
    good = world.put(RATINGS, b"alice", rating(value="four"))
    bad = world.put(RATINGS, b"bob", rating("bob", value="five"))
    both = fixed(good, value=rating()) | fixed(bad, value=rating("bob", value=9))
    assert sorted(world.replay(both)) == sorted([fate(good, Status.SENT), fate(bad, Status.WRONG)])
    assert [user for user, _ in world.ids] == [b"alice"]
    assert sorted(world.replay()) == sorted([fate(good, Status.BACK), fate(bad, Status.WRONG)])  # as they are


def test_a_second_round_keeps_the_first_place(world: World) -> None:
    """Sent back, failed again (the worker's scale had changed), sent back again: still the same event."""
    first = world.put(RATINGS, b"alice", rating(value="four"))
    world.decoder = EventDecoder(kafka_hash, 2, (1, 3), SETTINGS.sources)
    assert world.replay(fixed(first, value=rating())) == [fate(first, Status.SENT)]
    assert world.ids == []
    world.decoder = EventDecoder(kafka_hash, 2, SETTINGS.rating_scale, SETTINGS.sources)
    second = next(letter for letter in world.box().read() if letter.source != source(first))
    assert second.origin(SETTINGS) == "/".join(source(first))
    everything = world.replay(None)
    assert sorted(status for _, status in everything) == [Status.SENT, Status.WRONG]
    assert world.ids == [(b"alice", "/".join(source(first)))]
    assert world.replay(fixed(first, value=rating())) == [fate(first, Status.BACK)]
    assert {status for _, status in world.replay(None)} == {Status.BACK}  # the one that is still wrong, too
    assert sorted(status for _, status in world.replay(None, again=True)) == [Status.SENT, Status.WRONG]


def test_one_record_in_two_letters_goes_back_once(world: World) -> None:
    """After a crash a record may be read, and set aside, once more."""
    bad = world.put(RATINGS, b"alice", rating(value="four"))
    world.refuse(RATINGS, world.log.all(RATINGS)[0], RecordError("validate", "wrong_type", "value", "no"))
    assert sorted(status for _, status in world.replay(fixed(bad, value=rating()))) == [Status.REPEATED, Status.SENT]
    assert len(world.ids) == 1


def test_a_forged_header_under_another_key_holds_no_letter_back(world: World) -> None:
    bad = world.put(RATINGS, b"alice", rating(value="four"))
    forged = ((ORIGINAL_RECORD_HEADER, "/".join(source(bad)).encode()),)
    world.put(RATINGS, b"mallory", rating("mallory"), forged)
    world.put(RATINGS, b"mallory", b"{", forged)  # a letter that claims the same origin
    assert world.replay(fixed(bad, value=rating())) == [fate(bad, Status.SENT)]
    assert (b"alice", "/".join(source(bad))) in world.ids


def test_a_key_is_corrected_and_places_the_record(world: World) -> None:
    bad = world.put(RATINGS, None, rating())
    assert world.replay(fixed(bad, key=b"alice")) == [fate(bad, Status.SENT)]
    assert world.log.topics[RATINGS][murmur2(b"alice") % 2][-1].key == b"alice"
    assert world.replay(fixed(bad, key=b"alice")) == [fate(bad, Status.BACK)]


def test_a_good_record_on_a_wrong_partition_goes_back_as_it_is(world: World) -> None:
    value = b'{ "user":"alice", "item":"i1", "time":5, "value":4.0 }'
    wrong = 1 - murmur2(b"alice") % 2
    world.log.append(RATINGS, wrong, b"alice", value, (), NOW)
    world.refuse(
        RATINGS, world.log.topics[RATINGS][wrong][-1], RecordError("partition", "mispartitioned", "user", "no")
    )
    ((_, status),) = world.replay()
    assert status == Status.SENT
    assert world.log.topics[RATINGS][1 - wrong][-1].value == value


def test_a_truncated_letter_needs_its_whole_value(world: World) -> None:
    bad = world.put(COMMENTS, b"alice", b'{"x": "' + b"x" * (5 << 20))
    whole = json.dumps({"user": "alice", "item": "i1", "time": 5, "text": "short"}).encode()
    kept = next(iter(world.box().read())).value
    assert kept is not None
    assert world.replay() == world.replay(fixed(bad, value=kept)) == [fate(bad, Status.TRUNCATED)]
    assert world.replay(fixed(bad, value=whole)) == [fate(bad, Status.SENT)]


def test_a_letter_from_elsewhere_is_not_sent(world: World) -> None:
    world.log.topics["other"] = [[], []]
    world.log.append("other", 0, b"alice", rating())
    world.refuse("other", world.log.topics["other"][0][0], RecordError("decode", "malformed_json", "", "no"))
    assert world.replay() == [("other/0/0", Status.WRONG)]


def test_what_was_deleted_since_is_said_to_be_unseen(world: World) -> None:
    bad = world.put(RATINGS, b"alice", rating(value="four"))
    home = (RATINGS, murmur2(b"alice") % 2)
    assert Redrive(SETTINGS, world.box(), Choice(), fixed(bad, value=rating())).plan().unseen == []
    world.put(RATINGS, b"alice", rating(), now=NOW + 2 * CLOCKS_MS)
    world.log.first[home] = 1
    assert Redrive(SETTINGS, world.box(), Choice(), fixed(bad, value=rating())).plan().unseen == [home]


def test_the_rate_is_kept() -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    pace = Pace(4, lambda: clock[0], sleep)
    for _ in range(9):
        pace.wait()
    assert clock[0] == pytest.approx(2.0)
    clock[0] += 100  # what was late is not made up for
    pace.wait()
    pace.wait()
    assert clock[0] == pytest.approx(102.25)


# choosing


def test_choices(world: World) -> None:
    world.put(RATINGS, b"alice", rating(value="four"))
    world.put(CLICKS, b"alice", b"{", now=NOW)
    dead_letters = list(world.box().read())

    def count(**choice: Any) -> int:
        return sum(Choice(**choice).has(letter) for letter in dead_letters)

    assert count() == 2
    assert (count(topic=RATINGS), count(topic="ratings"), count(reason="malformed_json"), count(stage="key")) == (
        1,
        0,
        1,
        0,
    )
    failed = dead_letters[0].failed_ms
    assert (count(since=failed - 1000), count(since=failed + 60_000)) == (2, 0)
    assert (count(until=failed - 1000), count(until=failed + 60_000)) == (0, 2)


def test_moments() -> None:
    assert moment("2026-01-31T12:00:00Z") == moment("2026-01-31T12:00") == moment("1769860800000") == 1769860800000
    assert abs(moment("2h") - (time.time() - 7200) * 1000) < 5000
    for bad in ("", "yesterday", "5", "2 fortnights", "1700000000", "٣d", "１７６９８６０８０００００"):
        with pytest.raises(ValueError, match=r"expected 2h|looks like seconds"):
            moment(bad)


def test_one_letter_by_its_place_or_its_sources(world: World) -> None:
    bad = world.put(RATINGS, b"alice", rating(value="four"))
    world.put(CLICKS, b"bob", b"{")
    box = world.box()
    found = box.find((bad.topic, bad.partition, bad.offset))
    assert found.source == source(bad)
    assert box.find((found.position.topic, found.position.partition, found.position.offset)) == found
    with pytest.raises(DataError, match="no dead letter"):
        box.find((RATINGS, 1, 99))


def test_what_a_terminal_shows_is_harmless() -> None:
    assert printable("a\x1b[31m\r\nb\u202ec\x00\x9bé") == r"a\x1b[31m\r\nb\u202ec\x00\x9bé"


# correcting


def line_of(letter: DeadLetter, edits: Edits | None = None) -> dict[str, Any]:
    return corrections.line(ACCEPTANCE, letter, edits or Edits())


def only(world: World) -> DeadLetter:
    (letter,) = world.box().read()
    return letter


@pytest.mark.parametrize(
    ("value", "field", "expected"),
    [
        (rating(value="four"), "value", "number"),
        (rating(value=9), "value", "0.5 to 5"),
        (b'{"user": "alice", "time": 5, "value": 4}', "item", "missing, expected string, 1 to 256"),
        (rating(item=7), "item", "expected string"),
        (rating(scene=7), "scene", "optional"),
        (rating(time=10**14), "time", "at most one hour after"),
        (rating(user="bob"), "user", "key"),
        (b"[1]", "", "expected a JSON object"),
        (b"{", "", "the JSON ends before it is complete"),
        (b"", "", "empty"),
        (None, "", "null"),
    ],
)
def test_the_wrong_field_is_named(value: bytes | None, field: str, expected: str) -> None:
    (problem,) = ACCEPTANCE.problems(RATINGS, b"alice", value)
    assert problem.field == field
    assert expected in problem.message


def test_a_clock_that_is_behind_makes_no_event_come_from_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW / 1000 - 60 * DAY_MS / 1000)
    now = rating(time=NOW)
    assert [problem.field for problem in ACCEPTANCE.problems(RATINGS, b"alice", now)] == ["time"]
    assert ACCEPTANCE.problems(RATINGS, b"alice", now, after_ms=NOW) == []


def test_every_wrong_field_is_named_at_once() -> None:
    bad = b'{"user": "alice", "time": -5, "value": "x", "scene": 1}'
    assert {problem.field for problem in ACCEPTANCE.problems(RATINGS, b"alice", bad)} == {
        "item",
        "time",
        "value",
        "scene",
    }


def test_edits_apply_by_the_schemas_types(world: World) -> None:
    world.put(RATINGS, None, b'{"user": "alice", "movie": "i1", "time": "x", "value": 4, "junk": 1}')
    edits = Edits([("movie", "item"), ("gone", "item")], ["junk"], [("time", "42"), ("item", "42")], key_from_user=True)
    row = line_of(only(world), edits)
    assert row["value"] == {"user": "alice", "value": 4, "time": 42, "item": "42"}
    assert (row["key"], row["wrong"]) == ("alice", [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"alice", b"{"),
        (b"alice", b"\xff\x00not text"),
        (b"\xff", rating(value="four")),
        (b"alice", b'{"user": "alice", "x": 1e400}'),
        (b"alice", b'{"user": "\\ud800"}'),
        (b"alice", b'{"user": "alice",  "user": "alice", "time": 1.0, "item": true}'),
        (b"alice", b"[1, 2]"),
        (b"alice", b'"x"'),
        (b"alice", b""),
        (None, None),
    ],
)
def test_an_untouched_line_means_the_same_bytes(
    world: World, tmp_path: Path, key: bytes | None, value: bytes | None
) -> None:
    world.put(RATINGS, key, value)
    letter = only(world)
    file = tmp_path / "fix.jsonl"
    file.write_text(json.dumps(line_of(letter), ensure_ascii=False) + "\n", encoding="utf-8")
    found = corrections.read(file)
    assert corrections.corrected(letter, found[letter.source]) == (key, value)


def test_an_edit_that_python_finds_equal_is_still_an_edit(world: World) -> None:
    world.put(RATINGS, b"alice", b'{"user": "alice", "item": "i1", "time": true, "value": 4}')
    value = corrections.as_bytes(line_of(only(world))["value"] | {"time": 1})
    assert json.loads(corrections.corrected(only(world), Correction(value=value))[1] or b"")["time"] is not True


def test_corrections_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "corrected.jsonl"
    file.write_text(
        '{"topic": "p-ratings", "partition": 1, "offset": 7, "value": {"user": "\u00fc"}}\n\n'
        '{"topic": "p-clicks", "partition": "0", "offset": "2", "key": "bob", "value": "raw"}\n'
        '{"topic": "p-clicks", "partition": 0, "offset": 3, "key": {"base64": "/w=="}}\n',
        encoding="utf-8",
    )
    assert corrections.read(file) == {
        ("p-ratings", "1", "7"): Correction(None, '{"user": "\u00fc"}'.encode()),
        ("p-clicks", "0", "2"): Correction(b"bob", b"raw"),
        ("p-clicks", "0", "3"): Correction(b"\xff", None),
    }


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "3", '{"topic": "t", "partition": 1}', "\x00", '{"topic":"t","partition":1,"offset":1,"key":{"base64":"?"}}',
     "[" * 100_000, '{"topic":"t","partition":1,"offset":1,"value":"\\ud800"}'],
)  # fmt: skip
def test_a_bad_correction_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "corrected.jsonl"
    file.write_text("\n" + line + "\n")
    with pytest.raises(DataError, match="line 2"):
        corrections.read(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"topic": "t", "partition": 0, "offset": 1, "value": {"time": 1,}}', "malformed at character 65"),
        ("{'topic': 't'}", "malformed at character 2"),
        ("[]", "expected {topic, partition, offset, key"),
    ],
)
def test_a_bad_correction_says_whether_its_json_is_malformed(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "corrected.jsonl"
    file.write_text("\n" + line + "\n")
    with pytest.raises(DataError, match="line 2") as raised:
        corrections.read(file)
    assert message in str(raised.value)


def test_a_correction_keeps_the_hint_of_another_envelope_and_shows_what_was_found() -> None:
    event = {"user": "alice", "item": "i", "time": NOW, "value": 4}
    row = json.dumps({"op": "c", "before": None, "after": event, "source": {}}).encode()
    hint, *missing = ACCEPTANCE.problems(RATINGS, b"alice", row)
    assert (hint.field, 'set envelope = "debezium"' in hint.message) == ("", True)
    assert {problem.field for problem in missing} == {"user", "item", "time", "value"}
    (problem,) = ACCEPTANCE.problems(RATINGS, b"alice", rating(time=f"{NOW}"))
    assert f'found "{NOW}" (a text), expected integer' in problem.message
    assert "without quotes" in problem.message


def test_every_reason_is_explained() -> None:
    assert all(text.endswith(".") for text in REASONS.values())
