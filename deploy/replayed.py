"""Which events of a data set are in the source topics already, so that a replay that is repeated sends the rest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deploy.verify.log import Log
from stream.settings import Settings

if TYPE_CHECKING:
    import polars as pl


def id_prefix(events: pl.DataFrame) -> str:
    """What the ids of a data set's replayed events begin with: the same for the same events, whatever they were read from."""
    from models.data.dataset import fingerprint

    return f"{fingerprint(events)[:16]}-"


def already_there(log: Log, settings: Settings, prefix: str) -> set[int]:
    """Numbers of the events whose id is prefix + number, in the source topics as of now. Reads them whole.

    Raises BrokerError, TopologyError.
    """
    wanted = re.compile(rb'"id":"' + re.escape(prefix.encode()) + rb'([0-9]+)"')
    spans = log.spans(settings.sources)
    found: set[int] = set()
    for topic in settings.sources:
        for record in log.records(topic, spans):
            if record.value and (match := wanted.search(record.value)):
                found.add(int(match[1]))
    return found
