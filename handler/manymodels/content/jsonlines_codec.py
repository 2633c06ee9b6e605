"""application/jsonlines: a row, a record or a features object on each line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from manymodels.content import arrays
from manymodels.content.body_text import as_text, shown
from manymodels.content.cells import Source
from manymodels.content.json_codec import records
from manymodels.content.json_rows import table_of_items
from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest

_FORM = "JSON Lines"


def decode_jsonlines(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of a JSON Lines body; blank lines are skipped, null is a missing value.

    All lines are lists, or records by column name, or SageMaker's features objects. Raises
    BadRequest that names the line (from 1) and the column of what is wrong.
    """
    items: list[Any] = []
    numbers: list[int] = []
    # Of bytes only line feeds and carriage returns end a line; in text U+2028 would too.
    lines = as_text(_text_of_parsed(body), parameters, _FORM).encode().splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip():
            items.append(_parse(line, number))
            numbers.append(number)
    if not items:
        raise BadRequest(f"the {_FORM} body is empty")
    return table_of_items(items, columns, Source(_FORM, "line", numbers), plain=False)


def encode_jsonlines(predictions: NDArray[Any]) -> bytes:
    """Return a JSON value a row: a number or text, or a list where there are more outputs."""
    array = np.atleast_1d(predictions)
    written = arrays.as_written(array)
    if isinstance(written, np.ndarray) and array.ndim <= 2 and array.size:
        text = orjson.dumps(written, option=arrays.OPTIONS)[1:-1]
        separator = b"," if array.ndim == 1 else b"],["
        return text.replace(separator, separator.replace(b",", b"\n")) + b"\n"
    return _lines(written)


def encode_jsonlines_records(keys: Sequence[str], columns: Sequence[Any]) -> bytes:
    """Return a line a row, each a JSON object; columns as `json_codec.encode_json_records` has."""
    return _lines(records(keys, columns))


def _lines(values: Any) -> bytes:
    return b"".join([arrays.dumps(value) + b"\n" for value in values])


def _parse(line: bytes, number: int) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        # The parser's own place is within the line, which it takes for line 1.
        raise BadRequest(
            f"{_FORM} line {number} is not JSON: {error.msg} at column {error.colno}"
        ) from error


def _text_of_parsed(body: object) -> object:
    """Return the text of a body of one line, which some servers parse before we are asked."""
    if isinstance(body, (dict, list)):
        try:
            return orjson.dumps(body)
        except TypeError as error:
            raise BadRequest(f"the {_FORM} body is {shown(body)}: {error}") from error
    return body
