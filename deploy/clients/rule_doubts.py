"""Warnings about rules that `freshet rules put` sends: it reads the topic `items`, since it has no catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from deploy.clients.log_reader import Log
from deploy.clients.missing_items import MOST
from deploy.clients.published_items import catalogued
from stream.core.filters import Columns, Facts, facts_of
from stream.core.rule_warnings import of_items
from stream.core.rules import Active

WAIT: Final = 10.0
"""Seconds that a put waits for the look-up after its own acknowledgement."""


def columns_of(log: Log, topic: str) -> Columns | None:
    """Return what filters can ask of the items of a topic; None if it has more than MOST records.

    Raises TopologyError if the topic is missing, BrokerError.
    """
    spans = log.spans([topic])
    if sum(span.end - span.start for span in spans.values()) > MOST:
        return None
    items = [item for item in catalogued(log, topic, spans).values() if item is not None]
    facts: list[Facts | None] = [None, *map(facts_of, items)]  # row 0 stands for every unknown item
    rows = {item.item: row for row, item in enumerate(items, start=1)}
    return Columns(facts, np.array([False, *(item.available for item in items)]), lambda item: rows.get(item, 0))


def warnings(log: Log, topic: str, put: Sequence[Active], rules: Sequence[Active]) -> list[str]:
    """Return the warnings about the items that rules name, a line each.

    Args:
        log: The topics.
        topic: The items topic.
        put: The rules that are sent.
        rules: All rules that are in force then.

    Raises:
        BrokerError: The topic cannot be read.
        TopologyError: The topic is missing.
    """
    columns = columns_of(log, topic)
    return (
        [] if columns is None else [f"{rule.rule}: {text}" for rule in put for text in of_items(rule, rules, columns)]
    )
