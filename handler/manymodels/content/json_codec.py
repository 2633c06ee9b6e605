"""application/json: a list of rows, one row, or either under "instances" or "inputs"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest

_ROWS_KEYS = ("instances", "inputs")
_SHOWN = 60


def decode_json(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of a JSON body; see `_decode`."""
    return Table(_decode(body))


def _decode(body: object) -> NDArray[np.float64]:
    """Return the rows of a JSON body, shape (n_rows, n_features); null is NaN.

    A flat list is one row. ``body`` is the text, or what a parser made of it. Raises BadRequest
    that names the row and column (from 1) and the value that is not a number.
    """
    value = _rows_of(_parse(body))
    try:
        array: NDArray[Any] | None = np.array(value)
    except ValueError:  # ragged
        array = None
    if array is None or array.dtype.kind not in "fiub":
        array = _read_with_care(value)
    if array.ndim == 1:
        array = array.reshape(1, -1)
    if array.ndim != 2:
        raise BadRequest(f"the JSON body is nested {array.ndim} lists deep; rows of numbers are 2")
    if array.shape[1] == 0:
        raise BadRequest("the JSON body's rows have no values")
    return array.astype(np.float64, copy=False)


def encode_json(predictions: NDArray[Any]) -> bytes:
    """Return a JSON list, of lists where there is more than one output; NaN is null."""
    try:
        return orjson.dumps(predictions, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # text, objects, and what is not contiguous
        return orjson.dumps(predictions.tolist(), option=orjson.OPT_SERIALIZE_NUMPY)


def _parse(body: object) -> object:
    if not isinstance(body, (bytes, bytearray, memoryview, str)):
        return body
    try:
        parsed: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    return parsed


def _rows_of(value: object) -> list[Any]:
    if isinstance(value, dict):
        key = next((key for key in _ROWS_KEYS if key in value), None)
        if key is None:
            raise BadRequest(
                'the JSON object has neither "instances" nor "inputs" but '
                + (_shown(list(value)) if value else "no key at all")
            )
        value = value[key]
    if not isinstance(value, list):
        raise BadRequest(f"the JSON body's rows are {_shown(value)}, not a list")
    if not value:
        raise BadRequest("the JSON body has no rows")
    return value


def _read_with_care(value: list[Any]) -> NDArray[np.float64]:
    rows = value if isinstance(value[0], list) else [value]
    numbers: list[list[float]] = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list):
            raise BadRequest(f"JSON row {number} is {_shown(row)}, not a list of numbers")
        if len(row) != len(rows[0]):
            raise BadRequest(f"JSON row {number} has {len(row)} values, row 1 has {len(rows[0])}")
        numbers.append([_number(cell, number, column) for column, cell in enumerate(row, 1)])
    return np.array(numbers, dtype=np.float64)


def _number(cell: object, row: int, column: int) -> float:
    if cell is None:
        return float("nan")
    if isinstance(cell, (int, float)):
        try:
            return float(cell)
        except OverflowError:  # an integer of hundreds of digits, from a parser other than ours
            pass
    raise BadRequest(f"JSON row {row}, column {column}: {_shown(cell)} is not a number")


def _shown(value: object) -> str:
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        text = type(value).__name__
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
