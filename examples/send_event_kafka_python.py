"""Send a click with kafka-python and print the slate that follows.

python send_event_kafka_python.py [BROKERS] [USER] [ITEM]
"""

import json
import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError


def main(brokers: str = "127.0.0.1:9092", user: str = "ada", item: str = "318") -> None:
    event = {"user": user, "item": item, "time": int(time.time() * 1000)}  # times are epoch milliseconds
    try:
        producer = KafkaProducer(bootstrap_servers=brokers, acks="all")
        sent = producer.send("clicks", key=user.encode(), value=json.dumps(event).encode()).get(timeout=30)
    except KafkaError as error:
        sys.exit(f"not sent: {error}: does a broker run on {brokers}? (freshet broker start)")

    # A user's slates are on the same partition number as the user's events.
    consumer = KafkaConsumer(
        bootstrap_servers=brokers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        consumer_timeout_ms=30_000,
    )
    consumer.assign([TopicPartition("recommendations", sent.partition)])
    for message in consumer:
        slate = json.loads(message.value)
        if slate["user"] == user and slate["applied"].get(f"clicks/{sent.partition}", -1) >= sent.offset:
            print([scored["item"] for scored in slate["items"]], f"{slate['latency_ms']} ms")
            return
    sys.exit("no slate within 30 s: does a worker run?")


if __name__ == "__main__":
    main(*sys.argv[1:])
