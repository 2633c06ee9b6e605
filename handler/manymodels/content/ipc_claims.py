"""What Arrow IPC messages claim to hold, read before Arrow allocates it.

A message's metadata is a flatbuffer (Arrow's Message.fbs); pyarrow has verified it by the time it
is looked at here, but hands out none of it. Buffers may be compressed a thousandfold, and may lie
over each other, so their sizes are added up as they are claimed.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from manymodels.errors import BadRequest

_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY, _RECORDS = 2, 3
_DICTIONARY_DATA = 1
_LENGTH, _BUFFERS, _COMPRESSION = 0, 2, 3
_BUFFER = struct.Struct("<qq")
_NOT_COMPRESSED = -1


class Claim(NamedTuple):
    """Rows, and bytes of all buffers once decompressed; a dictionary counts no rows."""

    rows: int
    size: int


def claim_of(message: Any) -> Claim:
    """Return what a pyarrow.ipc.Message claims; BadRequest for what makes no sense."""
    try:
        return _claim(message.metadata.to_pybytes(), message.body)
    except struct.error as error:
        raise BadRequest(f"an Arrow message is malformed: {error}") from error


def _claim(data: bytes, body: Any) -> Claim:
    message = _offset(data, 0)
    kind = _field(data, message, _HEADER_TYPE)
    number = data[kind] if kind else 0
    header = _field(data, message, _HEADER)
    if number not in (_DICTIONARY, _RECORDS) or not header:
        return Claim(0, 0)
    batch = _offset(data, header)
    if number == _DICTIONARY:
        batch = _offset(data, _field(data, batch, _DICTIONARY_DATA))
    size = _buffers(data, batch, body)
    length = _field(data, batch, _LENGTH)
    rows = _integer(data, length, "<q") if length and number == _RECORDS else 0
    return Claim(rows, size)


def _buffers(data: bytes, batch: int, body: Any) -> int:
    field = _field(data, batch, _BUFFERS)
    if not field:
        return 0
    vector = _offset(data, field)
    compressed = bool(_field(data, batch, _COMPRESSION))
    total, start = 0, vector + 4
    for place in range(start, start + _integer(data, vector, "<I") * _BUFFER.size, _BUFFER.size):
        offset, length = _BUFFER.unpack_from(data, place)
        if offset < 0 or length < 0 or offset + length > body.size:
            raise BadRequest("an Arrow message claims a buffer that it does not hold")
        total += _decompressed(body, offset, length) if compressed else length
    return total


def _decompressed(body: Any, offset: int, length: int) -> int:
    """A compressed buffer begins with its size decompressed."""
    if length < 8:
        return length
    size = int.from_bytes(body.slice(offset, 8).to_pybytes(), "little", signed=True)
    if size < _NOT_COMPRESSED:
        raise BadRequest("an Arrow message claims a buffer of a negative size")
    return length - 8 if size == _NOT_COMPRESSED else size


def _field(data: bytes, table: int, index: int) -> int:
    """Return where a table's field is, 0 where it is absent."""
    virtual = table - _integer(data, table, "<i")
    slot = 4 + 2 * index
    if slot >= _integer(data, virtual, "<H"):
        return 0
    distance = _integer(data, virtual + slot, "<H")
    return table + distance if distance else 0


def _offset(data: bytes, place: int) -> int:
    return place + _integer(data, place, "<I")


def _integer(data: bytes, place: int, form: str) -> int:
    if place < 0:  # which Python would count from the end
        raise struct.error("a place before the beginning")
    value: int = struct.unpack_from(form, data, place)[0]
    return value
