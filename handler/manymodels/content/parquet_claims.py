"""What a Parquet file claims to hold, read before Arrow allocates it.

The footer may say less than the pages do: a page of a hundred bytes may unpack to 2 GiB. So the
header of each page is read here first. The footer is read here too, and not through pyarrow's
FileMetaData: what is malformed there ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from manymodels.content.limits import check_decoded
from manymodels.content.thrift import Fields, read_struct
from manymodels.errors import BadRequest, PayloadTooLarge

_MAGIC = b"PAR1"
_TAIL_BYTES = 8
_FOOTER_BYTES = 1 << 20
"""Arrow's structs take some 300 times the bytes that say they are there."""
_MOST_PAGES = 50_000
_DICTIONARY_ENTRY_BYTES = 16
_DELTA_BYTE_ARRAY = 7
# Fields by their numbers in parquet.thrift: of FileMetaData, RowGroup and ColumnChunk, ...
_N_ROWS, _ROW_GROUPS = 3, 4
_CHUNKS = 1
_META_DATA = 3
# ... of ColumnMetaData, ...
_PATH, _VALUES_IN_CHUNK, _CHUNK_BYTES, _DATA_PLACE, _DICTIONARY_PLACE = 3, 5, 7, 9, 11
# ... of PageHeader, and of the headers within it.
_UNPACKED, _PACKED = 2, 3
_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8
_N_VALUES = 1
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}


class _Chunk(NamedTuple):
    """A column's pages in a group of rows: from ``start`` to ``end``."""

    name: str
    start: int
    end: int


def read_footer(body: bytes) -> Fields:
    """Return a file's FileMetaData; BadRequest where there is none, PayloadTooLarge for a long one.

    Arrow may read a footer once this has returned.
    """
    if not body.endswith(_MAGIC) or len(body) < _TAIL_BYTES:
        raise BadRequest("the Parquet body does not end as a Parquet file does, with PAR1")
    length = int.from_bytes(body[-_TAIL_BYTES : -len(_MAGIC)], "little")
    if length > _FOOTER_BYTES:
        raise PayloadTooLarge(
            f"the Parquet body's footer is of {length} bytes; at most {_FOOTER_BYTES} are accepted"
        )
    if length > len(body) - _TAIL_BYTES:
        raise BadRequest(f"the Parquet body claims a footer of {length} bytes, and is shorter")
    return read_struct(body[-_TAIL_BYTES - length : -_TAIL_BYTES], 0)[0]


def check_claims(body: bytes, footer: Fields, row_bytes: int) -> None:
    """Raise PayloadTooLarge where a file's rows or pages take more than is accepted.

    ``row_bytes`` is what a row takes decoded. Raises BadRequest for what is malformed.
    """
    rows = _number(footer, _N_ROWS)
    check_decoded(rows * row_bytes, f"the Parquet body of {rows} rows")
    total = pages = 0
    for chunk in _chunks(footer):
        place = chunk.start
        while place < min(chunk.end, len(body)):
            header, place = read_struct(body, place)
            place += _number(header, _PACKED)
            total += _claim(header, chunk.name)
            pages += 1
            check_decoded(total, "the Parquet body")
            if pages > _MOST_PAGES:
                raise PayloadTooLarge(f"the Parquet body has more than {_MOST_PAGES} pages")


def _chunks(footer: Fields) -> Iterator[_Chunk]:
    """Yield where pages are, as Arrow finds them."""
    for group in _structs(footer, _ROW_GROUPS):
        for column in _structs(group, _CHUNKS):
            chunk = column.get(_META_DATA)
            if not isinstance(chunk, dict):
                raise BadRequest("the Parquet body's footer has a column without a place")
            if not _number(chunk, _VALUES_IN_CHUNK):
                continue  # Arrow reads none of its pages, which may be nowhere
            start, first = _number(chunk, _DATA_PLACE), chunk.get(_DICTIONARY_PLACE)
            if isinstance(first, int) and 0 < first < start:
                start = first
            yield _Chunk(_name(chunk), start, start + _number(chunk, _CHUNK_BYTES))


def _structs(fields: Fields, field: int) -> list[Fields]:
    found = fields.get(field)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadRequest(f"the Parquet body's footer has no list of structs for its field {field}")
    return found


def _name(chunk: Fields) -> str:
    path = chunk.get(_PATH)
    parts = path if isinstance(path, list) else []
    return ".".join(
        part.decode(errors="replace") if isinstance(part, bytes) else "?" for part in parts[:9]
    )[:60]


def _claim(header: Fields, name: str) -> int:
    size = _number(header, _UNPACKED)
    for part, field in _ENCODING.items():
        inner: Any = header.get(part)
        if isinstance(inner, dict):
            # A value repeats the beginning of the one before: megabytes from a few bytes.
            if inner.get(field) == _DELTA_BYTE_ARRAY:
                raise BadRequest(
                    f"the Parquet column {name!r} is encoded as DELTA_BYTE_ARRAY; "
                    "PLAIN, dictionaries and the others are read"
                )
            if part == _DICTIONARY:
                size += _number(inner, _N_VALUES) * _DICTIONARY_ENTRY_BYTES
    return size


def _number(fields: Fields, field: int) -> int:
    value = fields.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequest(f"the Parquet body says {str(value)[:20]} for field {field} of a struct")
    return value
