"""Benches on a real Kafka with real worker processes: `make bench`, or `python -m tests.bench --help`."""
