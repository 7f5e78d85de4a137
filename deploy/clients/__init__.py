"""kafka-python clients, and the published schemas: what verify, dead letters, the demo and the commands share."""
