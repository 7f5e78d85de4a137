"""Unpacking of compressed record batches, with a limit on the unpacked size.

Kafka limits the compressed size of a batch: 32 KiB of zstd may unpack to a gigabyte. `freshet topics create` creates
topics that the broker stores uncompressed. A topic whose setting was changed, or that someone else created, is read as
well, with every codec of Kafka.
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
"""The magic bytes of Java's snappy. 8 bytes of versions follow, then blocks, each with its length in front."""


class _TooLargeError(Exception):
    pass


def gzip(data: Any) -> bytes:
    """Return the bytes of a compressed batch.

    Like all decoders here, it raises an error if they exceed LIMIT or are damaged. In DECODERS, it is a DataError.
    """
    found = bytearray()
    rest = bytes(data)
    while rest:  # gzip data may have several members
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
    """Unpack one block. It begins with its unpacked length, which is checked before anything is allocated."""
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
                f"a batch of records, {len(data)} bytes of {codec}, unpacks to more than {LIMIT} bytes, the limit: "
                "any writer of this topic can send such a batch; delete its records up to the batch's end, "
                "and set compression.type=uncompressed"
            ) from None
        except MemoryError:
            raise
        except Exception as error:  # each library has its own errors
            raise DataError(f"a batch of records, {len(data)} bytes of {codec}, cannot be unpacked: {error}") from None

    return bounded


DECODERS: Final = {
    "gzip_decode": _guarded("gzip", gzip),
    "snappy_decode": _guarded("snappy", snappy),
    "lz4_decode": _guarded("lz4", lz4_frames),
    "zstd_decode": _guarded("zstd", zstd),
}
"""The decoders, under the names that the record format modules of aiokafka and kafka-python use."""


def bound(*modules: Any) -> None:
    """Make these record format modules unpack with DECODERS."""
    for module in modules:
        for name, decode in DECODERS.items():
            if hasattr(module, name):
                setattr(module, name, decode)
