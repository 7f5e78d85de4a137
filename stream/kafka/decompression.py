"""Unpacking of compressed record batches, with a bound on what comes out.

Kafka bounds a batch as it is sent, compressed: 32 KiB of zstd may unpack to a gigabyte. `freshet topics create` makes topics that
the broker stores unpacked; a topic that was switched, or one of somebody else, is read all the same, with every codec of Kafka.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import cramjam
import lz4.frame
import zstandard

from stream.core.errors import DataError

LIMIT: Final = 64 << 20
"""Bytes that one batch may unpack to: 16 times what a source topic takes."""

XERIAL: Final = b"\x82SNAPPY\x00"
"""Java's snappy: after this and 8 bytes of versions, blocks with their length before each."""


class _TooLargeError(Exception):
    pass


def gzip(data: Any) -> bytes:
    """As all here: a compressed batch -> its bytes. Raises DataError where they are more than LIMIT, or damaged."""
    found = bytearray()
    rest = bytes(data)
    while rest:  # a file of gzip may have several members
        member = zlib.decompressobj(wbits=31)
        found += member.decompress(rest, LIMIT + 1 - len(found))
        if len(found) > LIMIT:
            raise _TooLargeError
        if not member.eof:
            raise ValueError("it is cut off")
        rest = member.unused_data
    return bytes(found)


def snappy(data: Any) -> bytes:
    packed = bytes(data)
    if not packed.startswith(XERIAL):
        return _snappy_block(packed, 0)
    found, at = BytesIO(), 16
    while at < len(packed):
        (length,) = struct.unpack_from("!i", packed, at)
        if length < 0 or at + 4 + length > len(packed):
            raise ValueError("it is cut off")
        found.write(_snappy_block(packed[at + 4 : at + 4 + length], found.tell()))
        at += 4 + length
    return found.getvalue()


def _snappy_block(packed: bytes, before: int) -> bytes:
    """A block says first how long it is unpacked: looked at before anything is allocated."""
    length = shift = 0
    for byte in packed[:5]:
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if before + length > LIMIT:
        raise _TooLargeError
    return bytes(cramjam.snappy.decompress_raw(packed))


def lz4_frames(data: Any) -> bytes:
    frame = lz4.frame.LZ4FrameDecompressor()
    found = frame.decompress(bytes(data), LIMIT + 1)
    if len(found) > LIMIT:
        raise _TooLargeError
    if not frame.eof:
        raise ValueError("it is cut off")
    return bytes(found)


def zstd(data: Any) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(bytes(data), read_across_frames=True) as reader:
        found = reader.read(LIMIT + 1)
    if len(found) > LIMIT:
        raise _TooLargeError
    return bytes(found)


def _guarded(codec: str, unpack: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def bounded(data: Any) -> bytes:
        try:
            return unpack(data)
        except _TooLargeError:
            raise DataError(
                f"a batch of records, {len(data)} bytes of {codec}, unpacks to more than {LIMIT} bytes, the most that is read: "
                "whoever may write to this topic can send such; delete its records up to the batch's end, "
                "and set compression.type=uncompressed"
            ) from None
        except MemoryError:
            raise
        except Exception as error:  # each library has errors of its own
            raise DataError(f"a batch of records, {len(data)} bytes of {codec}, cannot be unpacked: {error}") from None

    return bounded


DECODERS: Final = {
    "gzip_decode": _guarded("gzip", gzip),
    "snappy_decode": _guarded("snappy", snappy),
    "lz4_decode": _guarded("lz4", lz4_frames),
    "zstd_decode": _guarded("zstd", zstd),
}
"""Under the names that aiokafka's and kafka-python's modules of record formats know them by."""


def bound(*modules: Any) -> None:
    """Have these modules of record formats unpack by DECODERS."""
    for module in modules:
        for name, decode in DECODERS.items():
            if hasattr(module, name):
                setattr(module, name, decode)
