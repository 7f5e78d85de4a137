"""The decoder that a worker uses to read its source topics."""

from __future__ import annotations

from aiokafka.partitioner import murmur2

from stream.core.decoder import EventDecoder
from stream.settings import Settings


def decoder_of(settings: Settings) -> EventDecoder:
    """Return a decoder that reads records as a worker with these settings does."""
    return EventDecoder(
        murmur2,
        settings.partitions,
        settings.rating_scale,
        settings.sources,
        settings.oldest,
        settings.envelope,
        settings.key,
    )
