"""The embedded broker's parts that need no broker."""

from __future__ import annotations

import uuid

from deploy.embedded_kafka.broker import cluster_id


def test_a_cluster_id_is_never_read_as_an_option() -> None:
    """One random id in 64 begins with a hyphen, which Kafka's storage tool takes for an option."""
    ids = [cluster_id(uuid.UUID(int=first << 120 | 7)) for first in range(256)]
    assert all(len(text) == 22 and not text.startswith("-") for text in ids)
