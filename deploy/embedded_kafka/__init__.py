"""Apache Kafka inside the project's folder: real brokers for the demo, tests and a first try. Not for production."""

from deploy.embedded_kafka.broker import EmbeddedKafka, free_port
from deploy.embedded_kafka.cluster import KafkaCluster, at

__all__ = ["EmbeddedKafka", "KafkaCluster", "at", "free_port"]
