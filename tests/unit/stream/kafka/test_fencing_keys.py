"""Claims say the form of the users' keys: another one is refused, and no state is lost by a wrong setting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stream.core.errors import TopologyError
from stream.core.fencing_log import CLAIM_KEY, LeftOut, Written, decode, stamp
from stream.core.keys import FORMS, JSON, LONG, UTF8, key_of, user_of
from tests.unit.stream.kafka.changelogs import Log, Writer


@pytest.fixture
def log() -> Log:
    return Log()


def keys_of(form: str, *users: str) -> list[bytes]:
    return [key_of(user, form) for user in users]


@pytest.mark.parametrize("partition", [0, 3])
@pytest.mark.parametrize(("before", "now"), [(UTF8, JSON), (UTF8, LONG), (JSON, UTF8), (LONG, JSON)])
def test_another_form_of_keys_is_refused(log: Log, tmp_path: Path, before: str, now: str, partition: int) -> None:
    """Also for a partition that has no claim yet: partition 0 has one."""
    Writer(log, tmp_path / "a", key=before).take_over()
    other = Writer(log, tmp_path / "b", key=now)
    other.store.prepare(partition)
    if partition == 0:
        other.store.apply(0, log.records)
    message = (
        rf'key: found "{now}", expected "{before}".*partition 0 of log.*FRESHET_KEY={before}.*another app_id and prefix'
    )
    with pytest.raises(TopologyError, match=message) as error:
        asyncio.run(other.fence.take_over([partition]))
    assert error.value.exit_code == 78
    assert len(log.records) == 1


def test_a_claim_that_does_not_say_the_form_is_of_plain_text(log: Log, tmp_path: Path) -> None:
    """Versions before the setting wrote no other."""
    value = b'{"epoch": 1, "worker": "%s", "time": 5, "topics": {}, "partitions": 2}' % (b"a" * 32)
    log.records.append(Written(0, CLAIM_KEY, value, stamp(1)))
    assert decode(value).key == UTF8
    other = Writer(log, tmp_path / "b", key=JSON)
    other.store.apply(0, log.records)
    with pytest.raises(TopologyError, match='found "json", expected "utf8"'):
        other.take_over()
    same = Writer(log, tmp_path / "c")
    same.store.apply(0, log.records)
    same.take_over()
    assert decode(log.records[-1].value).key == UTF8


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", FORMS)
def test_a_folder_that_was_read_back_with_another_setting_holds_all_states(
    log: Log, tmp_path: Path, form: str, wrong: str
) -> None:
    """The setting is put right after the refusal, and no user is taken for a new one: also of those states that compaction has
    left before the first claim."""
    writer = Writer(log, tmp_path / "a", key=form)
    writer.take_over()
    ann, ben = keys_of(form, "100", "-2")
    writer.write_keys({ann: b"1"})
    writer.take_over()
    writer.write_keys({ben: b"2"})
    log.records[0] = Written(0, ann, b"0", stamp(1))  # as compaction leaves it: no claim comes before it
    other = Writer(log, tmp_path / "b", key=wrong)
    assert other.store.apply(0, log.records) == LeftOut()
    if wrong != form:
        with pytest.raises(TopologyError):
            other.take_over()
    again = Writer.over(other, key=form)
    again.take_over()
    assert again.store.read(0, [ann, ben]) == [b"1", b"2"]
    again.write_keys({ann: b"3"})


@pytest.mark.parametrize("form", FORMS)
def test_a_key_of_another_form_is_no_users_behind_a_claim(log: Log, tmp_path: Path, form: str) -> None:
    writer = Writer(log, tmp_path / "a", key=form)
    writer.take_over()
    strange = [key for key in ((1).to_bytes(8), b'"a\\/b"', b"\xffwriter2") if user_of(key, form) is None]
    log.records += [Written(len(log.records) + at, key, b"?", stamp(1)) for at, key in enumerate(strange)]
    (ann,) = keys_of(form, "7")
    writer.write_keys({ann: b"1"})
    assert sum(one.forged for one in writer.left_out) == len(strange)
    other = Writer(log, tmp_path / "b", key=form)
    assert other.store.apply(0, log.records) == LeftOut(0, len(strange))
    assert other.store.read(0, [ann, *strange]) == [b"1", *[None for _ in strange]]


@pytest.mark.parametrize("form", FORMS)
def test_a_state_over_which_somebody_has_written_is_written_again_in_any_form(
    log: Log, tmp_path: Path, form: str
) -> None:
    writer = Writer(log, tmp_path / "a", key=form)
    writer.take_over()
    ann, ben = keys_of(form, "7", "8")
    writer.write_keys({ann: b"1"})
    log.records.append(Written(len(log.records), ann, b"stale", stamp(1)))
    writer.write_keys({ben: b"2"})
    assert log.kept_by_compaction()[ann] == b"1"
    log.records.append(Written(len(log.records), ann, b"stale", stamp(1)))
    other = Writer(log, tmp_path / "b", key=form)
    other.take_over()
    assert (other.store.read(0, [ann]), log.kept_by_compaction()[ann]) == ([b"1"], b"1")


def test_a_claim_of_a_form_that_this_version_does_not_know_is_refused_and_loses_no_state(
    log: Log, tmp_path: Path
) -> None:
    value = b'{"epoch": 1, "worker": "%s", "time": 5, "key": "uuid"}' % (b"a" * 32)
    log.records += [Written(0, CLAIM_KEY, value, stamp(1)), Written(1, bytes(8), b"1", stamp(1))]
    other = Writer(log, tmp_path / "a")
    other.store.apply(0, log.records)
    assert other.store.read(0, [bytes(8)]) == [b"1"]
    with pytest.raises(TopologyError, match='found "utf8", expected "uuid"'):
        other.take_over()
