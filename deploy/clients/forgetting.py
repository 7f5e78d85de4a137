"""Asks the workers to forget a user, and waits until they have done it."""

from __future__ import annotations

import time

from deploy.clients.log_reader import KafkaLog
from deploy.clients.murmur2 import murmur2
from deploy.clients.producer import Producer, Sent
from stream.core.forgetting import control
from stream.core.keys import key_of_somebody
from stream.settings import Settings

PAUSE = 0.2  # seconds between two looks at the group's committed offsets


def ask_to_forget(settings: Settings, user: str, by: str = "") -> list[Sent]:
    """Write a control record into each source topic. Return where they are.

    Raises:
        RecordError: Nobody can have this id, or the user has no key in the form of the setting `key`.
        BrokerError, TopologyError: As in Producer.
    """
    key = key_of_somebody(user, settings.key)
    with Producer(settings) as producer:
        futures = [producer.send(topic, key, None, control(by)) for topic in settings.sources]
        return [producer.position(future) for future in futures]


def has_slate(settings: Settings, user: str) -> bool:
    """Return whether a slate of the user stands in `recommendations`, of any placement: every user with a state has one.

    Raises RecordError as `ask_to_forget` does, and BrokerError.
    """
    key, topic = key_of_somebody(user, settings.key), settings.recommendations_topic
    log, found = KafkaLog(settings), False
    try:
        spans = log.spans([topic])
        place = (topic, murmur2(key) % len(spans))
        for record in log.records(topic, {place: spans[place]}):
            if record.key == key:
                found = record.value is not None
        return found
    finally:
        log.close()


def wait_forgotten(settings: Settings, records: list[Sent], seconds: float) -> bool:
    """Wait until the workers have applied control records. Return False if they have not in time. Raises BrokerError."""
    log = KafkaLog(settings)
    end = time.monotonic() + seconds
    try:
        while True:
            committed = log.committed()
            if all(committed.get((one.topic, one.partition), 0) > one.offset for one in records):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(PAUSE)
    finally:
        log.close()
