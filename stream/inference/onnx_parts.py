"""Takes an ONNX graph apart without the onnx package: its arrays by name, and the part of it that computes one value.

Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3). The graph was checked before
(stream.inference.onnx_check): standard operators and no external data.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.core.errors import BundleError
from stream.inference.onnx_check import fields

_GRAPH: Final = 7  # of ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # of GraphProto
_FLOAT: Final = 1
_TYPES: Final[dict[int, type[np.generic]]] = {_FLOAT: np.float32, 6: np.int32, 7: np.int64}


def arrays(model: bytes, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Return those of the named initializers that the graph has: name -> array, float32, int32 or int64.

    Raises BundleError if one has another type or is not stored as raw data.
    """
    found = {}
    for number, value in fields(_graph(model)):
        if number == _INITIALIZER and isinstance(value, memoryview):
            name = _text(value, 8)
            if name in names:
                found[name] = _array(name, value)
    return found


def upstream(model: bytes, output: str) -> bytes:
    """Return the model of the same graph that has only one float32 output: a value inside the graph, by its name.

    It keeps the nodes, arrays and inputs that this value needs.

    Raises BundleError if there is no such value.
    """
    graph = _graph(model)
    parts = [(number, value) for number, value in fields(graph) if isinstance(value, memoryview)]
    wanted = {output}
    nodes: list[memoryview] = []
    for number, value in reversed(parts):  # nodes are in the order of computation
        if number == _NODE and wanted & set(_texts(value, 2)):
            nodes.append(value)
            wanted |= set(_texts(value, 1))
    if not nodes:
        raise BundleError(f"has no value {output!r}")
    kept = b"".join(_field(_NODE, node) for node in reversed(nodes))
    names = {_INITIALIZER: 8, _INPUT: 1}  # the field that holds the name
    for number, value in parts:
        if number in names:
            if _text(value, names[number]) in wanted:
                kept += _field(number, value)
        elif number not in (_NODE, _OUTPUT):
            kept += _field(number, value)
    tensor = _field(1, b"\x08" + bytes([_FLOAT]))  # TypeProto.tensor_type.elem_type
    kept += _field(_OUTPUT, _field(1, output.encode()) + _field(2, tensor))
    head = b"".join(
        _number(number, value) if isinstance(value, int) else _field(number, value)
        for number, value in fields(memoryview(model))
        if number != _GRAPH
    )
    return head + _field(_GRAPH, kept)


def _graph(model: bytes) -> memoryview:
    for number, value in fields(memoryview(model)):
        if number == _GRAPH and isinstance(value, memoryview):
            return value
    raise BundleError("has no graph")


def _texts(message: memoryview, field: int) -> list[str]:
    return [
        str(value, "utf-8") for number, value in fields(message) if number == field and isinstance(value, memoryview)
    ]


def _text(message: memoryview, field: int) -> str:
    return next(iter(_texts(message, field)), "")


def _array(name: str, tensor: memoryview) -> NDArray[Any]:
    shape: list[int] = []
    kind, raw = 0, None
    for number, value in fields(tensor):
        if number == 1:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 9:
            raw = value
    if kind not in _TYPES or not isinstance(raw, memoryview):
        raise BundleError(f"the array {name!r} has the type {kind}, expected raw data of one of {sorted(_TYPES)}")
    return np.frombuffer(raw, _TYPES[kind]).reshape(shape).copy()


def _varints(packed: memoryview) -> list[int]:
    found, value, shift = [], 0, 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(value)
            value = shift = 0
    return found


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, value: bytes | memoryview) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
