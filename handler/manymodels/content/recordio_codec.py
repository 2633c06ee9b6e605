"""application/x-recordio-protobuf: SageMaker's own format, dense and sparse.

A row is a record's feature "values", or one feature a column by its name.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from manymodels.content.limits import check_cells, known_width
from manymodels.content.npy_codec import as_bytes
from manymodels.content.recordio import read_records
from manymodels.content.sparse import Entries, csr_rows
from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest

_VALUES = "values"
_MOST_FEATURES = 10_000


def decode_recordio(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of a RecordIO-protobuf body, a record a row; labels are passed over.

    A feature "values" is the row: dense, or with keys sparse (then the table is a CSR matrix).
    Other features are columns by their names, of one number or one text each. Raises BadRequest
    that names the record which is malformed, or not as the first one is.
    """
    rows: _Rows | None = None
    for number, record in enumerate(read_records(as_bytes(body, "RecordIO")), 1):
        rows = rows or _rows_like(record)
        rows.add(number, record)
    if rows is None:
        raise BadRequest("the RecordIO body is empty")
    return rows.table(columns)


class _Rows(Protocol):
    """Rows of a kind, as they are read."""

    def add(self, number: int, record: Any) -> None:
        """Take record ``number``; BadRequest where it is not as the first one is."""

    def table(self, columns: Columns) -> Table:
        """Return all that were taken."""


class _Dense:
    def __init__(self) -> None:
        self._cells = array("d")
        self._width = self._count = 0

    def add(self, number: int, record: Any) -> None:
        tensor = _row_tensor(number, record)
        if tensor.keys:
            raise BadRequest(f"record {number} is sparse, record 1 is dense")
        width = len(tensor.values)
        if tensor.shape and _product(tensor.shape) != width:
            raise BadRequest(
                f"record {number} has {width} values, its shape is {list(tensor.shape[:10])}"
            )
        if self._count and width != self._width:
            raise BadRequest(f"record {number} has {width} values, record 1 has {self._width}")
        self._cells.extend(tensor.values)
        self._width = width
        self._count += 1

    def table(self, columns: Columns) -> Table:
        check_cells(self._count, self._width, "the RecordIO body")
        return Table(np.array(self._cells).reshape(self._count, self._width))


class _Sparse:
    def __init__(self) -> None:
        self._keys, self._cells, self._pointers = array("Q"), array("d"), array("q", [0])
        self._width: int | None = None

    def add(self, number: int, record: Any) -> None:
        tensor = _row_tensor(number, record)
        keys = tensor.keys
        if len(keys) != len(tensor.values):
            raise BadRequest(
                f"record {number} has {len(tensor.values)} values and {len(keys)} keys"
            )
        if len(set(keys)) < len(keys):
            raise BadRequest(f"record {number} has a key twice")
        width = _product(tensor.shape) if tensor.shape else None
        if number > 1 and width != self._width:
            raise BadRequest(f"record {number} has {width} columns, record 1 has {self._width}")
        if width is not None and keys and max(keys) >= width:
            raise BadRequest(f"record {number} has the key {max(keys)}, its shape is [{width}]")
        self._width = width
        self._keys.extend(keys)
        self._cells.extend(tensor.values)
        self._pointers.append(len(self._keys))

    def table(self, columns: Columns) -> Table:
        keys = np.array(self._keys)
        width = self._width
        if width is None:
            found = int(keys.max()) + 1 if len(keys) else 1
            width = max(found, known_width(columns) or 1)
        entries = Entries(np.array(self._pointers), keys, np.array(self._cells))
        return Table(csr_rows(entries, (len(self._pointers) - 1, width)))


class _Named:
    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._rows: list[list[float | str]] = []

    def add(self, number: int, record: Any) -> None:
        if len(record.features) != len(self._names):
            raise BadRequest(
                f"record {number} has {len(record.features)} features, "
                f"record 1 has {len(self._names)}"
            )
        for name in self._names:
            if name not in record.features:
                raise BadRequest(f"record {number} has no feature {name!r}, record 1 has")
        self._rows.append([_cell(number, name, record.features[name]) for name in self._names])

    def table(self, columns: Columns) -> Table:
        check_cells(len(self._rows), len(self._names), "the RecordIO body")
        text = any(isinstance(cell, str) for row in self._rows for cell in row)
        return Table(np.array(self._rows, dtype=object if text else np.float64), self._names)


def _rows_like(record: Any) -> _Rows:
    """Return what reads records such as the first one."""
    count = len(record.features)
    if not 0 < count <= _MOST_FEATURES:
        raise BadRequest(f"record 1 has {count} features; from 1 to {_MOST_FEATURES} are accepted")
    if count > 1 or _VALUES not in record.features:
        # A map has no order of its own.
        return _Named(tuple(sorted(record.features)))
    tensor = _row_tensor(1, record)
    return _Sparse() if tensor.keys or (tensor.shape and not tensor.values) else _Dense()


def _row_tensor(number: int, record: Any) -> Any:
    if len(record.features) != 1 or _VALUES not in record.features:
        raise BadRequest(f'record {number} has other features than "{_VALUES}", record 1 has not')
    value = record.features[_VALUES]
    kind = value.WhichOneof("value")
    if kind is None or kind == "bytes":
        raise BadRequest(f'record {number}: the feature "{_VALUES}" is no tensor of numbers')
    return getattr(value, kind)


def _cell(number: int, name: str, value: Any) -> float | str:
    where = f"record {number}: the feature {name!r}"
    kind = value.WhichOneof("value")
    if kind is None:
        raise BadRequest(f"{where} has no value")
    cells = value.bytes.value if kind == "bytes" else getattr(value, kind).values
    if len(cells) != 1 or (kind != "bytes" and getattr(value, kind).keys):
        raise BadRequest(f'{where} has {len(cells)} values; only "{_VALUES}" may have several')
    if kind != "bytes":
        return float(cells[0])
    try:
        return str(cells[0], "utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{where} is not text in UTF-8") from error


def _product(shape: Sequence[int]) -> int:
    if len(shape) > 32:
        raise BadRequest(f"a tensor's shape has {len(shape)} dimensions")
    product = 1
    for length in shape:
        product *= length
    return product
