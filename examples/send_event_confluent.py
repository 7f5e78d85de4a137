"""Send a rating with confluent-kafka and print the slate that follows.

python send_event_confluent.py [BROKERS] [USER] [ITEM]
"""

import json
import sys
import time

from confluent_kafka import Consumer, Message, Producer, TopicPartition


def main(brokers: str = "127.0.0.1:9092", user: str = "ada", item: str = "296") -> None:
    event = {"user": user, "item": item, "value": 4.5, "time": int(time.time() * 1000)}
    delivered: list[Message] = []
    # log_level 2: librdkafka would log each attempt to connect
    producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random", "acks": "all", "log_level": 2})
    producer.produce(
        "ratings", key=user, value=json.dumps(event), on_delivery=lambda error, message: delivered.append(message)
    )
    producer.flush(30)
    if not delivered or delivered[0].error():
        why = delivered[0].error() if delivered else "no answer within 30 s"
        sys.exit(f"not sent: {why}: does a broker run on {brokers}? (freshet broker start)")
    sent = delivered[0]

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "example", "enable.auto.commit": False})
    consumer.assign([TopicPartition("recommendations", sent.partition(), 0)])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        slate = json.loads(message.value())
        if slate["user"] == user and slate["applied"].get(f"ratings/{sent.partition()}", -1) >= sent.offset():
            print([scored["item"] for scored in slate["items"]], f"{slate['latency_ms']} ms")
            break
    else:
        sys.exit("no slate within 30 s: does a worker run?")
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
