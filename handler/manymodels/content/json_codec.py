"""application/json: rows in any of the forms that clients write them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from manymodels.content import arrays
from manymodels.content.body_text import as_text
from manymodels.content.cells import Source
from manymodels.content.json_rows import table_of_value
from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest

PREDICTIONS = "predictions"
_QUOTE = ord('"')
_FLOAT64 = np.dtype(np.float64)
_SOURCE = Source("JSON")
_PARSED_BEFORE_US = Source("JSON", checked=False)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decode_json(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of a JSON body, see `json_rows.table_of_value` for its forms.

    ``body`` is the text, or what a parser made of it; null is a missing value. Raises BadRequest
    that names the row and column (from 1) of what is wrong.
    """
    if isinstance(body, (bytearray, memoryview)):
        body = bytes(body)
    if type(body) is bytes and columns.numbers and not parameters and _QUOTE not in body:
        # The usual request. Without text there is nothing that NumPy would take for a number.
        try:
            values = np.array(orjson.loads(body), _FLOAT64)
        except (ValueError, TypeError, OverflowError):
            pass
        else:
            if values.ndim == 2 and values.size:
                return Table(values, None)
            if values.ndim == 1 and values.size:
                return Table(values.reshape((-1, 1) if columns.count == 1 else (1, -1)), None)
    return _decode(body, parameters, columns)


def encode_json(predictions: NDArray[Any]) -> bytes:
    """Return a JSON list, of lists where there is more than one output; NaN is null."""
    if predictions.dtype == np.float64 and predictions.flags.c_contiguous and predictions.ndim:
        return orjson.dumps(predictions, option=arrays.OPTIONS)
    return arrays.dumps(arrays.as_written(np.atleast_1d(predictions)))


def encode_json_records(keys: Sequence[str], columns: Sequence[Any]) -> bytes:
    """Return ``{"predictions": [{key: value, ...}, ...]}``, a record a row.

    A column has shape (n_rows,) or (n_rows, k), whose k values are a list.
    """
    return arrays.dumps({PREDICTIONS: records(keys, columns)})


def records(keys: Sequence[str], columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a record a row of columns of shape (n_rows,) or (n_rows, k)."""
    rows = zip(*map(arrays.cells_of, columns), strict=True)
    return [dict(zip(keys, row, strict=True)) for row in rows]


def parse(body: bytes | bytearray | memoryview | str) -> object:
    """Return what a JSON text says; BadRequest where it is none."""
    try:
        parsed: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if isinstance(body, bytes) and body.startswith(_BYTE_ORDER_MARK):
            return parse(body.removeprefix(_BYTE_ORDER_MARK))
        raise BadRequest(f"the body is not JSON: {error}") from error
    return parsed


def _decode(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Decode any body. Of parameters only the charset matters."""
    if parameters and isinstance(body, bytes):
        body = as_text(body, parameters, "JSON")
    if not isinstance(body, (bytes, str)):
        return table_of_value(body, columns, _PARSED_BEFORE_US, plain=False)
    value = parse(body)
    return table_of_value(value, columns, _SOURCE, plain=_is_plain(body, value))


def _is_plain(body: bytes | str, value: object) -> bool:
    """Whether the only text in a body is the key that wraps its rows: then no cell is one."""
    if isinstance(body, bytes):
        return body.count(b'"') == (2 if isinstance(value, dict) else 0)
    return False
