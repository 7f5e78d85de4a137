"""Apache Kafka inside the project's own folder: real brokers for the demo, the tests and a first try. Not for production."""

from deploy.kafka.broker import EmbeddedKafka, free_port

__all__ = ["EmbeddedKafka", "free_port"]
