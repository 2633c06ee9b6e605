"""Thrift's compact protocol, as Parquet's footer and page headers are written."""

from __future__ import annotations

from typing import Any

from manymodels.errors import BadRequest

_DEEPEST = 16
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_LONG_LIST = 0x0F

Fields = dict[int, Any]
"""A struct's values by their fields' numbers: int, bool, bytes, lists and structs."""


def read_struct(data: bytes, place: int) -> tuple[Fields, int]:
    """Return the struct that begins at ``place``, and where it ends.

    Raises BadRequest for what is malformed, cut short, or nested deeper than Parquet's are.
    """
    reader = _Reader(data, place)
    try:
        return reader.struct(0), reader.place
    except IndexError as error:
        raise BadRequest(f"the Thrift struct at byte {place} is cut short") from error


class _Reader:
    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self.place = place

    def struct(self, depth: int) -> Fields:
        if depth > _DEEPEST:
            raise BadRequest("a Thrift struct is nested too deep")
        fields: Fields = {}
        number = 0
        while (head := self._byte()) & 0x0F != _STOP:
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._field(head & 0x0F, depth)
        return fields

    def _field(self, kind: int, depth: int) -> Any:
        return kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            return self._list(depth + 1)
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind in (_TRUE, _FALSE, _BYTE):  # as an element a truth value takes a byte
            return self._byte()
        raise BadRequest(f"a Thrift struct has a value of type {kind}")

    def _list(self, depth: int) -> list[Any]:
        if depth > _DEEPEST:
            raise BadRequest("a Thrift list is nested too deep")
        head = self._byte()
        kind, length = head & 0x0F, head >> 4
        if length == _LONG_LIST:
            length = self._varint()
        return [self._value(kind, depth) for _ in range(length)]

    def _bytes(self, length: int) -> bytes:
        start, self.place = self.place, self.place + length
        if self.place > len(self._data):
            raise IndexError(self.place)
        return self._data[start : self.place]

    def _byte(self) -> int:
        value = self._data[self.place]
        self.place += 1
        return value

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise BadRequest("a Thrift integer has more than 64 bits")
