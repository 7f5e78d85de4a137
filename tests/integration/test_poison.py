"""Every kind of bad record becomes a dead letter with stage, field and reason; the good ones around it are all applied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from kafka import KafkaProducer

from deploy.clients.arguments import client_arguments
from deploy.clients.murmur2 import murmur2
from deploy.verify.validator import Accepted, Validator
from stream.core.decoder import EventDecoder
from stream.core.errors import RecordError
from stream.core.messages import SOURCE_TOPICS
from stream.settings import Settings
from tests.chaos import input as inputs
from tests.poison import KEY, NOW, ODD, OLDEST, POISON, body
from tests.settings import QUICK

PARTITIONS = 4
SCALE = (0.5, 5.0)


@pytest.mark.integration
@pytest.mark.faults
def test_poison_is_set_aside_and_everything_else_applied(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    settings = world(**QUICK)
    inputs.poison(settings, bundles, tmp_path, seed=5, rounds=1, workers=1, kill=False, rate=100)


@pytest.mark.parametrize("name", POISON)
def test_decoder_and_judge_refuse_it(name: str) -> None:
    one = POISON[name]
    behaviour = SOURCE_TOPICS.index(one.topic)
    partition = (murmur2(one.key or b"") + one.elsewhere) % PARTITIONS
    with pytest.raises(RecordError) as refused:
        EventDecoder(kafka_hash, PARTITIONS, SCALE, oldest=OLDEST).decode(
            behaviour, partition, 1, NOW, one.key, one.value, one.headers
        )
    error = refused.value
    assert (error.stage, error.reason, error.field) == (one.stage, one.reason, one.field)
    assert isinstance(Validator(PARTITIONS, SCALE, OLDEST).validate(behaviour, partition, NOW, one.key, one.value), str)


@pytest.mark.parametrize("name", ODD)
def test_decoder_and_judge_take_it(name: str) -> None:
    odd = ODD[name]
    behaviour = SOURCE_TOPICS.index(odd.topic)
    partition = murmur2(odd.key) % PARTITIONS
    event = EventDecoder(kafka_hash, PARTITIONS, SCALE, oldest=OLDEST).decode(
        behaviour, partition, 1, NOW, odd.key, odd.value, odd.headers
    )
    verdict = Validator(PARTITIONS, SCALE, OLDEST).validate(behaviour, partition, NOW, odd.key, odd.value)
    assert isinstance(verdict, Accepted)
    assert (event.user, event.item, event.time) == (odd.key, odd.item, verdict.time)
    assert (event.item, event.id) == (verdict.item, verdict.id)


@pytest.mark.integration
def test_mispartitioned_means_not_where_kafka_python_puts_it(world: Callable[..., Settings]) -> None:
    settings = world(partitions=2)
    producer = KafkaProducer(**client_arguments(settings))
    try:
        metadata = producer.send(settings.sources[0], key=KEY, value=body()).get(20)
        assert metadata.partition == murmur2(KEY) % settings.partitions
    finally:
        producer.close()
