"""The hash by which Kafka's Java client places a key. Independent of the one that the hot path takes from aiokafka."""

from __future__ import annotations


def murmur2(key: bytes) -> int:
    """Return the hash by which Kafka's Java client places a key, made non-negative. Austin Appleby's MurmurHash2, 32 bits."""
    mask = 0xFFFFFFFF
    m = 0x5BD1E995
    length = len(key)
    h = (0x9747B28C ^ length) & mask
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        k ^= k >> 24
        h = (h * m & mask) ^ (k * m & mask)
    rest = key[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return (h ^ (h >> 15)) & 0x7FFFFFFF
