"""Checks an ONNX file without the onnx package, by parsing the protobuf wire format as far as the checks need it.

It refuses external data, operators outside the standard domain, functions, sparse tensors, another opset, and NaN
weights. Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from stream.core.errors import BundleError

STANDARD: Final = ("", "ai.onnx")
MAX_NESTING: Final = 16
_FLOATS: Final[dict[int, type[np.floating]]] = {1: np.float32, 10: np.float16, 11: np.float64}


def check(name: str, model: bytes, opset: int) -> None:
    """Raise BundleError, which names the file, if the graph is not a plain graph of `opset`."""
    try:
        _model(memoryview(model), opset)
    except BundleError as error:
        raise BundleError(f"{name}: {error}") from None
    except (IndexError, ValueError) as error:
        raise BundleError(f"{name}: not a readable ONNX graph ({error})") from None


def _model(model: memoryview, opset: int) -> None:
    opsets: dict[str, int] = {}
    graphs = 0
    for number, value in fields(model):
        if number == 8 and isinstance(value, memoryview):
            domain, version = "", 0
            for key, part in fields(value):
                if key == 1 and isinstance(part, memoryview):
                    domain = str(part, "utf-8")
                elif key == 2 and isinstance(part, int):
                    version = part
            opsets[domain] = version
        elif number == 7 and isinstance(value, memoryview):
            graphs += 1
            _graph(value, 0)
        elif number == 25:
            raise BundleError("defines functions; expected standard operators only")
    if graphs != 1:
        raise BundleError("has no graph")
    if set(opsets) - set(STANDARD) or set(opsets.values()) != {opset}:
        raise BundleError(f"imports the operator sets {opsets}; expected the standard one, version {opset}")


def _graph(graph: memoryview, depth: int) -> None:
    if depth > MAX_NESTING:
        raise BundleError("graphs nested too deeply")
    for number, value in fields(graph):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            _node(value, depth)
        elif number == 5:
            _tensor(value)
        elif number == 15:
            raise BundleError("has sparse tensors; expected dense ones")


def _node(node: memoryview, depth: int) -> None:
    for number, value in fields(node):
        if not isinstance(value, memoryview):
            continue
        if number == 7 and str(value, "utf-8") not in STANDARD:
            raise BundleError(
                f"has an operator of the domain {str(value, 'utf-8')!r}; expected standard operators only"
            )
        if number == 5:
            _attribute(value, depth)


def _attribute(attribute: memoryview, depth: int) -> None:
    for number, value in fields(attribute):
        if not isinstance(value, memoryview):
            continue
        if number in (5, 10):
            _tensor(value)
        elif number in (6, 11):
            _graph(value, depth + 1)
        elif number in (22, 23):
            raise BundleError("has sparse tensors; expected dense ones")


def _tensor(tensor: memoryview) -> None:
    name, kind = "", 0
    data: list[memoryview] = []
    for number, value in fields(tensor):
        if isinstance(value, int):
            if number == 2:
                kind = value
            elif number == 14 and value != 0:
                raise BundleError("keeps a tensor in external data; expected all data inside")
        elif number == 13:
            raise BundleError("keeps a tensor in external data; expected all data inside")
        elif number == 8:
            name = str(value, "utf-8")
        elif number in (4, 9, 10):  # float_data, raw_data, double_data
            data.append(value)
    if kind in _FLOATS and any(np.isnan(np.frombuffer(part, _FLOATS[kind])).any() for part in data):
        raise BundleError(f"the tensor {name!r} holds NaN")


def fields(buffer: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, varint or bytes) of each field of one message, in order.

    Raises ValueError or IndexError if it is not protobuf.
    """
    at = 0
    while at < len(buffer):
        key, at = _varint(buffer, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(buffer, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(buffer, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if length > len(buffer) - at:
            raise ValueError(f"cut off at byte {at}")
        yield number, buffer[at : at + length]
        at += length


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"number too long at byte {at}")
