"""Reads the topic `rules` as workers do: which rules are in force, and which are refused."""

from __future__ import annotations

from deploy.clients.log_reader import Log
from stream.core.rules import RuleBook
from stream.settings import Settings


def read(log: Log, settings: Settings) -> RuleBook:
    """Return the rules that are in the topic now.

    Raises:
        BrokerError: The topic cannot be read.
        TopologyError: The topic is missing.
    """
    book = RuleBook(settings.key)
    topic = settings.rules_topic
    book.apply([(record.offset, record.key, record.value) for record in log.records(topic, log.spans([topic]))])
    return book
