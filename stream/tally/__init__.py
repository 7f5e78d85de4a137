"""The tally: counts items and pairs of the stream, and publishes them as epochs of the topic `tables`."""
