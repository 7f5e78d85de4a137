"""The way from a micro-batch of raw records to durable states, slates, dead letters and offsets."""
