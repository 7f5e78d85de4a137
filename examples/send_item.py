"""Add an item to the catalogue with kafka-python: python send_item.py [BROKERS]"""

import json
import sys

from kafka import KafkaProducer


def main(brokers: str = "127.0.0.1:9092") -> None:
    name = "new-1"
    item = {
        "item": name,
        "title": "The Spring Flood",
        "text": "A river town in the week the snow melts.",
        "categories": ["Drama"],
    }
    producer = KafkaProducer(bootstrap_servers=brokers, acks="all")
    producer.send("items", key=name.encode(), value=json.dumps(item).encode()).get(timeout=30)


if __name__ == "__main__":
    main(*sys.argv[1:])
