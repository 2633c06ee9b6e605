"""Predictions as text/csv: a line a row, text quoted by RFC 4180 where it has to be."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from manymodels.content import arrays

_CRLF = "\r\n"


def encode_csv(predictions: NDArray[Any]) -> bytes:
    """Return one line a row of predictions, shape (n_rows,) or (n_rows, n_outputs)."""
    array = np.atleast_1d(predictions)
    if array.dtype.kind in "fiu" and array.ndim <= 2 and array.size:
        return _numbers(np.asarray(arrays.as_written(array)))
    rows = arrays.cells_of(array)
    return _lines(rows if array.ndim > 1 else ([cell] for cell in rows))


def encode_csv_records(keys: Sequence[str], columns: Sequence[Any]) -> bytes:
    """Return one line a row with the values of ``columns`` in turn, and no header.

    A column has shape (n_rows,) or (n_rows, k), whose k values are one field, a JSON list:
    ``1,"[0.2, 0.8]"`` as AWS's XGBoost container writes it. ``keys`` are not written.
    """
    return _lines(zip(*map(arrays.cells_of, columns), strict=True))


def _numbers(array: NDArray[Any]) -> bytes:
    """Write numbers as JSON, and its brackets as line ends: ten times as fast as one by one."""
    written = orjson.dumps(array, option=arrays.OPTIONS)
    if b"null" in written:
        written = _with_names(written, array[~np.isfinite(array)])
    if array.ndim == 1:
        return written[1:-1].replace(b",", b"\n") + b"\n"
    return written[2:-2].replace(b"],[", b"\n") + b"\n"


def _with_names(written: bytes, strange: NDArray[Any]) -> bytes:
    """Put nan, inf and -inf where JSON has null, in the order they come."""
    names = [str(value).encode() for value in strange.tolist()]
    pieces = zip_longest(written.split(b"null"), names, fillvalue=b"")
    return b"".join(chain.from_iterable(pieces))


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    lines = _Lines()
    csv.writer(lines, lineterminator=_CRLF).writerows(map(_field, row) for row in rows)
    return "".join(lines.written).encode()


def _field(cell: Any) -> Any:
    if isinstance(cell, (list, tuple, np.ndarray)):
        text = arrays.dumps(cell).decode()
        # Commas within text stay as they are.
        return json.dumps(json.loads(text), ensure_ascii=False) if '"' in text else _spaced(text)
    return cell.decode(errors="replace") if isinstance(cell, bytes) else cell


def _spaced(text: str) -> str:
    return text.replace(",", ", ")


class _Lines:
    """Lines ended by a line feed, as numbers are, from a writer told to end them by CRLF.

    Told to end them by a line feed it leaves a carriage return in a text unquoted (before 3.13).
    """

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, line: str) -> None:
        self.written.append(line.removesuffix(_CRLF) + "\n")
