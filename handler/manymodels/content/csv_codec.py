"""text/csv: rows of numbers or of text, with a header or without (RFC 4180)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from manymodels.content import csv_dialect
from manymodels.content.body_text import as_text, shortened
from manymodels.content.cells import (
    Source,
    check_widths,
    misfit,
    table_of_columns,
    table_of_rows,
)
from manymodels.content.csv_numbers import as_written, floats, number, numbers, plain_rows, typed
from manymodels.content.table import Columns, Table, text_positions
from manymodels.errors import BadRequest

_SOURCE = Source("CSV")
_NUMERIC_ROW = "0"


def decode_csv(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of a CSV body, and their names if it has a header.

    The parameters ``header`` (present, absent), ``delimiter`` and ``charset`` say what is not
    found out by itself, see `csv_dialect`. An empty field is a missing value, lines of white space
    are skipped. A column is whole numbers, numbers, true and false, or text, whichever all its
    fields are; a model of numbers gets float64. Raises BadRequest that names the row (from 1, the
    header and blank lines not counted) and the column of what is wrong.
    """
    plain = b"" if parameters else _ascii_bytes(body)
    table = _plain(plain, None, columns)
    if table is not None:
        return table
    text = as_text(body, parameters, "CSV")
    delimiter = csv_dialect.delimiter_of(text, parameters, columns)
    declared = csv_dialect.header_declared(parameters)
    if delimiter == csv_dialect.COMMA:
        table = _plain_text(text, declared, columns, tried=len(plain) == len(text))
        if table is not None:
            return table
    rows = list(csv_dialect.fields(text, delimiter))
    if not rows:
        raise BadRequest("the CSV body is empty")
    names = None
    if declared or (declared is None and csv_dialect.has_header(rows[0], rows[1:], columns)):
        names = tuple(field.strip() for field in rows[0])
        del rows[0]
        if not rows:
            raise BadRequest("the CSV body has a header and no rows")
    return _table(rows, names, columns)


def _ascii_bytes(body: object) -> bytes:
    """Return what may be plain numbers as bytes, and nothing for what cannot."""
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    return body.encode() if isinstance(body, str) and body.isascii() else b""


def _plain(body: bytes, names: tuple[str, ...] | None, columns: Columns) -> Table | None:
    """Return a body of plain numbers as a table, None if it is not that."""
    if columns.text or not body:
        return None  # a column of text is wanted as it is written
    rows = plain_rows(body)
    if rows is None:
        return None
    if not all(rows):
        rows = [row for row in rows if row]
        if not rows:
            raise BadRequest("the CSV body is empty")
    return table_of_rows(rows, names, columns, _SOURCE, plain=True)


def _plain_text(text: str, declared: bool | None, columns: Columns, *, tried: bool) -> Table | None:
    """Return plain numbers, with a header above them or, if not tried before, without."""
    if not declared and not tried and text.isascii():
        table = _plain(text.encode(), None, columns)
        if table is not None:
            return table
    line, _, rest = text.partition("\n")
    if declared is False or line.count('"') % 2 or not rest.isascii() or not rest.strip():
        return None
    first = next(csv_dialect.fields(line, csv_dialect.COMMA), None)
    if first is None:
        return None
    # Below it there are only numbers, or the table that is returned is None.
    if declared or csv_dialect.has_header(first, [[_NUMERIC_ROW] * len(first)], columns):
        return _plain(rest.encode(), tuple(field.strip() for field in first), columns)
    return None


def _table(rows: Sequence[Sequence[str]], names: tuple[str, ...] | None, columns: Columns) -> Table:
    check_widths(rows, names, _SOURCE)
    refused = misfit(len(rows[0]), names, columns, _SOURCE)
    if refused is not None:
        return refused
    if columns.numbers:
        return Table(_numbers(rows, names), names)
    text = text_positions(columns, names, len(rows[0]))
    cells = [
        as_written(column) if position in text else typed(column)
        for position, column in enumerate(zip(*rows, strict=True))
    ]
    return table_of_columns(cells, names, columns)


def _numbers(rows: Sequence[Sequence[str]], names: tuple[str, ...] | None) -> NDArray[np.float64]:
    shape = len(rows), len(rows[0])
    flat = list(chain.from_iterable(rows))
    values = numbers(flat) or floats(flat)
    if values is not None:
        return np.array(values, dtype=np.float64).reshape(shape)
    found = [
        [_number(field, index, column, names) for column, field in enumerate(row)]
        for index, row in enumerate(rows)
    ]
    return np.array(found, dtype=np.float64)


def _number(field: str, index: int, column: int, names: tuple[str, ...] | None) -> float:
    value = number(field)
    if value is None:
        at = _SOURCE.cell(index, column, names)
        raise BadRequest(f"{at}: {shortened(field)!r} is not a number")
    return value
