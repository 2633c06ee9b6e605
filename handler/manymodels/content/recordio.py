"""SageMaker's RecordIO: frames of records, and the protobuf message that each one is.

A frame is a magic number, a length, the record, and zeros up to a multiple of 4. The three upper
bits of the length say whether it is a whole record or the first, a middle or the last part of
one: a writer may split a record where it holds the magic number itself, which then is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from manymodels.errors import BadRequest

_MAGIC = 0xCED7230A
_MAGIC_BYTES = _MAGIC.to_bytes(4, "little")
_HEAD = struct.Struct("<II")
_LENGTH_BITS = 29
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_PACKAGE = "aialgs.data"
_Field = descriptor_pb2.FieldDescriptorProto


class _Frame(NamedTuple):
    part: int
    payload: bytes
    end: int


def read_records(body: bytes) -> Iterator[Any]:
    """Yield the protobuf Record of each record; BadRequest that names it and the byte."""
    record = record_class()
    for number, payload in enumerate(_payloads(body), 1):
        try:
            read = record.FromString(payload)
            "".join(read.features)  # protobuf before 5 takes names that are not UTF-8
        except (DecodeError, UnicodeDecodeError, TypeError) as error:
            raise BadRequest(f"record {number} is not a protobuf Record: {error}") from error
        yield read


def frame(payload: bytes) -> bytes:
    """Return one record as a frame."""
    return _HEAD.pack(_MAGIC, len(payload)) + payload + bytes(-len(payload) % 4)


def record_class() -> Any:
    """Return the class of the message ``aialgs.data.Record``, of a descriptor pool of our own."""
    return _classes()[f"{_PACKAGE}.Record"]


@lru_cache(maxsize=1)
def _classes() -> Mapping[str, Any]:
    """Return all the schema's classes: protobuf before 4.25 does not keep those it needs alive."""
    pool, file = descriptor_pool.DescriptorPool(), _file()
    pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name], pool)


def _payloads(body: bytes) -> Iterator[bytes]:
    """Yield records, put together from their parts."""
    parts: list[bytes] = []
    start = 0
    while start < len(body):
        found = _frame(body, start)
        if (found.part in (_MIDDLE, _LAST)) != bool(parts) or found.part > _LAST:
            raise BadRequest(f"the RecordIO frame at byte {start} is not the part that is due")
        parts.append(found.payload)
        if found.part in (_WHOLE, _LAST):
            yield _MAGIC_BYTES.join(parts)
            parts = []
        start = found.end
    if parts:
        raise BadRequest("the RecordIO body ends within a record: its last part is missing")


def _frame(body: bytes, start: int) -> _Frame:
    if start + _HEAD.size > len(body):
        raise BadRequest(f"the RecordIO body ends within the frame at byte {start}")
    magic, word = _HEAD.unpack_from(body, start)
    if magic != _MAGIC:
        raise BadRequest(
            f"the RecordIO frame at byte {start} begins with {magic:#010x}, not {_MAGIC:#010x}"
        )
    length = word & _LENGTH_MASK
    begin = start + _HEAD.size
    end = begin + length + -length % 4
    if end > len(body):
        raise BadRequest(
            f"the RecordIO frame at byte {start} claims {length} bytes, "
            f"and {len(body) - begin} are left"
        )
    return _Frame(word >> _LENGTH_BITS, body[begin : begin + length], end)


def _file() -> descriptor_pb2.FileDescriptorProto:
    """Return the schema, by the names and numbers that SageMaker documents."""
    # SageMaker's is proto2, the same on the wire, but does not hold text to UTF-8.
    file = descriptor_pb2.FileDescriptorProto(
        name="manymodels/record.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, kind in (
        ("Float32Tensor", _Field.TYPE_FLOAT),
        ("Float64Tensor", _Field.TYPE_DOUBLE),
        ("Int32Tensor", _Field.TYPE_INT32),
    ):
        tensor = file.message_type.add(name=name)
        for number, (part, of) in enumerate(
            [("values", kind), ("keys", _Field.TYPE_UINT64), ("shape", _Field.TYPE_UINT64)], 1
        ):
            _add(tensor, part, number, of, repeated=True).options.packed = True
    data = file.message_type.add(name="Bytes")
    _add(data, "value", 1, _Field.TYPE_BYTES, repeated=True)
    _add(data, "content_type", 2, _Field.TYPE_STRING)
    _add_value(file)
    _add_record(file)
    return file


def _add_value(file: descriptor_pb2.FileDescriptorProto) -> None:
    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="value")
    for name, number, of in (
        ("float32_tensor", 2, "Float32Tensor"),
        ("float64_tensor", 3, "Float64Tensor"),
        ("int32_tensor", 7, "Int32Tensor"),
        ("bytes", 9, "Bytes"),
    ):
        field = _add(value, name, number, _Field.TYPE_MESSAGE)
        field.type_name = f".{_PACKAGE}.{of}"
        field.oneof_index = 0


def _add_record(file: descriptor_pb2.FileDescriptorProto) -> None:
    record = file.message_type.add(name="Record")
    for number, name in ((1, "features"), (2, "label")):
        entry = record.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add(entry, "key", 1, _Field.TYPE_STRING)
        _add(entry, "value", 2, _Field.TYPE_MESSAGE).type_name = f".{_PACKAGE}.Value"
        field = _add(record, name, number, _Field.TYPE_MESSAGE, repeated=True)
        field.type_name = f".{_PACKAGE}.Record.{entry.name}"
    for number, name in ((3, "uid"), (4, "metadata"), (5, "configuration")):
        _add(record, name, number, _Field.TYPE_STRING)


def _add(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    kind: _Field.Type.ValueType,
    repeated: bool = False,
) -> descriptor_pb2.FieldDescriptorProto:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    return message.field.add(name=name, number=number, type=kind, label=label)
