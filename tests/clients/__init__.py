"""Kafka's clients in other languages, each with its own defaults: small programs that send lines, and what is needed to build
them. The test beside them measures where each client puts a user's events, and that a worker loses none of them."""
