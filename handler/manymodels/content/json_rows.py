"""The forms that rows have in JSON: lists, records, columns, features objects, and wrappers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from manymodels.content.body_text import shown
from manymodels.content.cells import Source, table_of_rows
from manymodels.content.json_features import is_features, table_of_features
from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest

WRAPPERS = ("instances", "inputs", "data", "dataframe_records", "dataframe_split")
"""Keys that hold the rows, in the order they are looked for."""
_SPLIT = {"columns", "data"}
_DEPTH = 4
_NAMES_SHOWN = 10


def table_of_value(value: object, columns: Columns, source: Source, *, plain: bool) -> Table:
    """Return the rows of a parsed JSON body.

    A list of rows, or one flat row, whose values are rows of a model with one column; a list of
    records or of features objects; an object that is one of them, that has a list for each column,
    or that wraps any of these. The model's own names come first: what has them for its keys is a
    record or has columns, whatever the names are.
    Raises BadRequest for anything else. ``plain`` as in `cells.table_of_rows`.
    """
    rows, names = _unwrapped(value, columns)
    if names is not None:
        return table_of_rows(rows, names, columns, source, plain=False)
    if not isinstance(rows, list):
        raise BadRequest(f"the {source.form} body's rows are {shown(rows)}, not a list")
    if not rows:
        raise BadRequest(f"the {source.form} body has no rows")
    if not isinstance(rows[0], (list, dict)):
        rows = rows if columns.count == 1 else [rows]
    return table_of_items(rows, columns, source, plain=plain)


def table_of_items(items: Sequence[Any], columns: Columns, source: Source, *, plain: bool) -> Table:
    """Return rows that are all lists, all records or all features objects; at least one.

    Of a model with one column a row may be its value alone. Raises BadRequest that names the first
    row that is something else than the first one.
    """
    if columns.count == 1 and not isinstance(items[0], (list, dict)):
        items = [[item] for item in items]
    if isinstance(items[0], dict):
        if is_features(items[0], columns):
            return table_of_features(items, columns, source)
        return _table_of_records(items, columns, source)
    for index, item in enumerate(items):
        if not isinstance(item, list):
            at = f"{source.form} {source.row(index)}"
            raise BadRequest(f"{at} is {shown(item)}, not a list of values")
    return table_of_rows(items, None, columns, source, plain=plain)


def _unwrapped(value: object, columns: Columns) -> tuple[Any, tuple[str, ...] | None]:
    """Return the rows, and their names where an object says them once for all rows."""
    for _ in range(_DEPTH):
        if not isinstance(value, dict):
            return value, None
        if is_features(value, columns):
            return [value], None
        if _is_the_models(value, columns):
            if not any(isinstance(cell, (list, dict)) for cell in value.values()):
                return [value], None
            return _transposed(value), tuple(value)
        if value.keys() >= _SPLIT:
            return _split(value)
        key = next((key for key in WRAPPERS if key in value), None)
        if key is None:
            raise BadRequest(_no_rows_in(value, columns))
        value = value[key]
    raise BadRequest(f"the JSON body wraps its rows more than {_DEPTH} objects deep")


def _is_the_models(value: Mapping[str, Any], columns: Columns) -> bool:
    """Whether an object's keys are the model's names.

    One of them is enough where no wrapper is among the keys, so that the others can be named.
    A list of lists is not a column's values but rows, whatever the key is.
    """
    if columns.names is None or value.keys().isdisjoint(columns.names):
        return False
    known = set(columns.names)
    if value.keys() != known and any(key in value for key in WRAPPERS):
        return False
    return not any(
        isinstance(cell, list) and cell and isinstance(cell[0], (list, dict))
        for cell in value.values()
    )


def _transposed(value: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return the rows of an object that has a list for each column, or pandas's row: cell."""
    lists = {key: _values(cells, key) for key, cells in value.items()}
    (first, cells), *others = lists.items()
    for key, further in others:
        if len(further) != len(cells):
            raise BadRequest(
                f"the JSON column {key!r} has {len(further)} values, {first!r} has {len(cells)}"
            )
    if not cells:
        raise BadRequest("the JSON body has no rows")
    return list(zip(*lists.values(), strict=True))


def _values(cells: object, key: str) -> list[Any]:
    if isinstance(cells, dict):
        return list(cells.values())
    if not isinstance(cells, list):
        raise BadRequest(f"the JSON column {key!r} is {shown(cells)}, not a list as others are")
    return cells


def _split(value: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    names, rows = value["columns"], value["data"]
    if not isinstance(names, list) or not all(isinstance(name, (str, int)) for name in names):
        raise BadRequest(f'"columns" is {shown(names)}, not a list of names')
    if not isinstance(rows, list) or not rows:
        raise BadRequest(f'"data" is {shown(rows)}, not a list of rows')
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list):
            raise BadRequest(f"JSON row {number} is {shown(row)}, not a list of values")
    return rows, tuple(map(str, names))


def _table_of_records(items: Sequence[Any], columns: Columns, source: Source) -> Table:
    names = tuple(items[0]) if columns.names is None else columns.names
    if not names:
        raise BadRequest(f"{source.form} {source.row(0)} is an object without values")
    wanted, take = set(names), itemgetter(*names)
    for index, item in enumerate(items):
        if not isinstance(item, dict) or item.keys() != wanted:
            raise BadRequest(f"{source.form} {source.row(index)} {_fault(item, names)}")
    rows = [take(item) for item in items] if len(names) > 1 else [(take(item),) for item in items]
    return table_of_rows(rows, names, columns, source, plain=False)


def _fault(item: object, names: Sequence[str]) -> str:
    if not isinstance(item, dict):
        return f"is {shown(item)}, not an object"
    missing = [name for name in names if name not in item]
    further = [key for key in item if key not in set(names)]
    faults = (("is without", missing), ("has unknown", further))
    return " and ".join(f"{what} {_listed(keys)}" for what, keys in faults if keys)


def _no_rows_in(value: Mapping[str, Any], columns: Columns) -> str:
    found = _listed(list(value)) if value else "no key at all"
    message = f"the JSON object has none of {', '.join(map(repr, WRAPPERS[:3]))} but {found}"
    if columns.names:
        return f"{message}; the model's columns are {_listed(columns.names)}"
    return message


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(shown(name) for name in names[:_NAMES_SHOWN])
    further = len(names) - _NAMES_SHOWN
    return f"{text} and {further} more" if further > 0 else text
