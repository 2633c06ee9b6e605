"""text/csv: numbers in rows, without a header line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest

_SHOWN = 60
_CRLF = "\r\n"


def decode_csv(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of a CSV body; see `_decode`."""
    return Table(_decode(body))


def _decode(body: object) -> NDArray[np.float64]:
    """Return the rows of a CSV body, shape (n_rows, n_features).

    An empty field is NaN, blank lines are skipped. Raises BadRequest that names the row (from 1,
    blank lines not counted) and the text that is not a number.
    """
    text = _text(body)
    line = text.strip()
    if not line:
        raise BadRequest("the CSV body is empty")
    if "\n" not in line and "\r" not in line and "_" not in line and line.isascii():
        return _read_line(line)
    if '"' in text:  # loadtxt takes a quote that never closes: a body cut short would be a value
        return _read_with_care(text)
    try:
        return np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2, comments=None)
    except ValueError:  # for an empty field too, and it counts rows from 0 or 1 as the case may be
        return _read_with_care(text)


def encode_csv(predictions: NDArray[Any]) -> bytes:
    """Return one line a row; text is quoted by RFC 4180 where it has to be."""
    array = np.atleast_1d(predictions)
    if array.dtype.kind == "f" and array.dtype.itemsize < np.dtype(np.float64).itemsize:
        # Widened to a Python float, a float32's 0.1 would be written 0.10000000149011612.
        array = array.astype(str)
    if array.ndim == 1 and predictions.dtype.kind in "fiub":
        return "".join([f"{value}\n" for value in array.tolist()]).encode()
    table = array[:, np.newaxis] if array.ndim == 1 else array
    lines = _Lines()
    csv.writer(lines, lineterminator=_CRLF).writerows(table.tolist())
    return "".join(lines.written).encode()


class _Lines:
    """Lines ended by a line feed, as numbers are, from a writer told to end them by CRLF.

    Told to end them by a line feed it leaves a carriage return in a text unquoted (before 3.13).
    """

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, line: str) -> None:
        self.written.append(line.removesuffix(_CRLF) + "\n")


def _text(body: object) -> str:
    if isinstance(body, str):
        return body
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise BadRequest(f"the CSV body is not text but {type(body).__name__}")
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"the CSV body is not UTF-8: {error.reason} at byte {error.start}"
        ) from error


def _read_line(line: str) -> NDArray[np.float64]:
    """One row, the usual request: in a cold cache loadtxt costs twice as much."""
    try:
        return np.array([[float(field) for field in line.split(",")]])
    except ValueError:
        return _read_with_care(line)


def _read_with_care(text: str) -> NDArray[np.float64]:
    rows: list[list[float]] = []
    for fields in _fields(text.removeprefix("\ufeff")):
        number = len(rows) + 1
        if rows and len(fields) != len(rows[0]):
            raise BadRequest(f"CSV row {number} has {len(fields)} values, row 1 has {len(rows[0])}")
        rows.append([_number(field, number, column) for column, field in enumerate(fields, 1)])
    if not rows:
        raise BadRequest("the CSV body is empty")
    return np.array(rows, dtype=np.float64)


def _fields(text: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from (
            row for row in reader if len(row) > 1 or (row and (row[0].strip() or not row[0]))
        )
    except csv.Error as error:
        raise BadRequest(f"the CSV body is malformed at line {reader.line_num}: {error}") from error


def _number(field: str, row: int, column: int) -> float:
    text = field.strip()
    if not text:
        return float("nan")
    try:
        # float() also takes 1_000 and the digits of other scripts, which loadtxt does not.
        if "_" not in text and text.isascii():
            return float(text)
    except ValueError:
        pass
    shown = field if len(field) <= _SHOWN else field[:_SHOWN] + "..."
    raise BadRequest(f"CSV row {row}, column {column}: {shown!r} is not a number")
