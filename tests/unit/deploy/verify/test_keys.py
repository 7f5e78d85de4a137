"""`freshet verify` follows the setting `key` with code of its own: what it takes for a user's key is what the worker takes."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.clients.murmur2 import murmur2
from deploy.verify import Scope, check
from deploy.verify import keys as checked
from deploy.verify.keys import Keys
from deploy.verify.validator import Accepted, Validator
from stream.core.decoder import EventDecoder
from stream.core.errors import DataError, RecordError, TopologyError
from stream.core.keys import FORMS, JSON, LONG, UTF8, key_of, user_of
from stream.core.messages import CLICK, RATING
from stream.core.state import encode
from stream.settings import load
from tests.unit.synthetic import NOW, PARTITIONS, World

USERS = ("100", "-7", "9223372036854775807")
TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(max_codepoint=127), max_size=12),
    st.integers(-(2**64), 2**64).map(str),
    st.sampled_from(
        ["*", "", "-0", "+1", "007", "\u0661", "1_0", "x" * 257, "caf\u00e9", "a/b", 'a"b', "\x7f", "\u2028"]
    ),
)
KEYS = st.one_of(
    st.binary(max_size=9), st.binary(min_size=8, max_size=8), TEXTS.map(str.encode),
    TEXTS.map(lambda text: json.dumps(text).encode()), TEXTS.map(lambda text: json.dumps(text, ensure_ascii=False).encode()),
    st.sampled_from([b"[" * 5000, b"1e400", b"1" * 5000, b"NaN", b' "a"', b'"a', b'"\\ud800"', b'"\\u001F"', b'"\\/"']),
)  # fmt: skip


def world(form: str, **more: Any) -> World:
    made = World(load(app_id="t", key=form, **more))
    for partition in range(PARTITIONS):
        made.claim(partition, 1)
    for user in USERS:
        for number in range(3):
            made.send(number % 3, user, item=f"i{number}")
    made.work()
    made.anyone(1)
    return made


def kinds(made: World, **more: Any) -> list[str]:
    return sorted(check(made.log, load(app_id="t", **more)).kinds)


# The same keys as the worker's


def test_the_forms_are_those_of_the_setting() -> None:
    assert tuple(FORMS) == checked.FORMS


@given(TEXTS)
@settings(max_examples=500, deadline=None)
def test_a_user_has_the_key_that_the_worker_gives_it(user: str) -> None:
    for name, form in FORMS.items():
        assert Keys(name).of(user) == form.write(user)


@given(KEYS)
@settings(max_examples=500, deadline=None)
def test_a_key_has_the_user_that_the_worker_reads(key: bytes) -> None:
    for form in FORMS:
        assert Keys(form).user(key) == user_of(key, form)


@given(KEYS, TEXTS, st.booleans())
@settings(max_examples=500, deadline=None)
def test_worker_and_check_take_the_same_records(key: bytes, user: str, own: bool) -> None:
    body = json.dumps({"user": user, "item": "i", "time": NOW}).encode()
    for form, written in FORMS.items():
        key = (written.write(user) or key) if own else key
        verdict = Validator(1, (0.5, 5), key=form).validate(CLICK, 0, NOW, key, body)
        try:
            event = EventDecoder(kafka_hash, 1, (0.5, 5), key=form).decode(CLICK, 0, 0, NOW, key, body)
        except RecordError:
            assert isinstance(verdict, str)
        else:
            assert isinstance(verdict, Accepted)
            assert verdict.user == event.user


# A history in each form


@pytest.mark.parametrize("form", FORMS)
def test_a_history_is_green(form: str) -> None:
    report = check(world(form).log, load(app_id="t", key=form))
    assert report.violations == []
    assert (report.exit_code, report.applied, report.users, report.slates) == (0, 9, 3, 4)


@pytest.mark.parametrize(("written", "given"), [(UTF8, JSON), (JSON, UTF8), (LONG, UTF8), (UTF8, LONG), (JSON, LONG)])
def test_the_check_is_refused_with_another_setting_than_the_workers(written: str, given: str) -> None:
    message = rf'key: found "{given}", expected "{written}".* partition 0 .*FRESHET_KEY={written}'
    with pytest.raises(TopologyError, match=message) as error:
        check(world(written).log, load(app_id="t", key=given))
    assert error.value.exit_code == 78


def test_a_claim_that_names_no_form_is_of_plain_text() -> None:
    made = world(UTF8)
    topic = made.settings.changelog_topic
    for rows in made.log.topics[topic]:
        assert b'"key"' in rows[0].value  # type: ignore[operator]
        body = json.loads(rows[0].value or b"")
        del body["key"]
        rows[0] = rows[0]._replace(value=json.dumps(body).encode())
    assert kinds(made) == []
    with pytest.raises(TopologyError, match='found "json", expected "utf8"'):
        kinds(made, key=JSON)


@pytest.mark.parametrize("form", FORMS)
def test_a_state_from_a_wrong_key_is_red(form: str) -> None:
    """An event under a key of another form that a broken worker has taken, and one that it has passed over without a letter."""
    for other in FORMS:
        if other == form:
            continue
        made = world(form)
        key, body = key_of("100", other), json.dumps({"user": "100", "item": "i9", "time": NOW}).encode()
        home = murmur2(key_of("100", form)) % PARTITIONS
        _, partition, offset = made.send_raw(CLICK, key, body, home)
        state = made.states[key_of("100", form)]
        state.folded, state.seq, state.applied[CLICK] = [(CLICK, offset)], state.seq + 1, offset
        made.write(key_of("100", form), partition, encode(state))
        made.log.offsets["clicks", partition] = offset + 1
        assert "invalid-applied" in kinds(made, key=form)
        assert "unreported" in kinds(made, key=form)


@pytest.mark.parametrize("form", FORMS)
def test_a_letter_of_a_wrong_key_is_right_and_one_of_a_right_key_is_red(form: str) -> None:
    made = world(form)
    other = next(one for one in FORMS if one != form)
    body = json.dumps({"user": "100", "item": "i9", "time": NOW}).encode()
    made.send_raw(CLICK, key_of("100", other), body, 1)
    made.work()
    assert kinds(made, key=form) == []
    home = murmur2(key_of("100", form)) % PARTITIONS
    _, partition, offset = made.send_raw(CLICK, key_of("100", form), body, home)
    made.letter("clicks", made.log.topics["clicks"][partition][offset], "key_mismatch")
    assert kinds(made, key=form) == ["valid-dead-letter"]


@pytest.mark.parametrize("form", FORMS)
def test_states_and_slates_under_keys_of_another_form_are_red(form: str) -> None:
    for other in FORMS:
        if other == form:
            continue
        made = world(form)
        state, slate = (
            next(row for row in made.log.all(topic) if row.key == key_of("100", form))
            for topic in (made.settings.changelog_topic, made.settings.recommendations_topic)
        )
        strange = key_of("100", other)
        made.log.append(made.settings.changelog_topic, state.partition, strange, state.value, state.headers)
        made.log.append(made.settings.recommendations_topic, slate.partition, strange, slate.value)
        found = kinds(made, key=form)
        assert found == ["slate", "state"], (form, other)


def test_a_slate_for_anyone_unknown_under_a_users_form_is_red() -> None:
    made = world(JSON)
    made.anyone(1)
    topic = made.settings.recommendations_topic
    row = next(row for row in made.log.all(topic) if row.key == b"*")
    made.log.append(topic, row.partition, b'"*"', row.value, row.headers)
    assert kinds(made, key=JSON) == ["slate"]


def test_violations_name_the_user_and_not_its_bytes() -> None:
    made = world(LONG)
    topic = made.settings.changelog_topic
    for rows in made.log.topics[topic]:
        rows[:] = [row for row in rows if row.key != key_of("-7", LONG)]
    made.log.renumber(topic)
    report = check(made.log, load(app_id="t", key=LONG))
    assert report.violations
    assert {violation.user for violation in report.violations} == {"-7"}


# The ledger names users


@pytest.mark.parametrize("form", FORMS)
def test_a_ledgers_key_is_the_user_in_each_form(form: str, tmp_path: Path) -> None:
    made = world(form)
    lines = []
    for row in made.log.all("ratings"):
        fields = {"id": str(row.offset), "topic": "ratings", "key": user_of(row.key, form), "status": "acked"}
        lines.append(fields | {"sha256": sha256(row.value or b"").hexdigest()})
    file = tmp_path / "sends.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = check(made.log, load(app_id="t", key=form), scope=Scope(producer_log=file))
    assert (report.acked, report.violations) == (3, [])
    file.write_text(json.dumps(lines[0] | {"sha256": "0" * 64}) + "\n")
    report = check(made.log, load(app_id="t", key=form), scope=Scope(producer_log=file))
    assert [(one.kind, one.user) for one in report.violations] == [("ledger", lines[0]["key"])]


def test_a_ledger_of_users_that_have_no_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sends.jsonl"
    line = {"id": "1", "topic": "clicks", "key": "alice", "status": "acked", "sha256": "0" * 64}
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(
        DataError, match="line 1, key: found 'alice', expected a whole number of 64 bits as text, or none"
    ):
        check(world(LONG).log, load(app_id="t", key=LONG), scope=Scope(producer_log=file))


def test_ratings_count_as_clicks_do() -> None:
    made = world(LONG)
    made.send(RATING, "100", item="i9", value=4.5)
    made.work()
    assert kinds(made, key=LONG) == []
