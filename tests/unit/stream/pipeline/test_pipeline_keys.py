"""The setting `key`: the worker takes events by it, and its slates and states lie under the same keys."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from msgspec import UNSET

from stream.catalogue.catalogue import Catalogue
from stream.core.decoder import EventDecoder
from stream.core.diversity import Diversity
from stream.core.errors import RecordError, SettingsError
from stream.core.fold import PLAIN
from stream.core.keys import FORMS, JSON, LONG, UTF8, key_of
from stream.core.messages import CLICK, SourceEvent
from stream.core.placements import Placement
from stream.core.rules import NO_RULES
from stream.core.score_tables import ScoreTables
from stream.pipeline.parts import PipelineParts
from stream.pipeline.pipeline import Pipeline
from stream.settings import load
from tests.unit.stream.catalogue.test_catalogue import Tower, bundle
from tests.unit.synthetic import NOW

SCALE = (0.5, 5.0)
PARTITIONS = 7
DECODERS = {form: EventDecoder(kafka_hash, PARTITIONS, SCALE, key=form) for form in FORMS}


def decode(form: str, key: bytes | None, user: Any) -> SourceEvent:
    decoder = DECODERS[form]
    body = json.dumps({"user": user, "item": "i1", "time": NOW}).encode()
    return decoder.decode(CLICK, decoder.partition(key or b""), 3, NOW, key, body)


def refused(form: str, key: bytes | None, user: Any) -> RecordError:
    with pytest.raises(RecordError) as error:
        decode(form, key, user)
    return error.value


@pytest.mark.parametrize(
    ("form", "key", "user"),
    [
        (UTF8, "caf\u00e9".encode(), "caf\u00e9"),
        (JSON, '"caf\u00e9"'.encode(), "caf\u00e9"),
        (JSON, b'"a\\"b/\\n"', 'a"b/\n'),
        (JSON, b'"42"', "42"),
        (LONG, (42).to_bytes(8), "42"),
        (LONG, b"\xff" * 8, "-1"),
    ],
)
def test_a_record_is_taken_by_its_key_and_the_event_keeps_it(form: str, key: bytes, user: str) -> None:
    assert decode(form, key, user).user == key == key_of(user, form)


def test_the_setting_is_one_of_the_forms() -> None:
    assert load().key == UTF8
    assert [load(key=form).key for form in FORMS] == list(FORMS)
    with pytest.raises(SettingsError, match="key: found a text of 6 characters, expected utf8, json or long"):
        load(key="string")


@pytest.mark.parametrize("form", FORMS)
def test_a_key_of_another_form_is_a_dead_letter_that_names_what_to_set(form: str) -> None:
    for other in FORMS:
        if other != form:
            error = refused(form, key_of("42", other), "42")
            assert (error.stage, error.reason, error.field) == ("key", "key_mismatch", "user")
            assert f'set key = "{other}" (FRESHET_KEY)' in str(error)


@pytest.mark.parametrize(
    ("form", "message"), [(UTF8, "in UTF-8"), (JSON, "as a JSON string"), (LONG, "as an 8-byte number")]
)
def test_a_null_key_says_what_is_expected(form: str, message: str) -> None:
    error = refused(form, None, "42")
    assert (error.reason, error.field) == ("null_key", "user")
    assert message in str(error)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("user", [42, None, "*", "", "a\0b"])
def test_a_user_that_is_no_text_or_stands_for_something_else_stays_refused(form: str, user: Any) -> None:
    """A number is none either, where the key is one: `42` and `42.0` would be two spellings of one user."""
    key = {UTF8: str(user).encode(), JSON: json.dumps(str(user)).encode(), LONG: (42).to_bytes(8)}[form]
    assert refused(form, key, user).stage == "validate"


@pytest.mark.parametrize("form", FORMS)
def test_a_record_on_a_wrong_partition_is_told_by_its_own_keys_hash(form: str) -> None:
    decoder, key = DECODERS[form], key_of("42", form)
    wrong = (decoder.partition(key) + 1) % PARTITIONS
    body = json.dumps({"user": "42", "item": "i1", "time": NOW}).encode()
    with pytest.raises(RecordError) as error:
        decoder.decode(CLICK, wrong, 3, NOW, key, body)
    assert error.value.reason == "mispartitioned"


@pytest.mark.parametrize("form", FORMS)
def test_a_slate_names_the_user_as_its_event_does(form: str) -> None:
    parts: dict[str, Any] = dict.fromkeys(
        ("consumer", "batches", "fence", "store", "decoder", "comments", "dead_letters", "misplaced", "sent_before",
         "rules", "standing", "announce", "executor", "metrics", "clock")
    )  # fmt: skip
    settings = load(key=form)
    serving: Any = SimpleNamespace(bundle="b", published=())
    pipeline = Pipeline(PipelineParts(settings=settings, serving=serving, **parts))
    state = SimpleNamespace(chain=bytes(16), seq=1, applied=(3, -1, -1))
    event = decode(form, key_of("42", form), "42")
    batch: Any = SimpleNamespace(user=event.user, partition=event.partition, state=state, folded=[event])
    snapshot = Catalogue(bundle(), Tower()).snapshot
    slate = pipeline._slate(batch, [], snapshot, NO_RULES, NOW, False, Placement("", 10, None, PLAIN, True))
    assert slate.rules is slate.diversity is slate.placement is slate.tables is UNSET
    tables = ScoreTables(7, np.zeros((1, 0), np.int32), np.zeros((1, 0), np.float32), np.zeros(1, np.float32))
    learnt = replace(snapshot, tables=tables)
    assert pipeline._slate(batch, [], learnt, NO_RULES, NOW, False, Placement("", 10, None, PLAIN, True)).tables == 7
    cart = pipeline._slate(batch, [], snapshot, NO_RULES, NOW, False, Placement("cart", 10, None, Diversity(0.5), True))
    assert (cart.diversity, cart.placement) == (0.5, "cart")
    assert (slate.user, slate.events) == ("42", [("clicks", event.partition, 3)])
    again = pipeline._slate(batch, [], snapshot, NO_RULES, NOW, False, Placement("", 10, None, PLAIN, True), ("a",))
    assert msgspec.json.encode(again) == msgspec.json.encode(msgspec.structs.replace(slate, withdrawn=("a",)))
