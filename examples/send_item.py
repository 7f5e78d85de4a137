"""Add an item to the catalogue with kafka-python: python send_item.py [BROKERS]"""

import json
import sys

from kafka import KafkaProducer
from kafka.errors import KafkaError


def main(brokers: str = "127.0.0.1:9092") -> None:
    name = "new-1"
    item = {
        "item": name,
        "title": "The Spring Flood",
        "text": "A river town in the week the snow melts.",
        "categories": ["Drama"],
    }
    try:
        producer = KafkaProducer(bootstrap_servers=brokers, acks="all")
        sent = producer.send("items", key=name.encode(), value=json.dumps(item).encode()).get(timeout=30)
    except KafkaError as error:
        sys.exit(f"not sent: {error}: does a broker run on {brokers}? (freshet broker start)")
    print(f"item {name} sent to {sent.topic}/{sent.partition}/{sent.offset}")


if __name__ == "__main__":
    main(*sys.argv[1:])
