"""Clients on kafka-python, and the published schemas, shared by verify, dead letters, the demo and the commands."""
