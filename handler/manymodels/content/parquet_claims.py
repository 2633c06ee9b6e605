"""What a Parquet file's pages claim to hold, read before Arrow allocates it.

The file's own metadata may say less than its pages do: a page of a hundred bytes may unpack to
2 GiB. So the header of each page, a struct in Thrift's compact protocol, is read here first.
"""

from __future__ import annotations

from typing import Any

from manymodels.content.limits import check_decoded
from manymodels.errors import BadRequest, PayloadTooLarge

_MOST_PAGES = 50_000
_DEEPEST = 8
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
# Fields of PageHeader, and of the headers within it.
_UNPACKED, _PACKED = 2, 3
_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8
_N_VALUES = 1
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}
_DELTA_BYTE_ARRAY = 7
_DICTIONARY_ENTRY_BYTES = 16

Fields = dict[int, Any]


def check_pages(body: bytes, metadata: Any) -> None:
    """Raise PayloadTooLarge where a file's pages unpack to more than is accepted.

    ``metadata`` is pyarrow's FileMetaData. Raises BadRequest for pages that are malformed.
    """
    total = pages = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            if not column.num_values:
                continue  # Arrow reads none of its pages, which may be nowhere
            place, end = _span(column)
            while place < min(end, len(body)):
                header, place = _read(body, place, column.path_in_schema)
                place += _size(header, _PACKED)
                total += _claim(header, column.path_in_schema)
                pages += 1
                check_decoded(total, "the Parquet body")
                if pages > _MOST_PAGES:
                    raise PayloadTooLarge(f"the Parquet body has more than {_MOST_PAGES} pages")


def _span(column: Any) -> tuple[int, int]:
    """Return where a column's pages begin and end, as Arrow finds it."""
    start = column.data_page_offset
    first = column.dictionary_page_offset
    if column.has_dictionary_page and first is not None and 0 < first < start:
        start = first
    if start < 0 or column.total_compressed_size < 0:
        raise BadRequest(f"the Parquet column {column.path_in_schema!r} is at byte {start}")
    return start, start + column.total_compressed_size


def _claim(header: Fields, name: str) -> int:
    size = _size(header, _UNPACKED)
    for part, field in _ENCODING.items():
        inner = header.get(part)
        if isinstance(inner, dict):
            # A value repeats the beginning of the one before: megabytes from a few bytes.
            if inner.get(field) == _DELTA_BYTE_ARRAY:
                raise BadRequest(
                    f"the Parquet column {name!r} is encoded as DELTA_BYTE_ARRAY; "
                    "PLAIN, dictionaries and the others are read"
                )
            if part == _DICTIONARY:
                size += _size(inner, _N_VALUES) * _DICTIONARY_ENTRY_BYTES
    return size


def _size(fields: Fields, field: int) -> int:
    value = fields.get(field)
    if not isinstance(value, int) or value < 0:
        raise BadRequest(f"a Parquet page's header says {value} for its field {field}")
    return value


def _read(body: bytes, place: int, name: str) -> tuple[Fields, int]:
    reader = _Compact(body, place)
    try:
        return reader.struct(0), reader.place
    except IndexError as error:
        raise BadRequest(f"the Parquet column {name!r} ends within a page's header") from error


class _Compact:
    """Thrift's compact protocol, as far as page headers need it."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self.place = place

    def struct(self, depth: int) -> Fields:
        """Return a struct's integers and structs by their field's number."""
        if depth > _DEEPEST:
            raise BadRequest("a Parquet page's header is nested too deep")
        fields: Fields = {}
        number = 0
        while (head := self._byte()) & 0x0F != _STOP:
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 0x0F, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in _INTEGERS:
            return self._integer()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == _BYTE:
            return self._byte()
        if kind in (_DOUBLE, _BINARY):
            length = 8 if kind == _DOUBLE else self._varint()
            self.place += length
            return None
        if kind in (_LIST, _SET):
            return self._skip_list(depth)
        raise BadRequest(f"a Parquet page's header has a value of type {kind}")

    def _skip_list(self, depth: int) -> None:
        head = self._byte()
        for _ in range(head >> 4 if head >> 4 != 0x0F else self._varint()):
            # As an element, unlike as a field, a truth value takes a byte of its own.
            kind = head & 0x0F
            self._value(_BYTE if kind in (_TRUE, _FALSE) else kind, depth + 1)

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
                raise BadRequest("a Parquet page's header has an integer of more than 64 bits")
