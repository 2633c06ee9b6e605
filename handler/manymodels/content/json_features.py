"""SageMaker's features objects, of rows that are dense or sparse.

``{"features": [1, 2]}``, ``{"data": {"features": {"values": [1, 2]}}}``, and the sparse form
``{"data": {"features": {"keys": [26, 182], "shape": [2000], "values": [1, 1]}}}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from manymodels.content.body_text import shown
from manymodels.content.cells import Source, table_of_rows
from manymodels.content.limits import check_width, known_width
from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest

_FEATURES, _DATA = "features", "data"
_PARTS = {"keys", "shape", "values"}


class Features(NamedTuple):
    """One row: all its values, or those of the positions ``keys`` among ``width``."""

    values: list[Any]
    keys: list[int] | None = None
    width: int | None = None


def is_features(item: object, columns: Columns) -> bool:
    """Whether a JSON value is a features object, and no record of a model with such a column."""
    if not isinstance(item, dict) or len(item) != 1:
        return False
    [(key, value)] = item.items()
    if columns.names is not None and key in columns.names:
        return False
    if key == _DATA:
        return isinstance(value, dict) and value.keys() == {_FEATURES}
    return key == _FEATURES and isinstance(value, (list, dict))


def table_of_features(items: Sequence[Any], columns: Columns, source: Source) -> Table:
    """Return features objects as rows; sparse ones, and dense among them, as a CSR matrix.

    Raises BadRequest that names the row of what is not such an object, of widths that differ, and
    of positions out of range or said twice.
    """
    found = []
    for index, item in enumerate(items):
        if not is_features(item, columns):
            at = f"{source.form} {source.row(index)}"
            raise BadRequest(f"{at} is {shown(item)}, not an object of features as {source.row(0)}")
        found.append(_features(item, f"{source.form} {source.row(index)}"))
    if all(each.keys is None for each in found):
        rows = [each.values for each in found]
        return table_of_rows(rows, None, columns, source, plain=False)
    return Table(_matrix(found, columns, source))


def _features(item: dict[str, Any], at: str) -> Features:
    value = item[_DATA][_FEATURES] if _DATA in item else item[_FEATURES]
    if isinstance(value, list):
        return Features(value)
    if not isinstance(value, dict) or not isinstance(value.get("values"), list):
        raise BadRequest(f"{at}: the features are {shown(value)}, not a list of values")
    if value.keys() - _PARTS:
        raise BadRequest(f"{at}: features have keys, shape and values, not {shown(list(value))}")
    if "keys" not in value:
        return Features(value["values"])
    keys, width = value["keys"], _width(value.get("shape"), at)
    if not isinstance(keys, list) or len(keys) != len(value["values"]):
        raise BadRequest(f"{at}: the features have not one key for each of their values")
    return Features(value["values"], keys, width)


def _width(shape: object, at: str) -> int | None:
    if shape is None:
        return None
    width = shape[-1] if isinstance(shape, list) and shape and shape[:-1] in ([], [1]) else 0
    if type(width) is not int or width < 1:
        raise BadRequest(f"{at}: the shape is {shown(shape)}, not a list of the row's width")
    check_width(width, at)
    return width


def _matrix(rows: list[Features], columns: Columns, source: Source) -> Any:
    from scipy.sparse import csr_matrix

    width = _width_of_all(rows, columns, source)
    data: list[float] = []
    indices: list[int] = []
    ends = [0]
    for index, row in enumerate(rows):
        at = f"{source.form} {source.row(index)}"
        indices.extend(_positions(row, width, at))
        data.extend(_number(value, at) for value in row.values)
        ends.append(len(data))
    matrix = csr_matrix((np.array(data, dtype=np.float64), indices, ends), (len(rows), width))
    matrix.sort_indices()
    return matrix


def _width_of_all(rows: list[Features], columns: Columns, source: Source) -> int:
    said: int | None = None
    for index, row in enumerate(rows):
        width = len(row.values) if row.keys is None else row.width
        if width is None or width == said:
            continue
        if said is not None:
            at = f"{source.form} {source.row(index)}"
            raise BadRequest(f"{at} has a width of {width}, a row above it of {said}")
        said = width
    width = known_width(columns) if said is None else said
    if not width:
        raise BadRequest(f"the {source.form} body's sparse rows have no shape")
    return width


def _positions(row: Features, width: int, at: str) -> list[int]:
    if row.keys is None:
        return list(range(width))
    seen: set[int] = set()
    for key in row.keys:
        if type(key) is not int or not 0 <= key < width:
            raise BadRequest(f"{at}: the key {shown(key)} is not a position from 0 to {width - 1}")
        if key in seen:
            raise BadRequest(f"{at}: the key {key} is there twice")
        seen.add(key)
    return row.keys


def _number(value: object, at: str) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            pass
    raise BadRequest(f"{at}: {shown(value)} is not a number")
