"""A Quix Streams application: per user a state that counts each event, and one output record per event.

.rivals/bin/python -m tests.rivals.quix SETUP. Quix Streams' own defaults (changelog topics on) but for what
Setup names, and for exactly-once a transaction timeout of 15 s in place of librdkafka's 60: each start has a new
transactional id, so what a killed process left open blocks its readers until then.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.rivals.setup import Setup, number, parse, take

STATE = "applied"
DEFAULT_COMMIT_INTERVAL = 5.0  # seconds
TRANSACTION_TIMEOUT = 15.0  # seconds


def changelog(group: str, source: str) -> str:
    return f"changelog__{group}--{source}--default"


def user_of(key: bytes) -> str:
    """The user in a key of the changelog: user|"applied"."""
    return key.rpartition(b"|")[0].decode().strip('"')


def run(setup: Setup) -> None:
    from quixstreams import Application, State

    transaction = {"transaction.timeout.ms": int(TRANSACTION_TIMEOUT * 1000)}
    app = Application(
        broker_address=setup.brokers,
        consumer_group=setup.group,
        commit_interval=setup.commit_interval,
        auto_offset_reset="earliest",
        processing_guarantee=setup.guarantee,
        state_dir=setup.folder,
        loglevel="WARNING",
        consumer_extra_config={
            "session.timeout.ms": int(setup.session_timeout * 1000),
            "heartbeat.interval.ms": int(setup.heartbeat * 1000),
        },
        producer_extra_config=transaction if setup.guarantee == "exactly-once" else None,
    )
    source = app.topic(setup.source, key_deserializer="str", value_deserializer="json")
    output = app.topic(setup.output, key_serializer="str", value_serializer="json")

    def count(event: dict[str, Any], state: State) -> dict[str, Any]:
        event_number = number(event["id"])
        counts = take(state.get(STATE, default=[]), event_number)
        state.set(STATE, counts)
        return {"user": event["user"], "number": event_number, "count": sum(counts)}

    app.dataframe(source).apply(count, stateful=True).to_topic(output)
    app.run()


if __name__ == "__main__":
    run(parse(sys.argv[1]))
